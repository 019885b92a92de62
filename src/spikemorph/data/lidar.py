"""Lidar ranges and steering of a small robot that avoids collisions, as windows of frames.

M. Lechner, R. Hasani, D. Rus, R. Grosu, ICRA 2020. 29 traces, 8,113 frames of 541 ranges; split, windows and
mirrored copies are those of the ncps loader: traces shuffled by numpy's default_rng(20200822), the first
seven are test, windows of 32 frames every 16, each also mirrored left to right with the steering negated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikemorph.data.archive import Archive
from spikemorph.data.dataset import Split

ARCHIVE = Archive(
    name="lidar",
    file="lidar_collision.npz",
    sha256="a62b7f8c78c85411187f266ed109d1440d40298f50822cfd7274aa04fcf2bbd6",
    do="put the file there, made from the traces of the ICRA 2020 collision avoidance data",
)
METRES = 8.0
"""Ranges are divided by this; the farthest is 7.7 m."""

WINDOW, STRIDE = 32, 16
TRACES, TEST = 29, 7
EVERY = 6
"""Of the training traces, every sixth is validation."""

Floats = NDArray[np.float32]


@final
@dataclass(frozen=True, slots=True, eq=False)
class LidarWindows:
    """Windows of frames.

    Args:
        x: float32 [n, 32, 541], ranges in metres / 8, so 0..1.
        y: float32 [n, 32, 1], steering in -1..1.
        traces: numbers of the traces they are from.
    """

    x: Tensor
    y: Tensor
    name: str
    split: Split
    traces: tuple[int, ...]


def load_lidar(split: Split) -> LidarWindows:
    """The windows of a split: 546 train, 132 validation, 250 test, mirrored copies included.

    Raises:
        MissingData: the file is in none of the folders with data sets.
        DataError: it has another checksum.
    """
    content = np.load(ARCHIVE.found())
    traces = traces_of(split)
    x: list[Floats] = []
    y: list[Floats] = []
    for trace in traces:
        ranges, steering = content[f"lidar_{trace}"], content[f"steer_{trace}"]
        for frames, turns in ((ranges, steering), (ranges[:, ::-1], -steering)):
            for start in range(0, len(frames) - WINDOW, STRIDE):
                x.append(frames[start : start + WINDOW])
                y.append(turns[start : start + WINDOW])
    return LidarWindows(
        x=torch.from_numpy(np.stack(x).astype(np.float32) / METRES),
        y=torch.from_numpy(np.stack(y).astype(np.float32)).unsqueeze(2),
        name="lidar",
        split=split,
        traces=traces,
    )


def traces_of(split: Split) -> tuple[int, ...]:
    """The numbers of the traces of a split."""
    order = list(range(TRACES))
    np.random.default_rng(20200822).shuffle(order)
    test, train = order[:TEST], order[TEST:]
    held_out = train[::EVERY]
    chosen = {
        Split.TEST: test,
        Split.VALIDATION: held_out,
        Split.TRAIN: [trace for trace in train if trace not in held_out],
    }
    return tuple(chosen[split])
