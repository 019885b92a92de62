"""Sequences as one tape: which numbers every cell takes and leaves, laid out once for each network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import final

import numpy as np
import torch
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.run.cell_rules import Port
from spikemorph.run.cells import Cell
from spikemorph.run.event.layout import Ints
from spikemorph.run.event.notice import announce
from spikemorph.run.event.pack import pack
from spikemorph.run.event.plans import Arrived, Network, arrivals, programs_of, space_for
from spikemorph.run.event.program import Program
from spikemorph.run.event.tables import DONE, MORE_SPIKES, Array, How, Packed, S, Sizes, Space, zeros
from spikemorph.run.event.tape import C, Tape, play_tape
from spikemorph.run.handover import Delta, Handover
from spikemorph.run.record import Record, SpikeCounts
from spikemorph.run.result import Run, Work
from spikemorph.run.tally import emissions

SPIKES, STEPS = 2**14, 16
HELD = np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.int32)
"""No neuron is held."""
State = tuple[Array, Array, Array, Array]
"""Narrow and wide state, targets, and the books of a cell in the making: memory of one worker."""


@final
@dataclass(frozen=True, eq=False)
class Laid:
    """A network ready to run whole sequences.

    Args:
        programs: of every kind of cell, with its stages.
        places: of inputs, emitters and readouts, where their numbers start in memory.
        size: of memory.
        names: of what the books count.
    """

    packed: Packed
    tape: Tape
    programs: tuple[tuple[Graph, Program, int], ...]
    places: dict[str, int]
    size: int
    names: tuple[str, ...]
    spaces: list[tuple[Space, State]] = field(default_factory=list)


def laid(known: Network, *, counts: bool, work: bool) -> Laid:
    """The tape of a network, made once.

    Args:
        counts: whether the counts of all emitters are kept, not only of those that later cells read.
        work: whether what arrives at every op is counted, so that none may be left out.
    """
    if (counts, work) not in known.tapes:
        known.tapes[counts, work] = _laid(known, counts=counts, work=work)
    found: Laid = known.tapes[counts, work]
    return found


def _laid(known: Network, *, counts: bool, work: bool) -> Laid:
    network, plan, lowered = known.network, known.plan, programs_of(known, compose=not work)
    names = dict.fromkeys(name for cell in plan.cells for name in emissions(network, cell).values())
    lines = {name: line for line, name in enumerate(names)}
    kinds: dict[tuple[int, ...], int] = {}
    made: list[tuple[Program, dict[str, int]]] = []
    graphs: list[Graph] = []
    for cell in plan.cells:
        if (id(cell.graph),) not in kinds:
            kinds[id(cell.graph),] = len(made)
            found = emissions(network, cell)
            program = lowered[id(cell.graph)]
            made.append((program, {local: lines[name] for local, name in found.items()}))
            graphs.append(cell.graph)
    packed, ranges = pack(made, joins=len(made) == 1)
    read = {port.name for cell in plan.cells for port in cell.inputs}
    wanted = [*plan.graph.inputs, *plan.graph.neurons, *plan.graph.readouts]
    if not counts:
        wanted = [node for node in wanted if node.name in read or isinstance(node.op, ops.Readout)]
    places, size = _places(wanted)
    rows, take, keep = [], _Stretches(), _Stretches()
    before: Cell | None = None
    for cell in plan.cells:
        number = kinds[id(cell.graph),]
        row = _cell(packed, made[number][0], ranges[number])
        row[C.GOES_ON] = int(before is not None and before.layout == cell.layout)
        row[C.SAME] = int(before is not None and before.graph is cell.graph)
        row[C.TAKE] = take.size
        for port in cell.inputs:
            _take(take, plan.graph, places, port, (packed, made[number][0], ranges[number][0]))
        row[C.TAKE_END], row[C.KEEP] = take.size, keep.size
        for ports, column in ((cell.emitters, S.COUNTS), (cell.readouts, S.SUMS)):
            for port in (each for each in ports if each.name in places):
                _keep(keep, plan.graph, places, port, (packed, made[number][0], ranges[number][0]), column)
        row[C.KEEP_END] = keep.size
        rows.append(row)
        before = cell
    tape = Tape(np.array(rows, dtype=np.int64), take.joined(3), keep.joined(4))
    programs = tuple(
        (graph, each[0], stages[0]) for graph, each, stages in zip(graphs, made, ranges, strict=True)
    )
    return Laid(packed, tape, programs, places, size, tuple(names))


@final
class _Stretches:
    """Where numbers go; places that follow each other are one stretch."""

    def __init__(self) -> None:
        self.parts, self.size = list[Ints](), 0

    def put(self, source: Ints, target: Ints, *same: int) -> None:
        """Where numbers come from, -1 for none, and go to; what is the same for all of them."""
        order = np.argsort(target, kind="stable")
        source, target = source[order], target[order]
        nothing = (source[1:] == -1) & (source[:-1] == -1)
        goes_on = (np.diff(target) == 1) & (((np.diff(source) == 1) & (source[:-1] != -1)) | nothing)
        starts = np.flatnonzero(np.append(True, ~goes_on)[: len(target)])
        lengths = np.diff(np.append(starts, len(target)))
        constants = [np.full(len(starts), each) for each in same]
        self.parts.append(np.stack([source[starts], target[starts], lengths, *constants]))
        self.size += len(starts)

    def joined(self, rows: int) -> Array:
        return np.concatenate([*self.parts, np.zeros((rows, 0))], axis=1).astype(np.int32)


def _places(nodes: Iterable[Node]) -> tuple[dict[str, int], int]:
    places, size = {}, 0
    for node in nodes:
        places[node.name] = size
        size += math.prod(node.shape)
    return places, size


def _cell(packed: Packed, program: Program, stages: tuple[int, int]) -> list[int]:
    """A row of the table; the state of a program is one stretch of each kind."""
    row = [0] * len(C)
    row[C.STAGE], row[C.STAGE_END] = stages
    for wide, first, last in ((0, C.NARROW, C.NARROW_END), (1, C.WIDE, C.WIDE_END)):
        own = [packed.stages[n] for n in range(*stages) if packed.stages[n, S.WIDE] == wide]
        if own:
            row[first] = int(min(each[S.SUMS] for each in own))
            row[last] = int(max(each[S.COUNTS] + each[S.POSITIONS] * each[S.PADDED] for each in own))
    return row


Where = tuple[Packed, Program, int]


def _memory(graph: Graph, places: dict[str, int], port: Port) -> Ints:
    """Places in memory of the elements of a port, row-major as the local node has them; -1 outside."""
    node = graph.by_name[port.name]
    order = _order(node)
    numbers = np.arange(math.prod(node.shape)).reshape([node.shape[axis] for axis in order])
    numbers = places[node.name] + numbers.transpose(np.argsort(order))
    if node.element_axis is None:
        return numbers.reshape(-1)
    size = node.shape[node.element_axis]
    wanted = np.array(port.elements, dtype=np.int64)
    found = np.take(numbers, wanted.clip(0, size - 1), axis=node.element_axis)
    inside = (wanted >= 0) & (wanted < size)
    along = [-1 if i == node.element_axis else 1 for i in range(len(node.shape))]
    return np.where(inside.reshape(along), found, -1).reshape(-1)


def _order(node: Node) -> list[int]:
    """Axes as they lie in memory: elements, positions, channels, mostly as stages have them."""
    first = [] if node.element_axis is None else [node.element_axis]
    rest = [axis for axis in range(len(node.shape)) if axis not in first]
    conv = len(rest) > 0 and rest[0] == 0
    return [*first, *rest[1:], 0] if conv else [*first, *rest]


def _take(take: _Stretches, graph: Graph, places: dict[str, int], port: Port, where: Where) -> None:
    packed, program, first = where
    number = program.number[port.local]
    index = program.stages[number].layout.index + packed.stages[first + number, S.TARGET]
    source = np.full(len(index), -1) if not port.name else _memory(graph, places, port)
    take.put(source, index)


def _keep(
    keep: _Stretches, graph: Graph, places: dict[str, int], port: Port, where: Where, column: S
) -> None:
    packed, program, first = where
    number = program.number[port.local]
    row, stage = packed.stages[first + number], program.stages[number]
    index = (stage.layout if column is S.COUNTS else stage.sums).index + row[column]
    keep.put(index, _memory(graph, places, port), int(row[S.WIDE]))


# ---------------------------------------------------------------- running
def _work(packed: Packed, books: int) -> State:
    return (
        zeros(len(packed.start16), np.int16),
        zeros(len(packed.start32), np.int32),
        zeros(int(packed.sizes[Sizes.TARGETS]) + 64, np.int32),
        np.zeros((books, 2), dtype=np.int64),
    )


@final
@dataclass
class _Worker:
    """Samples that one thread runs."""

    laid: Laid
    memory: Array
    how: How
    counted: Array
    marks: Array
    hits: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    def all(self) -> None:
        laid, packed = self.laid, self.laid.packed
        try:
            space, work = self.laid.spaces.pop()
        except IndexError:
            space, work = space_for(packed, SPIKES, STEPS), _work(packed, self.counted.shape[1])
        if self.how.work == 1:
            space.hits[:] = 0
        at = 0
        while True:
            most = len(space.train) // int(packed.sizes[Sizes.TRAIN])
            how = self.how._replace(most=most)
            at, ended = play_tape(
                packed, laid.tape, work, self.memory, space, how, HELD, (self.counted, self.marks), at
            )
            if ended == DONE:
                break
            old = space
            double = (2, 1) if ended == MORE_SPIKES else (1, 2)
            space = space_for(packed, double[0] * len(old.place), double[1] * most)
            if self.how.work == 1:
                space.hits[:] = old.hits
        if self.how.work == 1:
            self.hits = space.hits.copy()
        laid.spaces.append((space, work))


@final
@dataclass(frozen=True, eq=False)
class Task:
    """What is to run: as much as it takes to run it again.

    Args:
        inputs: counts [batch, *shape] of one chunk.
    """

    known: Network
    inputs: tuple[Tensor, ...]
    threads: int
    steps: int | None
    handover: Handover

    def play(self, *, counts: bool, work: bool) -> tuple[Laid, Books]:
        """All elements of all samples.

        Args:
            counts: whether the settled counts of all emitters are kept.
            work: whether events are counted place by place.
        """
        announce(play_tape)
        ready = laid(self.known, counts=counts, work=work)
        samples, graph = len(self.inputs[0]), self.known.plan.graph
        memory = np.zeros((samples, ready.size), dtype=np.int32)
        for node, each in zip(graph.inputs, self.inputs, strict=True):
            if node.name in ready.places:
                start = ready.places[node.name]
                order = _order(node)
                moved = each if order == sorted(order) else each.permute(0, *(1 + axis for axis in order))
                memory[:, start : start + math.prod(node.shape)] = moved.reshape(samples, -1).numpy()
        fresh, fixed = not isinstance(self.handover, Delta), self.steps is not None
        how = How(self.steps or 0, int(fresh), int(fixed), 0, 0, 0, int(work), 0, self.known.network.ramp)
        counted = np.zeros((samples, len(ready.names), 2), dtype=np.int64)
        marks = np.zeros((samples, len(ready.tape.cells), 3), dtype=np.int64)
        parts = min(samples, self.threads)
        cuts = [samples * i // parts for i in range(parts + 1)]
        workers = [_Worker(ready, memory[a:b], how, counted[a:b], marks[a:b]) for a, b in pairwise(cuts)]
        if parts == 1:
            workers[0].all()
        else:
            with ThreadPoolExecutor(parts) as pool:
                list(pool.map(_Worker.all, workers))
        return ready, (memory, counted, marks, [worker.hits for worker in workers])

    @cached_property
    def hits(self) -> tuple[Laid, Array]:
        """Events place by place, by running once more: most callers never ask, and counting takes time."""
        ready, (_, _, _, hits) = self.play(counts=False, work=True)
        return ready, np.stack(hits).astype(np.int64).sum(0)

    def arrived(self, kind: int) -> dict[str, Tensor]:
        """What arrived at every op of one kind of cell that does work."""
        ready, hits = self.hits
        _, program, first = ready.programs[kind]
        return arrivals(program, ready.packed, first, hits)


Books = tuple[Array, Array, Array, list[Array]]
"""Memory, spikes and events, marks, events place by place of each worker."""


def run_whole(task: Task, record: tuple[Record, ...]) -> tuple[Run, Tensor]:
    """The result of a chunk, and the steps that every element ran."""
    kept = any(isinstance(each, SpikeCounts) for each in record)
    ready, (memory, counted, marks, _) = task.play(counts=kept, work=False)
    graph = task.known.plan.graph
    ran = torch.from_numpy(marks[:, :, 1].max(0))
    emitted = torch.from_numpy(np.ascontiguousarray(counted.transpose(2, 1, 0)))
    spikes, events = (dict(zip(ready.names, each.unbind(), strict=True)) for each in emitted)
    coded = [node for node in graph.inputs if node.name in spikes]
    run = Run(
        graph=task.known.network.graph,
        raw={node.name: _part(ready, memory, node) for node in graph.readouts},
        steps=int(ran.sum()),
        element_steps=torch.from_numpy(marks[:, :, 0].T.copy()),
        element_settled=torch.from_numpy(marks[:, :, 2].T == 0),
        layer_spikes=spikes,
        layer_events=events,
        work=tuple(
            Work(cell, Arrived(partial(task.arrived, kind)))
            for kind, (cell, _, _) in enumerate(ready.programs)
        ),
        counts={node.name: _part(ready, memory, node) for node in (*coded, *graph.neurons)} if kept else None,
    )
    return run, ran


def _part(ready: Laid, memory: Array, node: Node) -> Tensor:
    start = ready.places[node.name]
    order = _order(node)
    if order == sorted(order):
        numbers = torch.from_numpy(memory[:, start : start + math.prod(node.shape)].astype(np.int64))
        return numbers.reshape(len(memory), *node.shape)
    shape = [node.shape[axis] for axis in order]
    numbers = torch.from_numpy(memory[:, start : start + math.prod(shape)].astype(np.int64))
    back = np.argsort(order).tolist()
    return numbers.reshape(len(memory), *shape).permute(0, *(1 + axis for axis in back)).contiguous()
