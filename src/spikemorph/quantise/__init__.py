"""Floats to integers: post-training quantisation, and a trainable twin of the integer graph."""

from __future__ import annotations

from typing import assert_never

from spikemorph.errors import GraphError, expect
from spikemorph.evaluate.batching import Batches, kept
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.passes import plan
from spikemorph.passes.absorb import absorb_gains
from spikemorph.passes.levels import Levels
from spikemorph.passes.lower import lower_batch_norms
from spikemorph.passes.prune import prune
from spikemorph.quantise.integer import integer_graph
from spikemorph.quantise.methods import Nearest, PostTraining, Reconstruction
from spikemorph.quantise.network import QuantisedNetwork, check_overrides, seen_in
from spikemorph.quantise.poor import remark
from spikemorph.quantise.reconstruct import reconstruct, with_biases

__all__ = [
    "Nearest",
    "QuantisedNetwork",
    "Reconstruction",
    "freeze",
    "quantise",
    "reconstructed",
    "trainable",
]


NEAREST = Nearest()


def trainable(graph: Graph, levels: Levels, calibration: Batches | None = None) -> QuantisedNetwork:
    """A torch module for quantisation-aware training that models the integer graph's own grids.

    Samples that are few, all alike, repeated or without contrast are warned of (CalibrationWarning).

    Args:
        graph: float dialect, from `capture`.
        levels: ranges of counts and weights.
        calibration: samples of training data that set the units; without, call `.calibrate` before use.

    Raises:
        LevelsError: an override names no module.
        DataError: empty or unfit calibration data.
    """
    _check(graph, levels)
    if calibration is None:
        return QuantisedNetwork(plan(graph, levels), levels)
    calibration = kept(calibration)
    remark(graph, calibration, lambda: plan(graph, levels), what="units", observer=levels.observer)
    return _calibrated(graph, levels, calibration)


def _calibrated(graph: Graph, levels: Levels, calibration: Batches) -> QuantisedNetwork:
    """The same, of data that was remarked on: a warning names who called, and comes once."""
    network = QuantisedNetwork(plan(graph, levels), levels)
    network.lay(*seen_in(network.graph, levels, calibration))
    return network


def _check(graph: Graph, levels: Levels) -> None:
    expect("quantise(graph)", graph, (Graph,), "capture(model, example_inputs) first")
    expect("quantise(levels)", levels, (Levels,), "use Levels(activation=15)")
    if graph.dialect is not Dialect.FLOAT:
        raise GraphError(
            where="the graph",
            got=f"dialect {graph.dialect.value}",
            known="a captured float graph",
            do="pass the result of capture(model, example_inputs)",
        )
    check_overrides(graph, levels)


def freeze(network: QuantisedNetwork) -> Graph:
    """The integer graph of a trained (or merely calibrated) network.

    Raises:
        DataError: it was never calibrated.
        LevelsError: some accumulator could leave int32.
    """
    expect("freeze(network)", network, (QuantisedNetwork,), "pass what trainable(...) gave")
    return integer_graph(network)


def quantise(graph: Graph, calibration: Batches, levels: Levels, method: PostTraining = NEAREST) -> Graph:
    """Post-training quantisation: the integer graph of a captured network.

    Samples that are few, all alike, repeated or without contrast are warned of (CalibrationWarning).

    Args:
        graph: float dialect, from `capture`.
        calibration: a tensor of samples, a tuple of tensors, or a loader of batches; labels are ignored.
        levels: ranges of counts and weights.
        method: what may be changed for closer results.

    Raises:
        DataError: empty or unfit calibration data.
        LevelsError: an override names no module, or some accumulator could leave int32.
    """
    expect("quantise(method)", method, (Nearest, Reconstruction), "use Reconstruction()")
    _check(graph, levels)
    calibration = kept(calibration)
    remark(graph, calibration, lambda: plan(graph, levels), what="units", observer=levels.observer)
    match method:
        case Nearest():
            return freeze(_calibrated(graph, levels, calibration))
        case Reconstruction():
            return freeze(reconstructed(graph, calibration, levels, method))
        case _:
            assert_never(method)


def reconstructed(
    graph: Graph, calibration: Batches, levels: Levels, method: Reconstruction
) -> QuantisedNetwork:
    """The network as reconstruction leaves it: `freeze` gives its integer graph.

    Args and raises: see `quantise`.
    """
    _check(graph, levels)
    graph = with_biases(absorb_gains(lower_batch_norms(prune(graph))))
    network = QuantisedNetwork(plan(graph, levels), levels)
    reconstruct(network, calibration, method)
    return network
