"""Feed-forward runs whose outputs are wanted after some steps: stretch after stretch of a few steps.

A sample goes through all its stages for a stretch before the next one begins, so that trains stay short.
Rate networks run here alone.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import final

import numpy as np
import torch
from torch import Tensor

from spikemorph.ir.graph import Dialect
from spikemorph.run.event.compiled import compiled, entry
from spikemorph.run.event.notice import announce
from spikemorph.run.event.plans import Arrived, Network, Ready, arrivals, space_for
from spikemorph.run.event.play import LAST_PENDING, LAST_SPIKE, UNSETTLED, collect, count_hits, play
from spikemorph.run.event.tables import DONE, MORE_SPIKES, Array, How, Packed, S, Sizes, Space
from spikemorph.run.record import Record, SpikeCounts, kept_steps
from spikemorph.run.result import Run, Work

STAGES, SNAP, SUM_SIZE, SNAP_SIZE = int(Sizes.STAGES), int(S.SNAP), int(S.SUM_SIZE), int(Sizes.SNAP)
STRETCH = 16
SPIKES = 2**16
NONE_HELD = np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.int32)


@entry
def play_timed(
    packed: Packed,
    state: tuple[Array, Array],
    targets: Array,
    space: Space,
    how: How,
    held: tuple[Array, Array],
    wanted: Array,
    books: tuple[Array, Array, Array, Array, Array],
    at: int,
) -> tuple[int, int]:
    """Samples from `at` on; the one that found no room, and why (or the end, and that all is well).

    Args:
        how: `steps` of the whole run, 0 until quiescent; `most` is the length of a stretch.
        wanted: int64 [n], steps after which readouts are kept, rising.
        books: int64 [samples, books, 2]; int64 [samples, 3]: last step with a spike, steps run, whether
            unsettled; int32 [samples, n], what is collected; int32 [samples, n wanted, readouts] and int64
            [samples, n wanted], sums and spikes until then.
    """
    counted, marks, found, sums, until = books
    width, stages = packed.sizes[SNAP_SIZE], (0, int(packed.sizes[STAGES]))
    before = space.hits.copy()
    for i in range(at, len(targets)):
        before[:] = space.hits
        done, next_wanted, spikes = 0, 0, 0
        while True:
            n = how.most if how.steps == 0 else min(how.most, how.steps - done)
            fresh = 1 if done == 0 else 0
            own = How(n, fresh, 1, 1, 0, how.most, how.work, how.drive, how.ramp, done)
            ended = play(packed, state, targets[i], space, own, held, counted[i], stages)
            if ended != DONE:
                counted[i] = 0
                space.hits[:] = before
                return i, ended
            if how.work == 1:
                count_hits(packed, space, how.most, stages, n if how.drive == 1 else 1)
            totals = space.totals
            if totals[LAST_SPIKE] > 0:
                marks[i, 0] = done + totals[LAST_SPIKE]
            for step in range(n):
                spikes += space.pace[step]
                if next_wanted < len(wanted) and wanted[next_wanted] == done + step + 1:
                    keep_sums(packed, state, space, step, width, sums[i, next_wanted])
                    until[i, next_wanted] = spikes
                    next_wanted += 1
            marks[i, 1] = done + n if how.steps > 0 else done + totals[LAST_PENDING] + 1
            marks[i, 2] = totals[UNSETTLED]
            done += n
            if done == how.steps or (how.steps == 0 and totals[UNSETTLED] == 0):
                break
        while next_wanted < len(wanted):
            keep_sums(packed, state, space, n - 1, width, sums[i, next_wanted])
            until[i, next_wanted] = spikes
            next_wanted += 1
        collect(packed.collected, state, found[i])
    return len(targets), DONE


@compiled
def keep_sums(
    packed: Packed, state: tuple[Array, Array], space: Space, step: int, width: int, kept: Array
) -> None:
    """Sums of all readouts after a step of the last stretch; what was at rest before stays as it is."""
    for number in range(packed.sizes[STAGES]):
        stage = packed.stages[number]
        if stage[SNAP] < 0:
            continue
        ran = space.length[number]
        if ran > 0:
            start = min(step, ran - 1) * width + stage[SNAP]
            for j in range(stage[SUM_SIZE]):
                kept[stage[SNAP] + j] = space.snap[start + j]


@final
@dataclass
class _Worker:
    """Samples that one thread runs."""

    ready: Ready
    targets: Array
    how: How
    wanted: Array
    books: tuple[Array, Array, Array, Array, Array]
    hits: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def all(self) -> None:
        packed = self.ready.packed
        state = np.zeros(len(packed.start16), np.int16), np.zeros(len(packed.start32), np.int32)
        space = space_for(packed, SPIKES, STRETCH)
        at = 0
        while True:
            at, ended = play_timed(
                packed, state, self.targets, space, self.how, NONE_HELD, self.wanted, self.books, at
            )
            if ended == DONE:
                break
            assert ended == MORE_SPIKES
            old = space
            space = space_for(packed, 2 * len(old.place), STRETCH)
            space.hits[:] = old.hits
        if self.how.work == 1:
            self.hits = space.hits.astype(np.int64)


@final
@dataclass(frozen=True, eq=False)
class Timed:
    """What is to run: as much as it takes to run it again.

    Args:
        inputs: counts [batch, *shape] of one chunk.
        record: kinds of records; outputs after given steps, or counts.
    """

    known: Network
    inputs: tuple[Tensor, ...]
    threads: int
    steps: int | None
    record: tuple[Record, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """Steps after which outputs are kept."""
        return kept_steps(self.record) or ()

    def play(self, *, work: bool) -> tuple[Ready, tuple[Array, ...], Array]:
        """All samples: the cell, its books, events place by place."""
        announce(play_timed)
        (cell,) = self.known.plan.cells
        counts = any(isinstance(each, SpikeCounts) for each in self.record)
        ready = self.known.of(cell, counts=counts, joins=False)
        packed, samples = ready.packed, len(self.inputs[0])
        wanted = np.array(self.kept, dtype=np.int64)
        books = (
            np.zeros((samples, len(ready.names), 2), dtype=np.int64),
            np.zeros((samples, 3), dtype=np.int64),
            np.zeros((samples, packed.collected.shape[1]), dtype=np.int32),
            np.zeros((samples, len(wanted), int(packed.sizes[Sizes.SNAP])), dtype=np.int32),
            np.zeros((samples, len(wanted)), dtype=np.int64),
        )
        drive = int(cell.graph.dialect is Dialect.RATE)
        how = How(self.steps or 0, 1, 1, 1, 0, STRETCH, int(work), drive, self.known.network.ramp)
        placed = ready.placed(self.inputs)
        parts = max(1, min(samples, self.threads))
        cuts = [samples * i // parts for i in range(parts + 1)]
        workers = [
            _Worker(ready, placed[a:b], how, wanted, tuple(each[a:b] for each in books))  # type: ignore[arg-type]
            for a, b in pairwise(cuts)
        ]
        if parts == 1:
            workers[0].all()
        else:
            with ThreadPoolExecutor(parts) as pool:
                list(pool.map(_Worker.all, workers))
        hits = np.stack([worker.hits for worker in workers]).sum(0) if work else np.zeros(0, dtype=np.int64)
        return ready, books, hits

    @cached_property
    def arrived(self) -> dict[str, Tensor]:
        """What arrived at every op that does work, by running once more: most callers never ask."""
        ready, _, hits = self.play(work=True)
        return arrivals(ready.program, ready.packed, 0, hits)


def run_timed(task: Timed) -> tuple[Run, Tensor]:
    """The result of a chunk, and the steps that it ran."""
    ready, (counted, marks, found, sums, until), _ = task.play(work=False)
    graph, network = task.known.plan.graph, task.known.network
    ran = torch.tensor([int(marks[:, 1].max())])
    emitted = torch.from_numpy(np.ascontiguousarray(counted.transpose(2, 1, 0)))
    named = [(ready.cell.emitters, ready.counts)] if ready.counts else []
    kept = {
        port.name: ready.part(found, places[port.local], port.local).to(torch.int64)
        for ports, places in named
        for port in ports
    }
    coded = {
        node.name: each
        for node, each in zip(graph.inputs, task.inputs, strict=True)
        if node.name in ready.names and kept
    }
    spikes, events = (dict(zip(ready.names, each.unbind(), strict=True)) for each in emitted)
    return Run(
        graph=network.graph,
        raw={
            port.name: ready.part(found, ready.readouts[port.local], port.local).to(torch.int64)
            for port in ready.cell.readouts
        },
        steps=int(ran),
        element_steps=torch.from_numpy(marks[:, 0][None].copy()),
        element_settled=torch.from_numpy(marks[:, 2][None] == 0),
        layer_spikes=spikes,
        layer_events=events,
        work=(Work(ready.cell.graph, Arrived(lambda: task.arrived)),),
        counts={**coded, **kept} if kept else None,
        raws=tuple(_snapped(ready, sums[:, k]) for k in range(sums.shape[1])) if task.kept else None,
        spikes_until=torch.from_numpy(until.T.copy()) if task.kept else None,
        at=task.kept or None,
        window=network.window,
    ), ran


def _snapped(ready: Ready, sums: Array) -> dict[str, Tensor]:
    """Readouts [batch, *shape] from the sums that were kept after a step."""
    found = {}
    for port in ready.cell.readouts:
        number = ready.program.number[port.local]
        index = ready.program.stages[number].sums.index + ready.packed.stages[number, S.SNAP]
        shape = ready.cell.graph.by_name[port.local].shape
        found[port.name] = torch.from_numpy(sums[:, index].astype(np.int64)).reshape(len(sums), *shape)
    return found
