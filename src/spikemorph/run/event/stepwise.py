"""Records of single steps: the spike trains of every sample, written into the books step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spikemorph.run.event.plans import Ready
from spikemorph.run.event.tables import Array, S, Sizes, Space
from spikemorph.run.tally import Tally, emissions

if TYPE_CHECKING:
    from spikemorph.run.event.elements import Played, Worker


def advance(worker: Worker, tally: Tally, ready: Ready) -> Played:
    """Run every sample, then close the books of step after step."""
    samples = len(worker.targets)
    trains: list[dict[str, Array]] = []
    sums: list[dict[str, Array]] = []
    for i in range(samples):
        space = worker.some(i, i + 1)
        steps = int(worker.played.marks[i, 1])
        emitters = emissions(tally.network, ready.cell)
        trains.append({local: _train(ready, space, local, steps) for local in emitters})
        sums.append({port.local: _sums(ready, space, port.local, steps) for port in ready.cell.readouts})
    marks = worker.played.marks
    for step in range(int(marks[:, 1].max())):
        unsettled = (step + 1 == marks[:, 1]) & (marks[:, 2] == 1)
        pending = torch.from_numpy((step + 1 < marks[:, 1]) | unsettled)
        deltas = _at(ready, trains, step, silent=True)
        tally.advance(ready.cell, deltas, pending, _at(ready, sums, step, silent=False))
    return worker.played


def _at(ready: Ready, samples: list[dict[str, Array]], step: int, *, silent: bool) -> dict[str, Tensor]:
    """What all samples did in a step; those at rest are silent, or keep their last sums."""
    found = {}
    for local in samples[0]:
        shape = ready.cell.graph.by_name[local].shape
        rows = []
        for sample in samples:
            steps = sample[local]
            over = step >= len(steps)
            rows.append(np.zeros_like(steps[0]) if over and silent else steps[min(step, len(steps) - 1)])
        found[local] = torch.from_numpy(np.stack(rows)).reshape(len(samples), *shape)
    return found


def _most(ready: Ready, space: Space) -> int:
    return len(space.train) // int(ready.packed.sizes[Sizes.TRAIN])


def _train(ready: Ready, space: Space, local: str, steps: int) -> Array:
    """[steps, numbers] signed spikes of an emitter, row-major."""
    number = ready.program.number[local]
    layout, row = ready.program.stages[number].layout, ready.packed.stages[number]
    found = np.zeros((steps, layout.size), dtype=np.int64)
    for step in range(min(steps, int(space.length[number]))):
        first = int(row[S.TRAIN]) * _most(ready, space) + step * (layout.positions + 1)
        starts = space.train[first : first + layout.positions + 1]
        a, b = int(starts[0]), int(starts[-1])
        found[step, space.place[a:b] >> 1] = space.value[a:b]
    return found[:, layout.index]


def _sums(ready: Ready, space: Space, local: str, steps: int) -> Array:
    """[steps, numbers] of a readout after every step."""
    number = ready.program.number[local]
    layout, row = ready.program.stages[number].sums, ready.packed.stages[number]
    width = int(ready.packed.sizes[Sizes.SNAP])
    ran = int(space.length[number])
    table = space.snap[: width * ran].reshape(ran, width)
    last = np.minimum(np.arange(steps), ran - 1)
    return table[last][:, int(row[S.SNAP]) + layout.index].astype(np.int64)
