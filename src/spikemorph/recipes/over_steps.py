"""Methods side by side over steps: what is chosen on calibration data, and the table on test data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.convert.network import Graded, SpikingNetwork, Window
from spikemorph.evaluate.batching import Batches
from spikemorph.evaluate.integers import evaluate
from spikemorph.measure.operations import synaptic_operations
from spikemorph.measure.over_steps import over_steps
from spikemorph.run.record import Outputs
from spikemorph.run.simulate import simulate

QUIESCENT = "quiescent"
STEPS = (8, 16, 32, 64)
FULL = (8, 16, 32, 64, 128, 256)

Score = Callable[[Any, slice], Any]
"""The outputs of some samples, and which ones, to what adds up over batches; a number to be averaged."""
Finish = Callable[[Any, int], float]
"""What a score added up to over all samples, and how many there were, to the value; more is better."""


def mean(total: float, samples: int) -> float:
    """Of a number for each sample."""
    return total / samples


@final
@dataclass(frozen=True)
class Way:
    """A network and what it is called in the tables.

    Args:
        method: one row of a table; several networks may share it, each for other steps.
        network: spiking.
        steps: at which it stands for its method.
        rest: whether it stands for it at rest, too.
    """

    method: str
    network: SpikingNetwork
    steps: tuple[int, ...]
    rest: bool = False

    @property
    def graded(self) -> bool:
        """Whether its spikes have sizes."""
        return isinstance(self.network.spike, Graded)


Curve = Mapping[str, float]
"""Steps, or QUIESCENT, to a value."""


def curve(
    network: SpikingNetwork,
    data: Batches,
    score: Score,
    steps: tuple[int, ...],
    *,
    rest: bool,
    finish: Finish = mean,
    batch: int = 4,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Curve, Curve]:
    """Values after so many steps and at rest; and means of spikes a neuron until then."""
    sums, spikes, done = dict[str, Any](), dict[str, float](), 0
    neurons = sum(torch.Size(node.shape).numel() for node in network.graph.neurons)
    for part in over_steps(network, data, steps, quiescent=rest, batch=batch, progress=progress):
        here = slice(done, done + len(part.inputs[0]))
        done = here.stop
        found = {str(n): part.outputs[n] for n in steps} | ({QUIESCENT: part.quiescent} if rest else {})
        for name, output in found.items():
            scored = score(output, here)
            sums[name] = sums[name] + scored if name in sums else scored
        for n, row in zip(steps, part.spikes, strict=True):
            spikes[str(n)] = spikes.get(str(n), 0.0) + float(row.sum()) / neurons
        if rest:
            spikes[QUIESCENT] = spikes.get(QUIESCENT, 0.0) + part.run.spikes / neurons
    return {k: finish(v, done) for k, v in sums.items()}, {k: v / done for k, v in spikes.items()}


def best_window(network: SpikingNetwork, data: Tensor, score: Score, steps: int) -> SpikingNetwork:
    """The rate network with the window that scores best on calibration data in a run of so many steps.

    Candidates leave out nothing, a quarter, half, three quarters, or what the network's own window does.
    """
    if network.window is None:
        return network
    starts = sorted({0, steps // 4, steps // 2, 3 * steps // 4, network.window.first(steps)})
    every = sorted({steps, *starts} - {0})
    totals = dict.fromkeys(starts, 0.0)
    for first in range(0, len(data), 4):
        here = slice(first, min(first + 4, len(data)))
        run = simulate(network, data[here], steps=steps, record=Outputs(tuple(every)))
        for start in starts:
            cut = replace(run, window=Window(start, 1), shown=None)
            totals[start] += score(cut.output, here)
    chosen = max(starts, key=lambda start: totals[start])
    return replace(network, window=Window(chosen, 1))


def agreement(reference: Tensor) -> Score:
    """How many samples have their largest score where the float network has it; needs no labels."""
    best = reference.argmax(1)
    return lambda output, here: float((output.argmax(1) == best[here]).sum())


def hits(labels: Tensor) -> Score:
    """Percent of right classes."""
    return lambda output, here: 100.0 * float((output.argmax(1) == labels[here]).sum())


@final
@dataclass(frozen=True)
class Table:
    """What was measured.

    Args:
        by_method: method -> steps -> value.
        spikes: method -> steps -> spikes a neuron.
        costs: method -> steps -> synaptic operations, spikes and seconds a sample, of a few samples.
    """

    by_method: dict[str, dict[str, float]]
    spikes: dict[str, dict[str, float]]
    costs: dict[str, dict[str, dict[str, float]]]


def measured(
    ways: Sequence[Way],
    data: Tensor,
    score: Score,
    *,
    finish: Finish = mean,
    costed: int = 2,
    batch: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Table:
    """Every way on all samples.

    Args:
        data: [n, *shape].
        finish: makes values of scores that were added up.
        costed: samples whose operations and time are measured, one by one.
        progress: is told samples done, of all ways together, and how many there are.
    """
    table = Table({}, {}, {})
    for number, way in enumerate(ways):
        before = number * len(data)

        def tell(done: int, before: int = before) -> None:
            progress(before + done, len(ways) * len(data))

        values, spikes = curve(
            way.network, data, score, way.steps, rest=way.rest, finish=finish, batch=batch, progress=tell
        )
        table.by_method.setdefault(way.method, {}).update(values)
        table.spikes.setdefault(way.method, {}).update(spikes)
        costs = {str(steps): _cost(way.network, data[:costed], steps) for steps in way.steps}
        if way.rest:
            costs[QUIESCENT] = _cost(way.network, data[:costed], None)
        table.costs.setdefault(way.method, {}).update(costs)
    return Table(*(_in_order(part) for part in (table.by_method, table.spikes, table.costs)))


def add_rest(
    table: Table, way: Way, data: Tensor, score: Score, *, finish: Finish = mean, costed: int = 2
) -> None:
    """The row of a lossless network at rest, without running all samples until then.

    Its values are those of its quantised network, which every neuron of it equals there; spikes, operations
    and time are of a few samples that run to rest.
    """
    outputs = evaluate(way.network.graph, data)
    value = finish(score(outputs, slice(0, len(data))), len(data))
    neurons = sum(torch.Size(node.shape).numel() for node in way.network.graph.neurons)
    cost = _cost(way.network, data[:costed], None)
    table.by_method.setdefault(way.method, {})[QUIESCENT] = value
    table.spikes.setdefault(way.method, {})[QUIESCENT] = cost["spikes"] / neurons
    table.costs.setdefault(way.method, {})[QUIESCENT] = cost


def _cost(network: SpikingNetwork, data: Tensor, steps: int | None) -> dict[str, float]:
    operations, spikes, seconds = 0, 0, 0.0
    for sample in data:
        start = time.perf_counter()
        run = simulate(
            network, sample[None], steps=steps, record=Outputs((steps or 1,))
        )  # in stretches: less memory
        seconds += time.perf_counter() - start
        operations += synaptic_operations(run)
        spikes += run.spikes
    total = {"synaptic_operations": operations, "spikes": spikes, "seconds": seconds}
    return {name: value / len(data) for name, value in total.items()}


def _in_order(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    def place(steps: str) -> float:
        return float("inf") if steps == QUIESCENT else float(steps)

    return {method: {key: row[key] for key in sorted(row, key=place)} for method, row in rows.items()}


def losses(table: Table, float_value: float, chosen: Mapping[str, str]) -> dict[str, float]:
    """Points lost against the float network, by the method chosen for each number of steps."""
    return {
        steps: float_value - table.by_method[method][steps]
        for steps, method in chosen.items()
        if steps in table.by_method.get(method, {})
    }
