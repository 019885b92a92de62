"""Thresholds of integrate-and-fire neurons from calibration data: local threshold balancing, and percentiles.

Source: Bu, Li, Yu, arXiv 2409.03368: for every neuron layer on its own, minimise the squared error of
clip(z, 0, threshold) against relu(z). The gradient of one batch is -2 sum relu(z - threshold).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from spikemorph.errors import LevelsError
from spikemorph.evaluate.batching import Batches, batches
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir import ops
from spikemorph.ir.functions import Clamp
from spikemorph.ir.graph import Graph, Node
from spikemorph.passes.levels import LeastSquares, Max, Percentile
from spikemorph.quantise.observe import observe, rows_of
from spikemorph.quantise.scale import TINY, choose_unit

Thresholds = Mapping[str, Tensor]
"""By neuron, float64 [channels], or [1] for a whole layer."""


@final
@dataclass(frozen=True, slots=True)
class LocalThresholdBalancing:
    """Thresholds grow from zero by rate * 2 * mean(relu(z - threshold)) a batch, all layers in one pass.

    They grow towards the largest value seen: few iterations leave them small, which is better in few steps,
    many are better in many. A batch whose mean is more than half its largest value carries them past it at
    the rate of the paper, 1; at 0.5 none does.

    Args:
        iterations: batches at most; the calibration data is gone through again where it has fewer.
        batch: samples of a batch.
        rate: of the growth, at most 1.
        tolerance: ends before, when no layer's thresholds grew by more than this part in an iteration.

    Raises:
        LevelsError: out of range.
    """

    iterations: int = 100
    batch: int = 25
    rate: float = 1.0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        for name, value, fits, known in (
            ("iterations", self.iterations, _whole(self.iterations), "a whole number of at least 1"),
            ("batch", self.batch, _whole(self.batch), "a whole number of at least 1"),
            ("rate", self.rate, _real(self.rate) and 0 < self.rate <= 1, "a number in (0, 1]"),
            ("tolerance", self.tolerance, _real(self.tolerance) and 0 <= self.tolerance < 1, "in [0, 1)"),
        ):
            if not fits:
                raise LevelsError(
                    where=f"LocalThresholdBalancing({name})",
                    got=repr(value),
                    known=known,
                    do="use LocalThresholdBalancing() for 100 batches of 25",
                )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@final
@dataclass(frozen=True)
class Balanced:
    """What calibration found.

    Args:
        thresholds: of every neuron, above zero.
        means: of the size of what every neuron sends, by channel, float64 [channels or 1].
        silent: by neuron, how many channels were never active.
        iterations: that were made; 0 where thresholds are read off.
        inputs: numbers seen of every input.
    """

    thresholds: Thresholds
    means: Mapping[str, Tensor]
    silent: Mapping[str, int]
    iterations: int
    inputs: Mapping[str, Tensor] = field(default_factory=dict)


def balance(
    graph: Graph,
    calibration: Batches,
    how: LocalThresholdBalancing,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Balanced:
    """Thresholds by local threshold balancing.

    Args:
        graph: planned dialect; quantisers say whether they go by channel.
        calibration: samples without labels.

    Raises:
        DataError: empty or unfit data.
    """
    thresholds = {node.name: torch.zeros(_rows(node), dtype=torch.float64) for node in neurons(graph)}
    sums = {name: torch.zeros_like(each) for name, each in thresholds.items()}
    growth = 0.0

    def step(node: Node, value: Tensor) -> Tensor:
        nonlocal growth
        if not isinstance(node.op, ops.Quantiser):
            return value
        threshold, rows = thresholds[node.name], rows_of(node, value)
        over = (rows.abs() - threshold[:, None].to(rows.dtype)).clamp(min=0).mean(1).double()
        thresholds[node.name] = threshold + how.rate * 2 * over
        growth = max(growth, float(over.max() / thresholds[node.name].max().clamp(min=TINY)))
        clipped = _clipped(node, value, thresholds[node.name])
        sums[node.name] = 0.9 * sums[node.name] + 0.1 * rows_of(node, clipped).abs().mean(1).double()
        return clipped

    done = 0
    for inputs in itertools.islice(_again(graph, calibration, how), how.iterations):
        growth = 0.0
        evaluate_float(graph, inputs, keep=False, change=step)
        done += 1
        progress(done, how.iterations)
        if done > 1 and growth <= how.tolerance:
            break
    means = {name: each / (1 - 0.9**done) for name, each in sums.items()}
    return _filled(thresholds, means, done, observe(_inputs_alone(graph), calibration))


@final
@dataclass(frozen=True, slots=True)
class LeastSquaresIn:
    """Thresholds at which so many spikes can say the activations best: least squared error, unit by unit.

    In `steps` steps a neuron can send 0..steps spikes (0..largest * steps where they are graded), so its
    activation lies on a grid; the threshold is the one whose grid, clipping and rounding together, costs the
    least. Unlike local threshold balancing it knows the steps, and needs one pass.

    Args:
        steps: of the runs to come.
        largest: of one spike, for graded ones.

    Raises:
        LevelsError: out of range.
    """

    steps: int
    largest: int = 1

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("largest", self.largest)):
            if not _whole(value):
                raise LevelsError(
                    where=f"LeastSquaresIn({name})",
                    got=repr(value),
                    known="a whole number of at least 1",
                    do="give the steps of the runs to come, such as LeastSquaresIn(32)",
                )


def fit(graph: Graph, calibration: Batches, how: LeastSquaresIn) -> Balanced:
    """Thresholds of the least squared error in a number of steps."""
    seen = observe(graph, calibration)
    most = how.steps * how.largest
    units = {
        node.name: choose_unit(seen[node.name], _lowest(node) * most, most, LeastSquares())
        for node in neurons(graph)
    }
    return _seen(graph, seen, {name: unit * how.steps for name, unit in units.items()})


def read_off(graph: Graph, calibration: Batches, how: Max | Percentile) -> Balanced:
    """Thresholds at the largest activation, or at a percentile of those above zero: the classic baseline.

    Source: Diehl et al., IJCNN 2015 (largest); Rueckauer et al., Frontiers in Neuroscience 2017 (percentile).
    """
    seen = observe(graph, calibration)
    found = {node.name: choose_unit(seen[node.name], _lowest(node), 1, how) for node in neurons(graph)}
    return _seen(graph, seen, found)


def _seen(graph: Graph, seen: Mapping[str, Tensor], found: Thresholds) -> Balanced:
    """Thresholds chosen from samples of all activations."""
    dead = {name: seen[name].abs().amax(1) <= TINY for name in found}
    thresholds = {name: torch.where(dead[name], 0.0, each) for name, each in found.items()}
    means = {name: seen[name].abs().mean(1).double() for name in found}
    inputs = {node.name: seen[node.name] for node in graph.inputs}
    return _filled(thresholds, means, 0, inputs)


def suited(graph: Graph, found: Balanced, share: int, largest: int) -> Balanced:
    """Thresholds for spikes of sizes 1..largest.

    Args:
        share: every threshold is divided by this: `largest`, where a threshold is all that a step can say.
        largest: of one spike; so many thresholds reach no further than a clamp (6 of a ReLU6), or the neuron
            would send more than its activation ever is.
    """
    thresholds = {}
    for node in neurons(graph):
        assert isinstance(node.op, ops.Quantiser)
        ends = [link.hi for link in node.op.chain if isinstance(link, Clamp) and link.hi is not None]
        most = min(ends, default=math.inf) / largest
        thresholds[node.name] = (found.thresholds[node.name] / share).clamp(max=most)
    return replace(found, thresholds=thresholds)


def neurons(graph: Graph) -> Iterator[Node]:
    """The neurons to be of a planned graph."""
    return (node for node in graph.body if isinstance(node.op, ops.Quantiser))


def _lowest(node: Node) -> int:
    assert isinstance(node.op, ops.Quantiser)
    return -1 if node.op.lo < 0 else 0


def _rows(node: Node) -> int:
    assert isinstance(node.op, ops.Quantiser)
    return node.shape[0] if node.op.per_channel and node.shape else 1


def _clipped(node: Node, value: Tensor, threshold: Tensor) -> Tensor:
    wide = threshold.to(value.dtype).reshape(-1, *(1,) * (value.dim() - 2)) if value.dim() > 1 else threshold
    return torch.maximum(torch.minimum(value, wide), -wide)


def _again(graph: Graph, data: Batches, how: LocalThresholdBalancing) -> Iterator[tuple[Tensor, ...]]:
    """Batches for ever, in order."""
    known = list(batches(graph, data, size=how.batch, where="calibration"))
    return itertools.cycle(known)


def _inputs_alone(graph: Graph) -> Graph:
    return graph.with_nodes(graph.inputs, outputs=tuple(node.name for node in graph.inputs))


def _filled(
    thresholds: Thresholds, means: Mapping[str, Tensor], iterations: int, inputs: Mapping[str, Tensor]
) -> Balanced:
    """Channels that were never active get the smallest threshold of their layer; 1 where none was."""
    found, silent = {}, {}
    for name, each in thresholds.items():
        dead = each <= TINY
        silent[name] = int(dead.sum())
        least = each[~dead].min() if bool((~dead).any()) else each.new_ones(())
        found[name] = torch.where(dead, least, each)
    return Balanced(found, means, silent, iterations, inputs)
