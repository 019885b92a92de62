"""Programs of a network, one for each kind of cell, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from spikemorph.convert.network import Spikes, SpikingNetwork, smallest
from spikemorph.run.cells import Cell, Plan, plan_of
from spikemorph.run.event.compose import composed
from spikemorph.run.event.lower import lower
from spikemorph.run.event.pack import pack
from spikemorph.run.event.program import Kind, Program
from spikemorph.run.event.tables import Array, Packed, S, Sizes, Space, T, zeros
from spikemorph.run.event.vector import HALF
from spikemorph.run.tally import emissions


@final
@dataclass(frozen=True, eq=False)
class Ready:
    """A cell as the kernels run it.

    Args:
        names: local names of what emits, in the order of the books.
        readouts, counts: by local name, where its numbers are among those collected.
    """

    cell: Cell
    program: Program
    packed: Packed
    names: tuple[str, ...]
    readouts: Mapping[str, slice]
    counts: Mapping[str, slice]
    spaces: list[Space] = field(default_factory=list)

    def placed(self, targets: tuple[Tensor, ...]) -> Array:
        """Targets of all inputs of the cell, int32 [batch, places]."""
        found = np.zeros((len(targets[0]), self.packed.sizes[Sizes.TARGETS]), dtype=np.int32)
        for port, target in zip(self.cell.inputs, targets, strict=True):
            number = self.program.number[port.local]
            start = self.packed.stages[number, S.TARGET]
            index = self.program.stages[number].layout.index + start
            found[:, index] = target.reshape(len(target), -1).numpy()
        return found

    def part(self, found: Array, where: slice, local: str) -> Tensor:
        """Collected numbers of a node, [batch, *shape]."""
        shape = self.cell.graph.by_name[local].shape
        return torch.from_numpy(found[:, where]).reshape(len(found), *shape)


def arrivals(program: Program, packed: Packed, first: int, hits: Array) -> dict[str, Tensor]:
    """Events by place to what arrived at every op that does work.

    Args:
        first: number of the program's first stage among those packed.
    """
    result = {}
    for each in program.arrivals:
        total = np.zeros(len(each.terms[0][1]) if each.terms else 0, dtype=np.int64)
        for stage, index in each.terms:
            start = packed.stages[first + stage, S.HITS]
            total += np.where(index < 0, 0, hits[start + index.clip(min=0)])
        result[each.node] = torch.from_numpy(total.reshape(each.shape))
    return result


@final
class Arrived(Mapping[str, Tensor]):
    """What arrived at every op that does work, made from events by place when somebody looks."""

    def __init__(self, count: Callable[[], dict[str, Tensor]]) -> None:
        self._count = count

    @cached_property
    def _found(self) -> dict[str, Tensor]:
        return self._count()

    def __getitem__(self, name: str) -> Tensor:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


@final
@dataclass(frozen=True, eq=False)
class Network:
    """All cells of a network; programs are made when they are first needed.

    Args:
        tapes: all cells laid out one behind the other (`whole.Laid`), by whether all counts are kept and
            what arrives is counted, once made.
        lowered: programs by kind of cell, as they are and with scales composed, once made.
    """

    network: SpikingNetwork
    plan: Plan
    ready: dict[tuple[int, bool, bool], Ready] = field(default_factory=dict)
    tapes: dict[tuple[bool, bool], Any] = field(default_factory=dict)
    lowered: dict[bool, dict[int, Program]] = field(default_factory=dict)

    def of(self, cell: Cell, *, counts: bool, joins: bool) -> Ready:
        """The program of a cell.

        Args:
            counts: whether the counts of its neurons are collected.
            joins: whether pools run with the neurons that they alone read, which are not listed then.
        """
        key = id(cell.graph), counts, joins
        if key not in self.ready:
            self.ready[key] = _ready(self, cell, counts=counts, joins=joins)
        found = self.ready[key]
        return found if found.cell is cell else replace(found, cell=cell)


@lru_cache(maxsize=2)
def _network(same: _Same) -> Network:
    coded = isinstance(same.network.encoding, Spikes)
    return Network(same.network, plan_of(same.network.graph, buffered_input=coded))


class _Same:
    """A network, compared by identity of its graph and by how it spikes."""

    def __init__(self, network: SpikingNetwork) -> None:
        self.network = network

    def _key(self) -> tuple[object, ...]:
        return (
            id(self.network.graph),
            self.network.spike,
            self.network.encoding,
            self.network.window,
            self.network.ramp,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._key() == self._key()

    def __hash__(self) -> int:
        return hash(self._key())


def network_of(network: SpikingNetwork) -> Network:
    """The cells of a network, kept for the next call."""
    return _network(_Same(network))


def programs_of(known: Network, *, compose: bool) -> dict[int, Program]:
    """The program of every kind of cell, by id of its graph.

    Where the state of one goes on in another only constants differ; their sums get the same width.

    Args:
        compose: whether scales go into the weights in front of them, so that nothing arrives at them.
    """
    if compose in known.lowered:
        return known.lowered[compose]
    found: dict[int, Program] = {}
    alike: dict[object, list[Program]] = {}
    for cell in known.plan.cells:
        if id(cell.graph) in found:
            continue
        spike = known.network.spike
        names = emissions(known.network, cell)
        spikes = {name: (smallest(spike, cell.graph.by_name[name].op), spike.largest) for name in names}
        program = lower(composed(cell.graph) if compose else cell.graph, spikes)
        found[id(cell.graph)] = program
        alike.setdefault(cell.layout, []).append(program)
    for group in alike.values():
        for stages in zip(*(program.stages for program in group), strict=True):
            most = max(stage.bound for stage in stages)
            for stage in stages:
                stage.bound = most
    known.lowered[compose] = found
    return found


def _ready(known: Network, cell: Cell, *, counts: bool, joins: bool) -> Ready:
    names = tuple(emissions(known.network, cell))
    program = programs_of(known, compose=False)[id(cell.graph)]
    packed, _ = pack([(program, {name: line for line, name in enumerate(names)})], joins=joins)
    wanted: list[Array] = []
    size = 0
    readouts: dict[str, slice] = {}
    found: dict[str, slice] = {}
    groups = [(cell.readouts, S.SUMS, readouts)] + ([(cell.emitters, S.COUNTS, found)] if counts else [])
    for ports, column, places in groups:
        for port in ports:
            number = program.number[port.local]
            stage, row = program.stages[number], packed.stages[number]
            layout = stage.sums if stage.kind is Kind.READOUT else stage.layout
            index = layout.index + row[column]
            wanted.append(np.stack([np.full(len(index), row[S.WIDE]), index]))
            places[port.local] = slice(size, size + len(index))
            size += len(index)
    joined = np.concatenate([*wanted, np.zeros((2, 0))], axis=1).astype(np.int32)
    return Ready(cell, program, packed._replace(collected=joined), names, readouts, found)


def space_for(packed: Packed, spikes: int, steps: int) -> Space:
    """Memory of one worker."""
    sizes = packed.sizes
    positions = int(sizes[Sizes.POSITIONS])
    widest = int(packed.stages[:, S.PADDED].max())
    return Space(
        place=np.zeros(spikes + widest + HALF, dtype=np.int32),
        value=np.zeros(spikes + widest, dtype=np.int32),
        train=np.zeros(int(sizes[Sizes.TRAIN]) * steps, dtype=np.int64),
        length=np.zeros(int(sizes[Sizes.STAGES]), dtype=np.int64),
        mark=np.zeros(positions, dtype=np.uint8),
        touched=np.zeros(positions, dtype=np.uint8),
        pending=np.zeros(positions, dtype=np.uint8),
        pooled=np.zeros(positions, dtype=np.uint8),
        sent=zeros(32, np.int32),
        listed=zeros(int(sizes[Sizes.REACH]) + 64, np.int32),
        snap=np.zeros(int(sizes[Sizes.SNAP]) * steps, dtype=np.int32),
        pace=np.zeros(steps, dtype=np.int64),
        entered=np.zeros(int(sizes[Sizes.TARGETS]) + 64, dtype=np.int32),
        drive=np.zeros(int(sizes[Sizes.SUMS]), dtype=np.int32),
        hits=np.zeros(int(sizes[Sizes.HITS]), dtype=np.int32),
        totals=np.zeros(len(T), dtype=np.int64),
    )
