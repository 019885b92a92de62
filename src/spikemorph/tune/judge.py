"""How much a network loses and costs on samples that were held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import DataError, GraphError
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.ir.structure import Leaf
from spikemorph.measure.compare import Books
from spikemorph.measure.energy import CostModel
from spikemorph.measure.errors import paths_of
from spikemorph.measure.operations import synaptic_operations
from spikemorph.measure.over_steps import over_steps
from spikemorph.run.simulate import simulate
from spikemorph.verify.certificate import emitters

CHUNK = 32
ACCURACY, AGREEMENT, SQUARED = "accuracy", "agreement", "squared error"


@final
@dataclass(frozen=True, slots=True)
class Lost:
    """What a network loses against the float network.

    Args:
        loss: points of accuracy; percent of samples whose top class differs; or percent of squared error.
        error: sum (spiking - float)^2 / sum (float - mean)^2, of the worst output.
    """

    loss: float
    error: float


@final
@dataclass(frozen=True, slots=True)
class Reading:
    """One network, run for so many steps or to rest.

    Args:
        steps: after which it was read; None: at rest.
        steps_max, steps_mean: until it was at rest, or was read.
        spikes_per_neuron, events_per_neuron: of a sample; events of the costed ones.
        synaptic_operations, joules: of a sample, the mean over the costed ones.
    """

    steps: int | None
    loss: float
    error: float
    steps_max: int
    steps_mean: float
    spikes_per_neuron: float
    events_per_neuron: float
    synaptic_operations: float
    joules: float


@final
@dataclass(frozen=True)
class Held:
    """Samples that judge, and what the float network says about them.

    Args:
        inputs: one tensor an argument, [n, *shape].
        wanted: decoded outputs of the float network, [n, *shape] each.
        labels: [n] classes; None: none, or none that fit.
        targets: there were real-valued labels, so outputs are no scores of classes.
    """

    graph: Graph
    inputs: tuple[Tensor, ...]
    wanted: tuple[Tensor, ...]
    labels: Tensor | None
    targets: bool = False

    @property
    def measure(self) -> str:
        """What a loss is: of accuracy with classes, of agreement of top classes, else squared error."""
        if self.labels is not None:
            return ACCURACY
        classes = _has_classes(self.graph, self.wanted[0]) and not self.targets
        return AGREEMENT if classes else SQUARED

    @property
    def float_value(self) -> float:
        """Accuracy of the float network in percent; 100 without labels, 0 of errors."""
        if self.labels is not None:
            return 100.0 * float((_top(self.wanted[0]) == self.labels).double().mean())
        return 100.0 if self.measure == AGREEMENT else 0.0

    def __len__(self) -> int:
        return len(self.inputs[0])

    def sums(self, output: Any, here: slice) -> Tensor:
        """What adds up over samples: how many top classes miss, then the squared error of every output."""
        got = _leaves(self.graph, output)
        wanted = [each[here] for each in self.wanted]
        missed = 0.0
        if self.measure != SQUARED:
            right = _top(wanted[0]) if self.labels is None else self.labels[here]
            missed = float((_top(got[0]) != right).sum())
        pairs = zip(got, wanted, strict=True)
        errors = [float(((a.double() - b.double()) ** 2).sum()) for a, b in pairs]
        return torch.tensor([missed, *errors], dtype=torch.float64)

    def lost(self, sums: Tensor) -> Lost:
        """Of the sums over all samples."""
        errors = [float(s) / _spread(each) for s, each in zip(sums[1:], self.wanted, strict=True)]
        missed = 100.0 * float(sums[0]) / len(self)
        if self.measure == SQUARED:
            return Lost(100.0 * max(errors), max(errors))
        return Lost(missed - (100.0 - self.float_value), max(errors))

    def parts(self, size: int) -> Iterator[tuple[tuple[Tensor, ...], slice]]:
        """Batches, and where they stand."""
        for start in range(0, len(self), size):
            here = slice(start, min(start + size, len(self)))
            yield tuple(each[here] for each in self.inputs), here


def held_out(graph: Graph, inputs: tuple[Tensor, ...], labels: Tensor | None) -> Held:
    """The judges, seen by the float network.

    Raises:
        DataError: outputs that are neither real numbers nor one class number; labels that are no classes.
    """
    size = graph.samples_at_once(CHUNK)
    seen = [
        _leaves(graph, evaluate(graph, tuple(each[i : i + size] for each in inputs)))
        for i in range(0, len(inputs[0]), size)
    ]
    wanted = tuple(torch.cat(each) for each in zip(*seen, strict=True))
    single = _has_classes(graph, wanted[0])
    if not single and not all(each.is_floating_point() for each in wanted):
        raise DataError(
            where="the outputs of the network",
            got="class numbers among other outputs",
            known="real numbers, or one class a sample",
            do="return the scores instead of their argmax",
        )
    targets = labels is not None and labels.is_floating_point()
    if labels is None or targets or not single:
        return Held(graph, inputs, wanted, None, targets)
    return Held(graph, inputs, wanted, _classes(labels, wanted[0]))


def _classes(labels: Tensor, wanted: Tensor) -> Tensor:
    """Labels, where each is a class of the network."""
    most = wanted.shape[1] if wanted.is_floating_point() else None
    flat = labels.dim() == 1
    if not flat or int(labels.min()) < 0 or (most is not None and int(labels.max()) >= most):
        got = f"from {int(labels.min())} to {int(labels.max())}" if flat else f"shape {list(labels.shape)}"
        raise DataError(
            where="tune(labels)",
            got=got,
            known="one class a sample, " + ("from 0 on" if most is None else f"0..{most - 1}"),
            do="leave the labels out, or number the classes as the network does",
        )
    return labels


def lost_at_rest(integer: Graph, held: Held) -> Lost:
    """What the quantised network, and so a lossless one at rest, loses. Nothing spikes: it is cheap."""
    total = torch.zeros(1 + len(held.wanted), dtype=torch.float64)
    for inputs, here in held.parts(integer.samples_at_once(CHUNK)):
        total += held.sums(evaluate(integer, inputs), here)
    return held.lost(total)


def judge(
    network: SpikingNetwork, held: Held, stops: Sequence[int], model: CostModel, costed: int
) -> list[Reading]:
    """A network after these steps, and at rest where it comes to rest; never past its rest."""
    rates = network.window is not None
    asked = list(stops)
    stops = tuple(each for each in stops if not rates or each <= network.room)
    keys: list[int | None] = [*stops] if rates else [*stops, None]
    if not keys:
        raise GraphError(
            where="tune",
            got=f"counts with room for {network.room} steps",
            known=f"at least the first of the steps {asked}",
            do="convert with Lossless()",
        )
    sums = {key: torch.zeros(1 + len(held.wanted), dtype=torch.float64) for key in keys}
    spikes: dict[int | None, int] = dict.fromkeys(keys, 0)
    steps: list[Tensor] = []
    done, size = 0, network.graph.samples_at_once(CHUNK)
    for part in over_steps(network, held.inputs, stops, quiescent=not rates, batch=size):
        here = slice(done, done + len(part.inputs[0]))
        done = here.stop
        steps.append(part.run.sample_steps)
        outputs = [part.outputs[stop] for stop in stops] + ([] if rates else [part.quiescent])
        for stop, row in zip(stops, part.spikes, strict=True):
            spikes[stop] += int(row.sum())
        spikes[None] = spikes.get(None, 0) + part.run.spikes
        for key, output in zip(keys, outputs, strict=True):
            sums[key] += held.sums(output, here)
    until = torch.cat(steps)
    last = int(until.max())
    kept = [key for key in keys if key is None or rates or key < last]
    neurons = max(emitters(network), 1) * len(held)
    made = []
    for key in kept:
        lost, taken = held.lost(sums[key]), until if rates or key is None else until.clamp(max=key)
        reading = Reading(
            steps=key,
            loss=lost.loss,
            error=lost.error,
            steps_max=key if rates and key is not None else int(taken.max()),
            steps_mean=float(key) if rates and key is not None else float(taken.double().mean()),
            spikes_per_neuron=spikes[key] / neurons,
            **_costs(network, tuple(each[:costed] for each in held.inputs), key, model),
        )
        made.append(reading)
    return made


def _costs(
    network: SpikingNetwork, inputs: tuple[Tensor, ...], steps: int | None, model: CostModel
) -> dict[str, float]:
    """Events, operations and joules of a sample, as fields of a reading."""
    books, events, operations = Books(network), 0, 0
    size = network.graph.samples_at_once(CHUNK)
    for start in range(0, len(inputs[0]), size):
        run = simulate(network, tuple(each[start : start + size] for each in inputs), steps=steps)
        books.add(run)
        events, operations = events + run.events, operations + synaptic_operations(run)
    return {
        "events_per_neuron": events / (max(emitters(network), 1) * books.samples),
        "synaptic_operations": operations / books.samples,
        "joules": model.snn.of(books.ledger.scaled(1 / books.samples).total),
    }


# ---------------------------------------------------------------- outputs
def _leaves(graph: Graph, output: Any) -> list[Tensor]:
    found = []
    for path in paths_of(graph.structure).values():
        value = output
        for key in path:
            value = value[key]
        found.append(value)
    return found


def _has_classes(graph: Graph, output: Tensor) -> bool:
    """One output: a row of at least two scores, or a class number, a sample."""
    if not isinstance(graph.structure, Leaf):
        return False
    return output.dim() == 1 if not output.is_floating_point() else output.dim() == 2 and output.shape[1] > 1


def _top(output: Tensor) -> Tensor:
    return output.argmax(1) if output.is_floating_point() else output


def _spread(wanted: Tensor) -> float:
    """sum (x - mean)^2; of a constant output sum x^2, or 1 of nothing but zeros."""
    x = wanted.double()
    return float(((x - x.mean()) ** 2).sum()) or float((x**2).sum()) or 1.0
