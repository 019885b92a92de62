"""How the time of the event engine grows: with spikes, batch, steps, sequence length and threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import SpikemorphError
from spikemorph.evaluate.encode import input_counts
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.measure.bench import BATCH, Subject, event_job, facts_of, samples_of
from spikemorph.measure.machine import cores
from spikemorph.measure.timing import Job, Progress, exponent, interleaved, summary, threads_of
from spikemorph.run.event import Event

RAISED = (0.0, 0.1, 0.2, 0.4)
"""By which part of all levels thresholds are raised; as many networks as the engine keeps prepared."""
CONTRASTS = (0.0625, 0.25, 0.5, 1.0, 2.0)
STEPS = (1, 2, 4, 8, 16, 32)


@final
@dataclass(frozen=True, slots=True)
class Point:
    """One size and its time: median and 10th..90th percentile, milliseconds."""

    at: float
    ms: float
    spread: tuple[float, float]


@final
@dataclass(frozen=True, slots=True)
class Curve:
    """Time against one size.

    Args:
        at, ms: in words, what `at` and `ms` of a point are.
        exponent: fitted log-log slope; None where there are no two different sizes.
        span: the largest size over the smallest.
        reason: why there are no points.
    """

    at: str
    ms: str
    points: tuple[Point, ...] = ()
    exponent: float | None = None
    span: float | None = None
    reason: str = ""


def growth(
    subject: Subject, *, repeats: int, threads: int, progress: Progress = lambda done, total: None
) -> dict[str, Curve]:
    """All curves; each is timed with its points interleaved.

    Raises:
        RunError: repeats or threads below 1.
    """
    x = samples_of(subject)[BATCH][0]
    timer = _Timer(repeats, threads, progress)
    with threads_of(threads):
        return {
            **_spikes(subject.network, x, timer),
            "contrast": _contrast(subject.network, x, timer),
            "batch": _batch(subject.network, x, timer),
            "steps": _steps(subject.network, x, timer),
            "length": _length(subject.network, x, timer),
            "threads": _threads(subject.network, x, timer),
        }


@final
@dataclass(frozen=True)
class _Timer:
    repeats: int
    threads: int
    progress: Progress

    @property
    def engine(self) -> Event:
        return Event(threads=self.threads)

    def curve(self, at: str, ms: str, sizes: Sequence[float], jobs: Sequence[Job]) -> Curve:
        found = [summary(times) for times in interleaved(jobs, self.repeats, self.progress)]
        points = [Point(size, each.median, each.spread) for size, each in zip(sizes, found, strict=True)]
        return _curve(at, ms, points)


def _curve(at: str, ms: str, points: Sequence[Point]) -> Curve:
    sizes = [each.at for each in points if each.at > 0]
    span = max(sizes) / min(sizes) if sizes else None
    return Curve(at, ms, tuple(points), exponent([(each.at, each.ms) for each in points]), span)


def _spikes(network: SpikingNetwork, x: Tensor, timer: _Timer) -> Mapping[str, Curve]:
    """Against spikes, and the same points against synaptic operations."""
    networks = [raised(network, by) for by in RAISED]
    counts = input_counts(network.graph, x)
    found = [facts_of(timer.engine.run(each, counts, steps=None, record=())) for each in networks]
    jobs = [event_job(each, counts, timer.engine) for each in networks]
    words = f"a sample, thresholds raised by {', '.join(f'{each:g}' for each in RAISED)} of all levels"
    spikes = timer.curve(f"spikes {words}", "milliseconds a sample", [each["spikes"] for each in found], jobs)
    priced = [
        replace(point, at=each["synaptic_operations"])
        for point, each in zip(spikes.points, found, strict=True)
    ]
    return {"spikes": spikes, "operations": _curve(f"synaptic operations {words}", spikes.ms, priced)}


def raised(network: SpikingNetwork, by: float) -> SpikingNetwork:
    """The network with every threshold moved away from silence: fewer spikes, the same weights and code.

    Args:
        by: in parts of all levels, each the mean distance of two breakpoints.
    """
    if by == 0:
        return network
    tensors = dict(network.graph.tensors)
    for node in network.graph.nodes:
        op = node.op.cell if isinstance(node.op, ops.Recurrence) else node.op
        if isinstance(op, ops.Neuron) and not op.identity:
            tensors[op.breakpoints] = _moved(network.graph, op, by)
    return replace(network, graph=network.graph.with_nodes(network.graph.nodes, tensors=tensors))


def _moved(graph: Graph, op: ops.Neuron, by: float) -> Tensor:
    """Breakpoints up where counts rise with the accumulator, down where they fall."""
    old = graph.tensors[op.breakpoints]
    known = old.abs() < 2**30  # beyond: never reached, whatever arrives
    inner = torch.where(known, old, 0).double()
    distance = (inner.amax(-1, keepdim=True) - inner.amin(-1, keepdim=True)) / max(old.shape[-1] - 1, 1)
    distance = distance if old.shape[-1] > 1 else inner.abs()
    falls = torch.zeros((), dtype=torch.bool)
    if op.values is not None:
        values = graph.tensors[op.values]
        falls = values[..., -1:] < values[..., :1]
    shift = (by * old.shape[-1] * distance).round().to(old.dtype)
    return torch.where(known, old + torch.where(falls, -shift, shift), old)


def _contrast(network: SpikingNetwork, x: Tensor, timer: _Timer) -> Curve:
    counts = [input_counts(network.graph, x * each) for each in CONTRASTS]
    found = [facts_of(timer.engine.run(network, each, steps=None, record=())) for each in counts]
    return timer.curve(
        f"spikes a sample, inputs times {', '.join(f'{each:g}' for each in CONTRASTS)}",
        "milliseconds a sample",
        [each["spikes"] for each in found],
        [event_job(network, each, timer.engine) for each in counts],
    )


def _batch(network: SpikingNetwork, x: Tensor, timer: _Timer) -> Curve:
    counts = input_counts(network.graph, x)
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64) if size <= len(x)]
    jobs = [
        replace(event_job(network, tuple(each[:size] for each in counts), timer.engine), samples=1)
        for size in sizes
    ]
    return timer.curve("samples in a batch", "milliseconds a batch", sizes, jobs)


def _steps(network: SpikingNetwork, x: Tensor, timer: _Timer) -> Curve:
    counts = input_counts(network.graph, x)
    jobs = [event_job(network, counts, timer.engine, steps=each) for each in STEPS]
    return timer.curve("fixed steps (an element)", "milliseconds a sample", STEPS, jobs)


def _length(network: SpikingNetwork, x: Tensor, timer: _Timer) -> Curve:
    at, ms = "input elements of a sample, by lengths=", "milliseconds a sample"
    axis = network.graph.inputs[0].element_axis
    if axis is None:
        return Curve(at, ms, reason="no sequence")
    counts = input_counts(network.graph, x)
    whole = x.shape[axis + 1]
    sizes = [each for part in (8, 4, 2, 1) if (each := whole // part) > 0]
    jobs = [_ending(network, counts, timer.engine, each) for each in sizes]
    try:
        return timer.curve(at, ms, sizes, jobs)
    except SpikemorphError as error:
        return Curve(at, ms, reason=f"{error.where}: {error.got}")


def _ending(network: SpikingNetwork, counts: tuple[Tensor, ...], engine: Event, length: int) -> Job:
    ends = torch.full((len(counts[0]),), length)
    return Job(lambda: engine.run(network, counts, steps=None, record=(), lengths=ends), len(ends))


def _threads(network: SpikingNetwork, x: Tensor, timer: _Timer) -> Curve:
    counts = input_counts(network.graph, x)
    sizes = [each for each in (1, 2, 4, 8, 16, 32, 64) if each <= cores()]
    jobs = [event_job(network, counts, Event(threads=each)) for each in sizes]
    return timer.curve("threads", "milliseconds a sample", sizes, jobs)
