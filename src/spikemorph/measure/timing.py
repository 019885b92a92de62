"""Timing of rivals in one process: interleaved repeats, medians and spread, slopes of growth."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from spikemorph.errors import RunError

Progress = Callable[[int, int], None]
"""progress(repeats done, repeats in all)."""


@final
@dataclass(frozen=True, slots=True)
class Job:
    """Something to time.

    Args:
        call: does the work once, everything it needs prepared.
        samples: that one call works through.
    """

    call: Callable[[], object]
    samples: int = 1


@final
@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds a sample over the repeats: the median, and the 10th and 90th percentile."""

    median: float
    spread: tuple[float, float]


def interleaved(
    jobs: Sequence[Job], repeats: int, progress: Progress = lambda done, total: None
) -> tuple[tuple[float, ...], ...]:
    """Milliseconds a sample of every job, in every repeat.

    Each job is called once before the first repeat, so nothing compiles while it is timed. Every repeat
    calls all jobs, and begins with another one each time: what disturbs the machine disturbs all.

    Raises:
        RunError: repeats below 1.
    """
    check_whole("repeats", repeats)
    for job in jobs:
        job.call()
    times: list[list[float]] = [[] for _ in jobs]
    with _no_collector():
        for repeat in range(repeats):
            for place in range(len(jobs)):
                number = (place + repeat) % len(jobs)
                job = jobs[number]
                start = time.perf_counter()
                job.call()
                times[number].append(1e3 * (time.perf_counter() - start) / job.samples)
            gc.collect()
            progress(repeat + 1, repeats)
    return tuple(tuple(each) for each in times)


def summary(times: Sequence[float]) -> Timed:
    """Median and spread of the repeats of one job."""
    low, median, high = (float(each) for each in np.quantile(times, (0.1, 0.5, 0.9)))
    return Timed(median, (low, high))


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """The slope of log(time) against log(size), least squares.

    Args:
        points: (size, time); those that are not positive have no logarithm and are left out.

    Returns:
        None for fewer than two different sizes.
    """
    kept = [(math.log(size), math.log(spent)) for size, spent in points if size > 0 and spent > 0]
    if len({size for size, _ in kept}) < 2:
        return None
    x, y = np.array(kept).T
    return float(((x - x.mean()) * (y - y.mean())).sum() / np.square(x - x.mean()).sum())


@contextmanager
def threads_of(threads: int) -> Iterator[None]:
    """Torch uses so many threads inside.

    Raises:
        RunError: threads below 1, or far more than the machine has cores.
    """
    check_whole("threads", threads)
    most = 4 * (os.cpu_count() or 1)
    if threads > most:
        raise RunError(
            where="bench(threads)",
            got=repr(threads),
            known=f"a whole number in 1..{most}, four times the cores",
            do="give the number of cores, or leave it out",
        )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_whole(name: str, value: object) -> None:
    """Nothing, where the value counts something.

    Raises:
        RunError: it is not a whole number of at least 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RunError(
            where=f"bench({name})",
            got=repr(value),
            known="a whole number of at least 1",
            do="leave it out for the default",
        )


@contextmanager
def _no_collector() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
