"""What a stream costs against how much of its input changes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import final

import torch
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import RunError
from spikemorph.ir.elements import is_sequence
from spikemorph.run.event import Event
from spikemorph.run.simulate import simulate
from spikemorph.run.stream import Stream, stream

FRACTIONS = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


@final
@dataclass(frozen=True, slots=True)
class Changed:
    """One frame after another, a part of it replaced.

    Args:
        fraction: of the input numbers that were replaced.
        spikes: a frame, mean.
        steps: a frame, mean.
        ms: a frame, median.
        spikes_to_fresh, ms_to_fresh: the same over those of a frame that starts from rest.
    """

    fraction: float
    spikes: float
    steps: float
    ms: float
    spikes_to_fresh: float
    ms_to_fresh: float


def changes(
    network: SpikingNetwork, x: Tensor, *, fractions: tuple[float, ...] = FRACTIONS, repeats: int = 5
) -> tuple[Changed, ...]:
    """Frames of a feed-forward network, a band of whose rows turns into the next frame and back.

    Every answer is checked to be that of the frame alone.

    Args:
        x: [frames >= 2, *shape], unrelated frames.
        repeats: of the whole measurement.

    Raises:
        RunError: a recurrent network, a single frame, or an answer that differs.
    """
    if is_sequence(network.graph) or len(x) < 2 or repeats < 1:
        raise RunError(
            where="changes",
            got="a recurrent network, a single frame or no repeats",
            known="a feed-forward network, two frames and one repeat at least",
            do="pass frames of a network without recurrences",
        )
    fresh = [_alone(network, frame) for _ in range(repeats) for frame in x.split(1)]
    spikes = sum(each[0] for each in fresh) / len(fresh)
    ms = median(each[1] for each in fresh)
    found = []
    for fraction in fractions:
        points = [each for _ in range(repeats) for each in _changed(network, x, fraction)]
        own = sum(each[0] for each in points) / len(points), median(each[2] for each in points)
        steps = sum(each[1] for each in points) / len(points)
        found.append(Changed(fraction, own[0], steps, own[1], own[0] / spikes, own[1] / ms))
    return tuple(found)


def mixed(frame: Tensor, other: Tensor, fraction: float) -> Tensor:
    """The frame with the first part of its numbers, row by row in every channel, from the other."""
    rows = frame.flatten(-2) if frame.dim() > 2 else frame
    count = round(fraction * rows.shape[-1])
    made = rows.clone()
    made[..., :count] = (other.flatten(-2) if other.dim() > 2 else other)[..., :count]
    return made.reshape(frame.shape)


def _alone(network: SpikingNetwork, frame: Tensor) -> tuple[int, float]:
    start = time.perf_counter()
    run = simulate(network, frame, engine=Event(threads=1))
    return run.spikes, 1000 * (time.perf_counter() - start)


def _changed(network: SpikingNetwork, x: Tensor, fraction: float) -> list[tuple[int, int, float]]:
    """Spikes, steps and milliseconds of every change there and back."""
    found = []
    session = stream(network)
    for frame, other in zip(x.split(1), x.roll(1, 0).split(1), strict=True):
        session.push(frame)
        partly = mixed(frame, other, fraction)
        found += [_pushed(session, partly), _pushed(session, frame)]
        answer = session.fork().push(partly).output
        if not torch.equal(answer, simulate(network, partly).output):
            raise RunError(
                where="changes",
                got="a stream that answers otherwise than the frame alone",
                known="both are the quantised network's",
                do="report this with the network",
            )
    return found


def _pushed(session: Stream, frame: Tensor) -> tuple[int, int, float]:
    start = time.perf_counter()
    answer = session.push(frame)
    return answer.spikes, int(answer.steps.sum()), 1000 * (time.perf_counter() - start)
