"""Element by element through the cells of a network, a chunk of samples at once."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import final

import numpy as np
import torch
from torch import Tensor

from spikemorph.evaluate.lengths import Valid
from spikemorph.ir.elements import is_sequence
from spikemorph.run.cells import Cell, scattered
from spikemorph.run.event.notice import announce
from spikemorph.run.event.plans import Arrived, Network, Ready, arrivals, space_for
from spikemorph.run.event.play import play_batch
from spikemorph.run.event.stepwise import advance
from spikemorph.run.event.tables import DONE, MORE_SPIKES, Array, How, S, Sizes, Space
from spikemorph.run.handover import Delta, Handover
from spikemorph.run.record import Record
from spikemorph.run.result import Run, Work
from spikemorph.run.settled import Holds, Settled
from spikemorph.run.tally import Tally, emissions

SPIKES, STEPS = 2**14, 16
"""Room that a worker starts with; it doubles on demand."""


@final
@dataclass
class Played:
    """What one element of a chunk left behind.

    Args:
        counted: [samples, emitters, 2] spikes and events.
        marks: [samples, 3] last step with a spike, steps run, whether unsettled.
        found: [samples, n] collected numbers.
    """

    counted: Array
    marks: Array
    found: Array


@final
@dataclass
class Elements:
    """A chunk of samples on its way through a sequence; lives inside one engine call."""

    known: Network
    settled: Settled
    tally: Tally
    threads: int
    stepwise: bool
    counts: bool
    work: bool = True
    joins: bool = False
    ran: list[int] = field(default_factory=list)
    hits: dict[int, tuple[Ready, Array]] = field(default_factory=dict)
    before: Ready | None = None
    states: list[tuple[Array, Array]] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        known: Network,
        inputs: tuple[Tensor, ...],
        valid: Mapping[str, Valid],
        record: tuple[Record, ...],
        threads: int,
        *,
        stepwise: bool,
        work: bool = True,
    ) -> Elements:
        """Nothing has run.

        Args:
            work: whether events are counted place by place.
        """
        whole = tuple(each.to(torch.int64) for each in inputs)
        counts = is_sequence(known.plan.graph) or len(record) > 0
        begin = Settled.begin(known.plan, whole, valid) if counts else Settled(known.plan, whole, {}, valid)
        tally = Tally.begin(known.network, known.plan, len(whole[0]), record)
        alike = len({id(cell.graph) for cell in known.plan.cells}) == 1
        joins = alike and not stepwise and not valid
        return cls(known, begin, tally, threads, stepwise, counts, work, joins)

    def run(self, steps: int | None, handover: Handover) -> tuple[Run, Tensor]:
        """All elements; the result, and the steps that every element ran."""
        for cell in self.known.plan.cells:
            self.advance(cell, steps, handover)
        coded = [node.name for node in self.known.plan.graph.inputs if node.name in self.tally.spikes]
        given = dict(zip((n.name for n in self.known.plan.graph.inputs), self.settled.inputs, strict=True))
        work = tuple(
            Work(ready.cell.graph, Arrived(partial(arrivals, ready.program, ready.packed, 0, hits)))
            for ready, hits in self.hits.values()
        )
        return (
            self.tally.finish({**{name: given[name] for name in coded}, **self.settled.counts}, work),
            torch.tensor(self.ran),
        )

    def advance(self, cell: Cell, steps: int | None, handover: Handover) -> None:
        """One more element."""
        ready, before = self.known.of(cell, counts=self.counts, joins=self.joins), self.before
        keeps = isinstance(handover, Delta)
        goes_on = keeps and before is not None and before.cell.layout == cell.layout
        if not goes_on:
            self.states = []
        ramp = 1 if goes_on else self.known.network.ramp
        how = How(steps or 0, int(not goes_on), 1, int(self.stepwise), 0, STEPS, int(self.work), 0, ramp)
        if goes_on and before is not None:
            if before.packed is not ready.packed:
                _shift(self.states, before, ready)
            elif steps is None:
                how = how._replace(everything=0)
        self._element(ready, how, keeps=keeps)
        self.before = ready

    def _element(self, ready: Ready, how: How, *, keeps: bool) -> None:
        cell = ready.cell
        targets = self.settled.targets(cell)
        held = _held(ready, self.settled.holds(cell, targets), len(targets[0]))
        if held[0].shape[1]:
            how = how._replace(hold=1, everything=1)
        placed = ready.placed(targets)
        bounds = _bounds(len(placed), 1 if self.stepwise else self.threads)
        workers = [
            Worker(
                ready,
                how,
                placed[a:b],
                (held[0][a:b], held[1][a:b]),
                self.states[i] if self.states else None,
                keeps=keeps,
            )
            for i, (a, b) in enumerate(bounds)
        ]
        announce(play_batch)
        self.tally.open(cell)
        if self.stepwise:
            played = advance(workers[0], self.tally, ready)
        elif len(workers) == 1:
            played = workers[0].all()
        else:
            with ThreadPoolExecutor(len(workers)) as pool:
                played = _stacked(list(pool.map(Worker.all, workers)))
        self._close(ready, played, workers)
        self.states = [worker.states for worker in workers]

    def _close(self, ready: Ready, played: Played, workers: list[Worker]) -> None:
        """Books of an element, and what it left settled."""
        cell, tally = ready.cell, self.tally
        for worker in workers if self.work else ():
            if id(cell.graph) in self.hits:
                self.hits[id(cell.graph)][1][:] += worker.hits
            else:
                self.hits[id(cell.graph)] = ready, worker.hits
        steps = int(played.marks[:, 1].max())
        self.ran.append(steps)
        if self.counts:
            self.settled.keep(
                cell, {local: ready.part(played.found, where, local) for local, where in ready.counts.items()}
            )
        if self.stepwise:
            return
        tally.steps += steps
        tally.element_steps[-1] = torch.from_numpy(played.marks[:, 0].copy())
        tally.element_settled[-1] = torch.from_numpy(played.marks[:, 2] == 0)
        for line, name in enumerate(emissions(self.known.network, cell).values()):
            tally.spikes[name] += torch.from_numpy(played.counted[:, line, 0])
            tally.events[name] += torch.from_numpy(played.counted[:, line, 1])
        for port in cell.readouts:
            axis = self.known.plan.graph.by_name[port.name].element_axis
            part = ready.part(played.found, ready.readouts[port.local], port.local)
            scattered(tally.raw[port.name], axis, port.elements, part)


@final
class Worker:
    """Samples that run one after the other, and the memory for it."""

    def __init__(
        self,
        ready: Ready,
        how: How,
        targets: Array,
        held: tuple[Array, Array],
        states: tuple[Array, Array] | None,
        *,
        keeps: bool,
    ) -> None:
        self.ready, self.how, self.targets, self.held = ready, how, targets, held
        packed = ready.packed
        rows = len(targets) if keeps else 1
        self.states = states or (
            np.zeros((rows, len(packed.start16)), dtype=np.int16),
            np.zeros((rows, len(packed.start32)), dtype=np.int32),
        )
        samples = len(targets)
        self.played = Played(
            np.zeros((samples, len(ready.names), 2), dtype=np.int64),
            np.zeros((samples, 3), dtype=np.int64),
            np.zeros((samples, packed.collected.shape[1]), dtype=np.int32),
        )
        self.hits = np.zeros(int(packed.sizes[Sizes.HITS]) if how.work == 1 else 0, dtype=np.int64)

    def all(self) -> Played:
        """All samples."""
        self.some(0, len(self.targets))
        return self.played

    def some(self, first: int, stop: int) -> Space:
        """Samples first..stop; the memory as the last one left it."""
        space, how = self._space()
        books = (self.played.counted[:stop], self.played.marks[:stop], self.played.found[:stop])
        at = first
        while True:
            at, ended = play_batch(
                self.ready.packed, self.states, self.targets[:stop], space, how, self.held, books, at
            )
            if ended == DONE:
                break
            space, how = _larger(self.ready, space, how, ended)
        if how.work == 1:
            self.hits += space.hits
        self.ready.spaces.append(space)
        return space

    def _space(self) -> tuple[Space, How]:
        """Memory left by an earlier call, or new."""
        try:
            space = self.ready.spaces.pop()
        except IndexError:
            space = space_for(self.ready.packed, SPIKES, STEPS)
        space.hits[:] = 0
        return space, self.how._replace(most=len(space.train) // int(self.ready.packed.sizes[Sizes.TRAIN]))


def _larger(ready: Ready, space: Space, how: How, ended: int) -> tuple[Space, How]:
    """Twice the room for spikes or for steps; what was counted so far goes along."""
    spikes, steps = len(space.place), how.most
    if ended == MORE_SPIKES:
        spikes *= 2
    else:
        steps *= 2
    new = space_for(ready.packed, spikes, steps)
    new.hits[:] = space.hits
    return new, how._replace(most=steps)


def _at(states: list[tuple[Array, Array]], i: int) -> tuple[Array, Array] | None:
    return states[i] if states else None


def _bounds(samples: int, threads: int) -> list[tuple[int, int]]:
    """Samples cut into as many runs as there are threads."""
    workers = max(1, min(samples, threads))
    cuts = [samples * i // workers for i in range(workers + 1)]
    return list(pairwise(cuts))


def _stacked(parts: list[Played]) -> Played:
    return Played(
        np.concatenate([part.counted for part in parts]),
        np.concatenate([part.marks for part in parts]),
        np.concatenate([part.found for part in parts]),
    )


def _shift(states: list[tuple[Array, Array]], before: Ready, now: Ready) -> None:
    """Other constants over the same sums: the biases change, what arrived stays."""
    for narrow, wide in states:
        narrow += now.packed.start16 - before.packed.start16
        wide += now.packed.start32 - before.packed.start32


def _held(ready: Ready, holds: Holds, samples: int) -> tuple[Array, Array]:
    """Places that take part and the counts that others keep, [samples, places]; empty where all do."""
    if not holds:
        return np.zeros((samples, 0), dtype=np.uint8), np.zeros((samples, 0), dtype=np.int32)
    size = int(ready.packed.sizes[Sizes.HOLDS])
    inside, kept = np.ones((samples, size), dtype=np.uint8), np.zeros((samples, size), dtype=np.int32)
    for local, (takes_part, count) in holds.items():
        number = ready.program.number[local]
        index = ready.program.stages[number].layout.index + ready.packed.stages[number, S.HOLD]
        shape = (samples, *ready.cell.graph.by_name[local].shape)
        inside[:, index] = takes_part.expand(shape).reshape(samples, -1).numpy()
        kept[:, index] = count.expand(shape).reshape(samples, -1).numpy()
    return inside, kept
