"""One verb for all methods of conversion."""

from __future__ import annotations

from functools import partial

from spikemorph.convert.lossless import Lossless, lossless
from spikemorph.convert.network import SpikingNetwork
from spikemorph.convert.rate import Rate, rate
from spikemorph.convert.rates import Progress, planned
from spikemorph.convert.training_free import TrainingFree, training_free
from spikemorph.errors import UsageError, expect
from spikemorph.evaluate.batching import Batches, kept
from spikemorph.ir.graph import Graph
from spikemorph.passes.levels import Max
from spikemorph.quantise.poor import remark

Method = Lossless | TrainingFree | Rate


def convert(
    graph: Graph,
    method: Method | None = None,
    calibration: Batches | None = None,
    *,
    progress: Progress = lambda done, total: None,
) -> SpikingNetwork:
    """The spiking network of a graph.

    Samples that are few, all alike, repeated or without contrast are warned of (CalibrationWarning).

    Args:
        graph: integer dialect for Lossless, from `quantise` or `freeze`; float dialect, from `capture`, for
            TrainingFree and Rate.
        method: Lossless() by default.
        calibration: unlabelled samples for TrainingFree and Rate: a tensor, a tuple of tensors, or a loader.
        progress: is told batches done and in all, by TrainingFree.

    Raises:
        GraphError: another dialect than the method takes, or ops that it cannot carry.
        DataError: empty or unfit calibration data.
        LevelsError: other input bits than the graph's, or accumulators beyond int32.
        UsageError: arguments of the wrong kind, calibration data missing or unused.
    """
    method = Lossless() if method is None else method
    expect("convert(graph)", graph, (Graph,), "pass what capture(...), quantise(...) or freeze(...) gave")
    expect(
        "convert(method)", method, (Lossless, TrainingFree, Rate), "wrap the spike kind: Lossless(Ternary())"
    )
    if isinstance(method, Lossless):
        if calibration is not None:
            raise _calibration("data that Lossless() does not use", "convert(qgraph, Lossless())")
        return lossless(graph, method)
    if calibration is None:
        raise _calibration("none", f"convert(graph, {type(method).__name__}(), calibration)")
    calibration = kept(calibration)
    plan = partial(planned, graph, per_channel=method.per_channel, weight_bits=method.weight_bits)
    observer = method.threshold if isinstance(method, Rate) else Max()
    remark(graph, calibration, lambda: plan().graph, what="thresholds", observer=observer)
    if isinstance(method, TrainingFree):
        return training_free(graph, method, calibration, progress)
    return rate(graph, method, calibration)


def _calibration(got: str, do: str) -> UsageError:
    return UsageError(
        where="convert(calibration)",
        got=got,
        known="Lossless converts integer graphs, which were calibrated; the others calibrate thresholds",
        do=do,
    )
