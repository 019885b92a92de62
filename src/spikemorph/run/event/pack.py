"""Programs as flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from spikemorph.run.event.adding import AT_ONCE
from spikemorph.run.event.layout import Ints
from spikemorph.run.event.program import Edge, EdgeKind, Kind, Program, Stage
from spikemorph.run.event.tables import LINE, Array, E, Packed, S, Sizes, flat

EMITS = (Kind.CODED, Kind.NEURON, Kind.FIRE, Kind.STEPS, Kind.POOL, Kind.WINDOWS)
BY_LANE = (Kind.NEURON, Kind.FIRE)
INPUTS = (Kind.ANALOG, Kind.CODED)


@final
@dataclass(eq=False)
class _Pool:
    """Numbers that go one behind the other."""

    parts: list[Array] = field(default_factory=list)
    size: int = 0

    def put(self, numbers: Ints) -> int:
        start = self.size
        size = -(-numbers.size // LINE) * LINE
        self.parts.append(np.pad(numbers.reshape(-1), (0, size - numbers.size)))
        self.size += size
        return start


@final
class Packing:
    """State of one packing."""

    def __init__(self) -> None:
        self.program, self.books = Program((), {}, ()), dict[str, int]()
        self.counted, self.steady = frozenset[int](), frozenset[int]()
        self.joined: dict[int, int] = {}
        self.stages: list[list[int]] = []
        self.first = 0
        self.table, self.lanes = _Pool(), (_Pool(), _Pool())
        self.weights = (_Pool(), _Pool(), _Pool())
        self.start = (_Pool(), _Pool())
        self.edges: list[list[int]] = []
        self.sizes = [0] * len(Sizes)

    def add(self, program: Program, books: Mapping[str, int], *, joins: bool) -> tuple[int, int]:
        """One more program; its stages from, to.

        Args:
            joins: whether pools run with the neurons that they alone read.
        """
        self.program, self.books, self.first = program, dict(books), len(self.stages)
        self.joined = joined(program) if joins else {}
        self.steady = steady(program)
        self.counted = frozenset(stage for each in program.arrivals for stage, _ in each.terms)
        for number, stage in enumerate(program.stages):
            self.stages.append(self._stage(stage, number))
        return self.first, len(self.stages)

    def packed(self) -> Packed:
        """All programs so far."""
        stages = self.stages
        self.sizes[Sizes.STAGES] = len(stages)
        edges = np.array(self.edges, dtype=np.int64).reshape(-1, len(E))
        weights = [flat(pool.parts, kind) for pool, kind in zip(self.weights, _KINDS, strict=True)]
        lanes = [flat(pool.parts, kind) for pool, kind in zip(self.lanes, _KINDS[1:], strict=True)]
        start = [flat(pool.parts, kind) for pool, kind in zip(self.start, _KINDS[1:], strict=True)]
        table = flat(self.table.parts, np.int32)
        fixed = np.array(stages, dtype=np.int64), edges, table
        nothing = np.zeros((2, 0), dtype=np.int32)
        return Packed._make([*fixed, *weights, *lanes, *start, nothing, np.array(self.sizes, dtype=np.int64)])

    def _reserve(self, which: Sizes, size: int) -> int:
        start = self.sizes[which]
        self.sizes[which] += size
        return start

    def _stage(self, stage: Stage, number: int) -> list[int]:
        row = [-1] * len(S)
        own, sums = stage.layout, stage.sums
        row[S.KIND], row[S.WIDE] = stage.kind, int(stage.wide)
        row[S.POSITIONS], row[S.PADDED], row[S.CHANNELS] = own.positions, own.padded, own.channels
        row[S.SUM_POSITIONS], row[S.SUM_PADDED], row[S.SUM_SIZE] = sums.positions, sums.padded, sums.size
        row[S.SUMS] = self.start[stage.wide].put(stage.start)
        row[S.COUNTS] = self.start[stage.wide].put(np.zeros(own.size, dtype=np.int64))
        row[S.LARGEST], row[S.LO] = stage.largest, stage.lo
        row[S.HI], row[S.LEAST], row[S.STEADY] = stage.hi, stage.least, int(number in self.steady)
        self.sizes[Sizes.SUMS] = max(self.sizes[Sizes.SUMS], sums.size)
        row[S.TRAIN] = self._reserve(Sizes.TRAIN, own.positions + 1)
        most = max(self.sizes[Sizes.POSITIONS], own.positions, sums.positions)
        self.sizes[Sizes.POSITIONS] = most
        if number in self.counted:
            row[S.HITS] = self._reserve(Sizes.HITS, own.size)
        if stage.kind in INPUTS:
            row[S.TARGET] = self._reserve(Sizes.TARGETS, own.size)
        if stage.kind in EMITS:
            row[S.BOOK] = self.books.get(stage.name, -1)
            row[S.HOLD] = self._reserve(Sizes.HOLDS, own.size)
        if stage.kind is Kind.READOUT:
            row[S.SNAP] = self._reserve(Sizes.SNAP, sums.size)
        self._tables(stage, row)
        for neuron, pool in self.joined.items():
            if number == neuron:
                row[S.POOL] = self.first + pool
            if number == pool:
                row[S.JOINED], row[S.SUMS] = 1, self.stages[self.first + neuron][S.COUNTS]
        row[S.EDGE] = len(self.edges)
        for edge in stage.edges:
            self.edges.append(self._edge(edge, stage))
        row[S.EDGE_END] = len(self.edges)
        return row

    def _tables(self, stage: Stage, row: list[int]) -> None:
        if stage.breakpoints is not None:
            row[S.BREAK_COUNT] = stage.breakpoints.shape[0 if stage.kind in BY_LANE else 1]
            row[S.PLACES] = int(stage.kind is Kind.FIRE and stage.breakpoints.shape[1] != stage.layout.padded)
            pool = self.lanes[stage.wide] if stage.kind in BY_LANE else self.table
            row[S.BREAKS] = pool.put(stage.breakpoints)
        if stage.line is not None:
            row[S.LINE] = self.table.put(np.ascontiguousarray(stage.line).view(np.int32))
        if stage.values is not None and stage.group is not None:
            row[S.VALUES], row[S.GROUP] = self.table.put(stage.values), self.table.put(stage.group)
        if stage.windows is not None:
            row[S.WINDOWS], row[S.TAPS] = self.table.put(stage.windows), stage.windows.shape[1]
        if stage.kind is Kind.POOL and stage.windows is not None:
            row[S.BACK], row[S.BACK_ITEMS] = self._inverse(stage.windows, stage.sums.positions)

    def _inverse(self, near: Ints, sources: int) -> tuple[int, int]:
        """Of every source position, which rows of a table read it."""
        rows, taps = np.nonzero(near >= 0)
        read = near[rows, taps]
        order = np.argsort(read, kind="stable")
        first = np.concatenate([[0], np.cumsum(np.bincount(read, minlength=sources))])
        return self.table.put(first), self.table.put(rows[order])

    def _edge(self, edge: Edge, stage: Stage) -> list[int]:
        row = [-1] * len(E)
        source = self.program.stages[edge.source].layout
        row[E.KIND], row[E.SOURCE] = edge.kind, self.first + edge.source
        row[E.SOURCES], row[E.SOURCE_PADDED] = source.positions, source.padded
        if edge.kind is EdgeKind.STRAIGHT:
            assert edge.weight is not None
            if not bool((edge.weight[source.index] == 1).all()):
                row[E.WEIGHT] = self.table.put(edge.weight)
            return row
        if edge.kind is EdgeKind.LINKS:
            assert edge.first is not None and edge.target is not None and edge.weight is not None
            row[E.FIRST] = self.table.put(edge.first)
            row[E.TARGET] = self.table.put(edge.target)
            row[E.WEIGHT] = self.table.put(edge.weight)
            row[E.WHERE] = self.table.put(edge.target % stage.sums.size // stage.sums.padded)
            return row
        assert edge.near is not None and edge.place is not None and edge.rows is not None
        row[E.OUTS] = len(edge.near)
        self.sizes[Sizes.POSITIONS] = max(self.sizes[Sizes.POSITIONS], len(edge.near))
        code = 2 if edge.kind is EdgeKind.GROUPED else _code(edge.rows)
        rows = edge.rows
        if edge.kind is EdgeKind.ROWS and self.program.stages[edge.source].largest == 1:
            both = np.stack([edge.rows, -edge.rows], 1).reshape(-1, rows.shape[1])
            if _code(both) == 0 and self.weights[0].size + both.size < np.iinfo(np.int32).max:
                rows, row[E.KIND] = both, EdgeKind.UNITS
                row[E.SMALL] = int(AT_ONCE * int(np.abs(both).max()) <= np.iinfo(np.int8).max)
                row[E.ZERO] = self.weights[0].put(np.zeros(rows.shape[1], dtype=np.int64))
                reach = edge.near.shape[1] * source.padded
                self.sizes[Sizes.REACH] = max(self.sizes[Sizes.REACH], reach)
        first, items = _runs(edge.near, source.padded * len(rows) // len(edge.rows))
        row[E.RUNS], row[E.RUN_ITEMS] = self.table.put(first), self.table.put(items)
        row[E.PLACE] = self.table.put(edge.place)
        row[E.WHERE] = self.table.put(edge.place // stage.sums.padded)
        row[E.BACK], row[E.BACK_ITEMS] = self._inverse(edge.near, source.positions)
        row[E.WIDTH] = rows.shape[1]
        row[E.CODE], row[E.ROWS] = code, self.weights[code].put(rows)
        if edge.starts is not None:
            row[E.STARTS] = self.table.put(edge.starts)
        return row


_KINDS: tuple[Any, ...] = (np.int8, np.int16, np.int32)


def _runs(near: Ints, padded: int) -> tuple[Ints, Ints]:
    """Taps whose source positions follow each other, as runs.

    Returns:
        Of each row of the table where its runs start; and [runs, 3]: what to add to a place for its row of
        weights, first source position, position behind the last.
    """
    outs, taps = near.shape
    there = near >= 0
    follows = np.zeros_like(there)
    follows[:, 1:] = there[:, 1:] & there[:, :-1] & (near[:, 1:] == near[:, :-1] + 1)
    starts = there & ~follows
    rows, tap = np.nonzero(starts)
    number = np.cumsum(starts.reshape(-1)).reshape(outs, taps) - 1
    length = np.bincount(number[there], minlength=len(rows))
    position = near[rows, tap]
    items = np.stack([(tap - position) * padded, position, position + length], axis=1)
    first = np.concatenate([[0], np.cumsum(starts.sum(1))])
    return first, items


def _code(numbers: Ints) -> int:
    """Which of the integer types is narrowest for these weights."""
    for code, kind in enumerate(_KINDS[:2]):
        if numbers.size == 0 or (numbers.min() >= np.iinfo(kind).min and numbers.max() <= np.iinfo(kind).max):
            return code
    return 2


def steady(program: Program) -> frozenset[int]:
    """What sends the same at every step where inputs do: inputs, and relays of nothing else."""
    found: set[int] = set()
    for number, stage in enumerate(program.stages):
        relays = stage.kind is Kind.RELAY and all(edge.source in found for edge in stage.edges)
        if stage.kind is Kind.ANALOG or (relays and stage.edges and not stage.start.any()):
            found.add(number)
    return frozenset(found)


def joined(program: Program) -> dict[int, int]:
    """Neurons that one pool alone reads, all of them and each once, and that pool."""
    readers: dict[int, list[int]] = {}
    for number, stage in enumerate(program.stages):
        for edge in stage.edges:
            readers.setdefault(edge.source, []).append(number)
    found = {}
    for number, stage in enumerate(program.stages):
        if stage.kind is not Kind.POOL or len(stage.edges) != 1 or stage.largest != 1:
            continue
        (edge,) = stage.edges
        source = program.stages[edge.source]
        alone = source.kind is Kind.NEURON and readers[edge.source] == [number]
        alike = source.layout.same(stage.sums) and source.wide == stage.wide and not stage.start.any()
        if alone and alike and _unchanged(edge, source.layout.index):
            found[edge.source] = number
    return found


def _unchanged(edge: Edge, places: Ints) -> bool:
    """Whether an edge brings every place into the same place as it is."""
    return (
        edge.kind is EdgeKind.STRAIGHT and edge.weight is not None and bool((edge.weight[places] == 1).all())
    )


def pack(
    programs: Sequence[tuple[Program, Mapping[str, int]]], *, joins: bool
) -> tuple[Packed, list[tuple[int, int]]]:
    """Programs side by side as the kernels take them, and the stages of each.

    Args:
        programs: each with, by local name of what emits, its line in the books.
        joins: whether pools run with the neurons that they alone read: their spikes are counted, not listed.
    """
    packing = Packing()
    ranges = [packing.add(program, books, joins=joins) for program, books in programs]
    return packing.packed(), ranges
