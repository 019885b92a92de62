"""What every recipe reports: one JSON object with the same fields."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, final

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.data import Dataset, Split
from spikemorph.errors import DataError
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.measure.compare import Books
from spikemorph.measure.operations import macs, synaptic_operations
from spikemorph.run.handover import FRESH, Delta, Handover
from spikemorph.run.result import Run
from spikemorph.verify.certificate import verify

Real = float
"""One of the fields below is called `float`."""


@final
@dataclass(frozen=True)
class Result:
    """One experiment. Accuracies in percent; steps, spikes and operations are of the spiking network.

    Args:
        synaptic_operations: mean of a sample.
        macs: of the float network, a sample.
        energy: cost model -> joules a sample of float, qnn and snn; None where the model has no price.
        elements: recurrent updates one after the other, 1 for feed-forward networks; steps are those of one.
        look_ahead: input elements that an update needs beyond its own share of the sequence.
        handover: how settled counts reach the next element; its spikes are in `spikes_per_neuron`.
        by_method: where methods are compared: method -> "8", "16", ... steps or "quiescent" -> value.
        loss: steps or "quiescent" -> points lost against float, with binary or ternary spikes, by the method
            that calibration data chose.
        loss_graded: the same with graded spikes.
    """

    recipe: str
    data: str
    samples: int
    metric: str
    float: Real
    qnn: Real
    snn: Real
    neurons_compared: int
    neurons_different: int
    lossless: bool
    spike_kind: str
    analog_inputs: str
    steps_max: int
    steps_p999: Real
    steps_mean: Real
    steps_bound: int
    levels: int
    weight_bits: int
    elements: int
    look_ahead: int
    handover: str
    neurons: int
    spikes_per_neuron: Real
    handover_spikes_per_neuron: Real
    events_per_neuron: Real
    synaptic_operations: Real
    macs: int
    integer_type: str
    saturated_samples: int
    energy: dict[str, dict[str, Real | None]]
    seconds: Real
    notes: dict[str, Any] = field(default_factory=dict)
    by_method: dict[str, dict[str, Real]] = field(default_factory=dict)
    loss: dict[str, Real] = field(default_factory=dict)
    loss_graded: dict[str, Real] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@final
@dataclass(frozen=True)
class Case:
    """What is assessed.

    Args:
        levels, weight_bits: of most layers, as reported.
        notes: anything the recipe has to say besides.
    """

    recipe: str
    float_graph: Graph
    integer_graph: Graph
    network: SpikingNetwork
    levels: int
    weight_bits: int
    notes: dict[str, Any] = field(default_factory=dict)


Progress = Callable[[int, int], None]
"""progress(samples done, samples in all)."""


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Percent of samples whose largest score [n, classes] is at their label [n].

    Raises:
        DataError: another number of labels than of samples, or labels that are no class.
    """
    outside = bool(((labels < 0) | (labels >= scores.shape[1])).any())
    if outside or len(labels) != len(scores):
        raise DataError(
            where="labels",
            got=f"{len(labels)} labels in {int(labels.min())}..{int(labels.max())}",
            known=f"{len(scores)} samples, classes 0..{scores.shape[1] - 1}",
            do="give every sample the index of its class",
        )
    return 100.0 * float((scores.argmax(1) == labels).double().mean())


@final
@dataclass(frozen=True)
class Metric:
    """How good outputs are.

    Args:
        of: outputs [n, ...], nested as the module nests them, and labels [n, ...] to a number.
    """

    name: str
    of: Callable[[Any, Tensor], Real]


ACCURACY = Metric("accuracy", accuracy)


class Labelled(Protocol):
    """Samples with labels, and what they are called."""

    @property
    def x(self) -> Tensor:
        """[n, *shape]."""

    @property
    def y(self) -> Tensor:
        """[n, ...]."""

    @property
    def name(self) -> str:
        """Of the data set."""

    @property
    def split(self) -> Split:
        """Which part of it."""


def assess(
    case: Case,
    data: Labelled,
    progress: Progress = lambda done, total: None,
    *,
    metric: Metric = ACCURACY,
    handover: Handover = FRESH,
    batch: int | None = None,
) -> Result:
    """Every sample until quiescent, verified neuron by neuron, with the metric and the costs.

    Args:
        batch: samples at once at most, None: as many as `verify` takes.
    """
    start, sums = time.perf_counter(), _Sums(Books(case.network))

    def watch(run: Run) -> None:
        sums.add(run)
        progress(sums.books.samples, len(data.x))

    parts = [data.x] if batch is None else list(data.x.split(batch))
    certificate = verify(case.network, case.integer_graph, parts, watch=watch, handover=handover)
    return Result(
        recipe=case.recipe,
        data=f"{data.name} {data.split.value}",
        samples=certificate.samples,
        metric=metric.name,
        float=metric.of(evaluate(case.float_graph, data.x), data.y),
        qnn=metric.of(evaluate(case.integer_graph, data.x), data.y),
        snn=metric.of(sums.joined(), data.y),
        neurons_compared=certificate.neurons_compared,
        neurons_different=certificate.neurons_different,
        lossless=certificate.lossless,
        spike_kind=certificate.spike_kind,
        analog_inputs=certificate.analog_inputs,
        steps_max=certificate.steps_max,
        steps_p999=certificate.steps_p999,
        steps_mean=certificate.steps_mean,
        steps_bound=certificate.steps_bound,
        levels=case.levels,
        weight_bits=case.weight_bits,
        elements=certificate.elements,
        look_ahead=certificate.look_ahead,
        handover=certificate.handover,
        neurons=certificate.neurons,
        spikes_per_neuron=certificate.spikes_per_neuron,
        handover_spikes_per_neuron=certificate.handover_spikes / max(certificate.neurons_compared, 1),
        events_per_neuron=certificate.events / max(certificate.neurons_compared, 1),
        synaptic_operations=sums.operations / len(data.x),
        macs=macs(case.float_graph),
        integer_type=certificate.integer_type,
        saturated_samples=certificate.saturated_samples,
        energy=sums.books.compare(case.float_graph).energy_table(),
        seconds=time.perf_counter() - start,
        notes=case.notes,
    )


@final
@dataclass
class _Sums:
    """Of the runs of all batches."""

    books: Books
    outputs: list[Any] = field(default_factory=list)
    operations: int = 0

    def add(self, run: Run) -> None:
        """One more batch."""
        self.outputs.append(run.output)
        self.operations += synaptic_operations(run)
        self.books.add(run)

    def joined(self) -> Any:
        """The outputs of all batches as those of one."""
        return pytree.tree_map(lambda *each: torch.cat(each), *self.outputs)


def with_delta(
    case: Case, data: Labelled, progress: Progress, fresh: Result, metric: Metric = ACCURACY
) -> Result:
    """The result of fresh hand-over with that of delta hand-over beside it, in its notes."""
    delta = assess(case, data, progress, metric=metric, handover=Delta())
    kept = (
        "handover",
        "snn",
        "neurons_compared",
        "neurons_different",
        "lossless",
        "steps_max",
        "steps_mean",
        "spikes_per_neuron",
        "handover_spikes_per_neuron",
        "synaptic_operations",
        "samples",
        "seconds",
    )
    beside = {name: value for name, value in delta.to_dict().items() if name in kept}
    return replace(fresh, lossless=fresh.lossless and delta.lossless, notes={**fresh.notes, "delta": beside})


Measure = Callable[[Case, Dataset, Progress, bool], Result]
"""A case and its test data to a result; the last argument asks for everything, however long."""


def assess_all(case: Case, data: Dataset, progress: Progress, full: bool) -> Result:
    """Every sample fresh; the first thousand (or everything) in delta hand-over as well."""
    fresh = assess(case, data, progress)
    return with_delta(case, data if full else data.first(1000), progress, fresh)


def assess_some(samples: int) -> Measure:
    """The first samples, or all of them where everything is asked for, in both ways of hand-over."""

    def measure(case: Case, data: Dataset, progress: Progress, full: bool) -> Result:
        part = data if full else data.first(samples)
        return with_delta(case, part, progress, assess(case, part, progress))

    return measure
