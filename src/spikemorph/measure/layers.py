"""Which layer of a converted network is how wrong, by whose fault, and which one breaks first.

A layer is an input, a neuron layer, a pool or an output. Its decoded activation is count x unit. Errors are
relative: ||decoded - float|| / ||float||, Euclidean over all samples and places; 0 is exact, 1 is as wrong
as silence. What a layer *adds* is its distance from what the float layer makes of the very activations that
arrive there, decoded ones with all errors made before. So a layer that only hands on what it was given adds
nothing, and no layer is blamed for what another one did.

In a rate network the decoded activation is count x unit / steps, over all steps, whatever its readout window;
there is no QNN, and nothing settles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import GraphError, UsageError
from spikemorph.evaluate.batching import Batches, batches
from spikemorph.evaluate.encode import input_counts
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.ir.graph import Graph
from spikemorph.measure.beside import Beside, lay_beside, layers_of
from spikemorph.measure.sums import LayerSums
from spikemorph.run.default import Engine
from spikemorph.run.record import SpikeCounts
from spikemorph.run.simulate import simulate

THRESHOLD = 0.3
"""A layer that adds more error than this is broken. Rounding to 3 levels adds about 0.2, to 15 about 0.06."""
CHUNK = 32


@final
@dataclass(frozen=True, slots=True)
class LayerError:
    """One layer; None where no float network was given to compare with, or where a rate network has no QNN.

    Args:
        kind: input, neuron, identity, pool or output.
        origin: module and source line.
        error: of the spiking network against the float network.
        added: what this layer adds to it, with the activations that reach it in the spiking network.
        quantisation: error of the QNN against the float network.
        quantisation_added: what this layer adds to that.
        unsettled: error of the spiking network against the QNN, 0 at quiescence.
        cosine: of spiking and float activations.
        clipped: share of counts at the end of their range that would go beyond it.
        clipping: the share of the squared error it adds that comes from these.
        silent: share of channels in which no count ever left zero.
        silent_float: share of channels in which the float activation was never anything but zero.
    """

    name: str
    kind: str
    origin: str
    error: float | None
    added: float | None
    quantisation: float | None
    quantisation_added: float | None
    unsettled: float | None
    cosine: float | None
    clipped: float | None
    clipping: float | None
    silent: float
    silent_float: float | None

    @property
    def judged(self) -> float:
        """What it adds; without a float network, how far it is from rest."""
        return (self.unsettled or 0.0) if self.added is None else self.added


@final
@dataclass(frozen=True)
class LayerErrors:
    """All layers in the order in which data passes them.

    Args:
        steps: simulated, None: until nothing was in flight.
        threshold: of the error that a layer adds, beyond which it counts as broken.
    """

    layers: tuple[LayerError, ...]
    samples: int
    steps: int | None
    threshold: float

    @property
    def first_broken(self) -> LayerError | None:
        """The first layer that adds more than the threshold; without a float network, that is so far off."""
        return next((layer for layer in self.layers if layer.judged > self.threshold), None)

    @property
    def verdict(self) -> str:
        """One sentence: which layer breaks first, why, and what helps."""
        layer = self.first_broken
        if layer is None:
            worst = max(self.layers, key=lambda each: each.judged)
            if worst.added is None:
                return f"no layer breaks: '{worst.name}' is farthest from rest, by {worst.judged:.2f}"
            return f"no layer breaks: '{worst.name}' adds the most, {worst.added:.2f}"
        return f"'{layer.name}' ({layer.origin}) breaks first: {_reason(layer, self.threshold)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        first = self.first_broken
        return {
            "samples": self.samples,
            "steps": self.steps,
            "threshold": self.threshold,
            "first_broken": None if first is None else first.name,
            "verdict": self.verdict,
            "layers": [asdict(layer) for layer in self.layers],
        }


ALIKE = 0.5
"""Cosine of activations, below which no rounding explains the difference; one level leaves about 0.8."""
OTHER = "is it the float network, with the weights, that this one was converted from?"
CLIPPING = (
    "calibrate on data of this range, or with the observer max; of a rate network, with more iterations"
)


def _reason(layer: LayerError, threshold: float) -> str:
    if layer.added is None:
        return f"it is {layer.judged:.2f} away from rest; run more steps"
    adds = f"it adds an error of {layer.added:.2f}"
    if layer.quantisation_added is not None and layer.quantisation_added <= threshold:
        return f"{adds}, the QNN only {layer.quantisation_added:.2f}: it is not settled; run more steps"
    if layer.clipped and layer.clipping is not None and layer.clipping > 0.5:
        share = f"{100 * layer.clipped:.2g} % of its counts, which are clipped"
        return f"{adds}, most of it in {share}; {CLIPPING}"
    if layer.quantisation is None:
        return f"{adds}; run more steps"
    if layer.cosine is not None and layer.cosine < ALIKE:
        alike = f"its activations are hardly like those of the float network (cosine {layer.cosine:.2f})"
        return f"{adds}, and {alike}: {OTHER}"
    return f"{adds}; give its module more levels or weight bits"


def layer_errors(
    network: SpikingNetwork,
    x: Batches,
    float_graph: Graph | None = None,
    *,
    steps: int | None = None,
    threshold: float = THRESHOLD,
    engine: Engine | None = None,
    watch: Callable[[int], None] = lambda samples: None,
) -> LayerErrors:
    """Every layer of a spiking network against its QNN and the float network that it was made from.

    Args:
        x: samples, as `simulate` takes them, or a loader of batches.
        float_graph: from `capture`, the same network as was quantised; None compares with the QNN alone.
        steps: after how many (in every element); None runs until nothing is in flight.
        threshold: of the error that a layer adds, beyond which it counts as broken.
        watch: told how many samples are done.

    Raises:
        GraphError: the float network is another one, or the units of counts are not known.
        DataError: samples that do not fit.
        UsageError: a threshold that is no positive number; a rate network without steps or a float network.
    """
    rates = network.window is not None
    if rates and (float_graph is None or steps is None):
        raise UsageError(
            where="layer_errors(network)",
            got="a rate network without " + ("steps" if steps is None else "its float network"),
            known="its activations are counts by the number of steps, and it has no QNN to compare with",
            do="give both: layer_errors(network, x, float_graph, steps=32)",
        )
    if not isinstance(threshold, int | float) or not threshold > 0:
        raise UsageError(
            where="layer_errors(threshold)",
            got=repr(threshold),
            known="a relative error above zero",
            do=f"leave it out for {THRESHOLD}",
        )
    beside = None if float_graph is None else lay_beside(float_graph, network.graph)
    if beside is not None:
        _check_units(network.graph)
    scale = (steps, network.spike.largest) if rates and steps is not None else (1, 1)
    books = {node.name: LayerSums(node, network.graph, *scale) for node in layers_of(network.graph)}
    samples, size = 0, network.graph.samples_at_once(CHUNK)
    for inputs in batches(network.graph, x, size=max(1, size // 4), where="samples"):
        run = simulate(network, inputs, steps=steps, engine=engine, record=SpikeCounts())
        counts = run.counts or {}
        given = input_counts(network.graph, inputs)
        entered = {node.name: given[place] for place, node in enumerate(network.graph.inputs)}
        qnn = None if rates else evaluate_counts(network.graph, given)
        _enter(books, {**counts, **run.raw, **entered}, qnn, beside, inputs)
        samples += len(inputs[0])
        watch(samples)
    layers = tuple(_layer(each) for each in books.values())
    return LayerErrors(layers, samples, steps, threshold)


def _check_units(graph: Graph) -> None:
    """It is known what one count of each neuron stands for.

    Raises:
        GraphError: it is not.
    """
    for node in graph.neurons:
        if node.name not in graph.units:
            raise GraphError(
                where=f"neuron '{node.name}', {node.origin}",
                got="what one of its counts stands for is not known",
                known="networks that quantise made carry the units of their counts, files before them do not",
                do="convert the model again, or compare with the QNN alone, without the float network",
            )


def _enter(
    books: Mapping[str, LayerSums],
    snn: Mapping[str, Tensor],
    qnn: Mapping[str, Tensor] | None,
    beside: Beside | None,
    inputs: tuple[Tensor, ...],
) -> None:
    """One batch: counts and readout integers of both networks by layer, and what the float network has."""
    spiking = {name: each.decoded(snn[name]) for name, each in books.items()}
    resting = {} if qnn is None else {name: each.decoded(qnn[name]) for name, each in books.items()}
    for name, each in books.items():
        each.add_spiking(snn[name], spiking[name], resting.get(name))
    if beside is None:
        return

    def plain(name: str, value: Tensor) -> Tensor:
        books[name].add_float(value, spiking[name], resting.get(name))
        return value

    def with_spikes(name: str, value: Tensor) -> Tensor:
        books[name].add_own(value, snn[name], spiking[name])
        return spiking[name]

    def at_rest(name: str, value: Tensor) -> Tensor:
        books[name].add_own_resting(value, resting[name])
        return resting[name]

    with torch.no_grad():
        for seen in (plain, with_spikes) if qnn is None else (plain, with_spikes, at_rest):
            beside.walk(tuple(each.double() if each.is_floating_point() else each for each in inputs), seen)


def _layer(sums: LayerSums) -> LayerError:
    known, settles = sums.compared, sums.has_rest
    return LayerError(
        name=sums.node.name,
        kind=sums.kind,
        origin=str(sums.node.origin),
        error=sums.relative("error") if known else None,
        added=sums.relative("added") if known else None,
        quantisation=sums.relative("quantisation") if known and settles else None,
        quantisation_added=sums.relative("quantisation_added") if known and settles else None,
        unsettled=sums.relative("unsettled") if settles else None,
        cosine=sums.cosine() if known else None,
        clipped=sums.share_clipped() if known else None,
        clipping=sums.share_of_clipping() if known else None,
        silent=sums.silent(),
        silent_float=sums.silent_float() if known else None,
    )
