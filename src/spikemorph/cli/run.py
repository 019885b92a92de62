"""What `spikemorph run` does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.cli import output
from spikemorph.cli.against import HOW, Against
from spikemorph.cli.work import Chosen
from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import UsageError
from spikemorph.evaluate.encode import saturated
from spikemorph.ir.graph import Graph
from spikemorph.ir.structure import Leaf
from spikemorph.measure.errors import OutputErrors, output_errors
from spikemorph.measure.layers import THRESHOLD, LayerError, LayerErrors, layer_errors
from spikemorph.measure.operations import synaptic_operations
from spikemorph.recipes.result import accuracy
from spikemorph.run.default import Engine
from spikemorph.run.handover import Handover
from spikemorph.run.result import Run
from spikemorph.run.simulate import simulate
from spikemorph.verify.certificate import analog_inputs, emitters, spike_kind

CHUNK = 100
DIAGNOSED = 256
"""Most samples from which errors by layer are taken."""


@final
@dataclass(frozen=True, slots=True)
class Wanted:
    """What to do and to show.

    Args:
        steps: in every element; None: until quiescent.
        layers: spikes and errors of every layer.
        against: the float network to compare with.
        threshold: of the error that a layer adds, beyond which it is called broken.
        over: errors of the outputs after these steps, and at rest; None: not asked for.
    """

    steps: int | None
    layers: bool
    against: Against
    threshold: float
    over: tuple[int, ...] | None = None


def parse_steps(text: str | None) -> tuple[int, ...] | None:
    """The numbers of a list such as 1,2,4,8; None of None.

    Raises:
        UsageError: it is no such list.
    """
    if text is None:
        return None
    parts = text.split(",")
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 10]
    if len(numbers) != len(parts) or 0 in numbers or sorted(set(numbers)) != numbers:
        raise UsageError(
            where="--over", got=repr(text), known="rising whole numbers from 1 on", do="try --over 1,2,4,8,16"
        )
    return tuple(numbers)


def check_threshold(threshold: float) -> float:
    """A relative error.

    Raises:
        UsageError: not above zero.
    """
    if not 0 < threshold < math.inf:
        raise UsageError(
            where="--threshold",
            got=f"{threshold:g}",
            known="a relative error above zero",
            do=f"leave it out for {THRESHOLD}",
        )
    return threshold


def run(chosen: Chosen, wanted: Wanted, *, as_json: bool) -> int:
    """Simulate and summarise."""
    handover = chosen.passed_on()
    network, x, y, engine = chosen.load()
    if network.window is not None and wanted.steps is None and wanted.over:
        wanted = replace(wanted, steps=max(wanted.over))
    if network.window is not None and wanted.steps is None:
        raise UsageError(
            where="--steps",
            got="none, for a rate network",
            known=f"rate networks never come to rest; this one has room for {network.room} steps",
            do="say after how many to stop: --steps 32",
        )
    compared = wanted.layers or wanted.over is not None
    graph = wanted.against.graph(chosen.network, x) if compared else None
    if wanted.over is not None and graph is None:
        raise UsageError(
            where="--over", got="no float network", known="errors are those against the float network", do=HOW
        )
    runs = _runs(network, x, wanted.steps, engine, handover)
    spikes = {name: sum(int(each.layer_spikes[name].sum()) for each in runs) for name in runs[0].layer_spikes}
    summary = _summary(network, x, y, runs, sum(spikes.values()))
    by_layer = {name: count / len(x) for name, count in spikes.items()}
    errors = _errors(wanted, network, x, graph, engine) if wanted.layers else None
    over = None
    if wanted.over is not None and graph is not None:
        over = _over(chosen, wanted.over, network, (x, y), graph)
    if as_json:
        found = {} if errors is None else {"errors": errors.to_dict()}
        found |= {} if over is None else {"over_steps": over.to_dict()}
        output.emit_json({**summary, "layers": by_layer, **found})
        return 0
    shown = [[key, str(value)] for key, value in summary.items() if value is not None]
    output.table(str(chosen.network), ["", "value"], shown)
    if summary["settled"] is not None and summary["settled"] < len(x):
        left = len(x) - summary["settled"]
        output.show(f"{left} samples had not settled after {wanted.steps} steps an element")
    if summary["saturated_samples"]:
        output.show(f"{summary['saturated_samples']} samples reach beyond the input grid and were clipped")
    if errors is not None:
        output.table("spikes a sample", ["layer", "spikes"], [[n, f"{c:.1f}"] for n, c in by_layer.items()])
        _show_errors(errors)
    if over is not None:
        _show_over(over)
    return 0


def _runs(
    network: SpikingNetwork, x: Tensor, steps: int | None, engine: Engine, handover: Handover
) -> list[Run]:
    runs = []
    with output.Bars() as bars:
        bar = bars.bar("samples")
        size = network.graph.samples_at_once(CHUNK)
        for start in range(0, len(x), size):
            part = x[start : start + size]
            runs.append(simulate(network, part, steps=steps, engine=engine, handover=handover))
            bar(min(start + size, len(x)), len(x))
    return runs


def _summary(
    network: SpikingNetwork, x: Tensor, y: Tensor | None, runs: list[Run], spikes: int
) -> dict[str, Any]:
    sample_steps = torch.cat([each.element_steps.flatten() for each in runs]).double()
    return {
        "samples": len(x),
        "elements": runs[0].elements,
        "accuracy": _accuracy([each.output for each in runs], y),
        "steps_max": int(sample_steps.max()),
        "steps_mean": float(sample_steps.mean()),
        "settled": None if network.window is not None else sum(int(each.settled.sum()) for each in runs),
        "saturated_samples": int(saturated(network.graph, x).sum()),
        "spikes": spikes,
        "events": sum(each.events for each in runs),
        "spikes_per_neuron": spikes / max(emitters(network) * len(x), 1),
        "synaptic_operations": sum(synaptic_operations(each) for each in runs) / len(x),
        "spike_kind": spike_kind(network),
        "analog_inputs": analog_inputs(network),
    }


def _accuracy(outputs: list[Any], y: Tensor | None) -> float | None:
    """Percent, where there are labels and the output is one row of scores a sample."""
    if y is None or y.is_floating_point() or not isinstance(outputs[0], Tensor):
        return None
    scores = torch.cat(outputs)
    if scores.dim() == 1 and not scores.is_floating_point():
        return 100.0 * float((scores == y).double().mean())
    return accuracy(scores, y) if scores.dim() == 2 and scores.shape[1] > 1 else None


# ---------------------------------------------------------------- errors by layer
def _errors(
    wanted: Wanted, network: SpikingNetwork, x: Tensor, graph: Graph | None, engine: Engine
) -> LayerErrors:
    part = x[:DIAGNOSED]
    with output.Bars() as bars:
        bar = bars.bar("errors by layer")
        return layer_errors(
            network,
            part,
            graph,
            steps=wanted.steps,
            threshold=wanted.threshold,
            engine=engine,
            watch=lambda done: bar(done, len(part)),
        )


def _show_errors(errors: LayerErrors) -> None:
    if errors.layers[0].error is None:
        rows = [[each.name, f"{each.judged:.3f}", _percent(each.silent)] for each in errors.layers]
        output.table("error by layer, against the QNN", ["layer", "error", "silent %"], rows)
        output.show(errors.verdict)
        output.show(f"no float network to compare with: {HOW}")
        return
    head = ["layer", "error", "adds", "of QNN", "unsettled", "cosine", "clipped %", "silent %"]
    output.table("error by layer, against the float network", head, [_row(each) for each in errors.layers])
    output.show(errors.verdict)


def _row(layer: LayerError) -> list[str]:
    numbers = (layer.error, layer.added, layer.quantisation, layer.unsettled, layer.cosine)
    shares = (layer.clipped, layer.silent)
    return [layer.name, *("" if n is None else f"{n:.3f}" for n in numbers), *(_percent(n) for n in shares)]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


# ---------------------------------------------------------------- errors over steps
def _over(
    chosen: Chosen,
    steps: tuple[int, ...],
    network: SpikingNetwork,
    data: tuple[Tensor, Tensor | None],
    graph: Graph,
) -> OutputErrors:
    x, y = data
    engine, handover = chosen.chosen_engine(), chosen.passed_on()
    with output.Bars() as bars:
        bar = bars.bar("errors over steps")
        return output_errors(
            network,
            x,
            graph,
            steps=steps,
            labels=y if _labelled(network.graph, y) else None,
            engine=engine,
            handover=handover,
            watch=lambda done: bar(done, len(x)),
        )


def _labelled(graph: Graph, y: Tensor | None) -> bool:
    """Labels are for a single output; classes for a row of scores."""
    if y is None or not isinstance(graph.structure, Leaf):
        return False
    return y.is_floating_point() or len(graph.by_name[graph.outputs[0]].shape) == 1


def _show_over(over: OutputErrors) -> None:
    head = ["output", "steps", "|error|", "largest", "relative", "R2", "corr"]
    labelled, classes = bool(over.float_to_labels), bool(over.float_accuracy)
    head += ["to labels"] * labelled + ["acc %"] * classes
    rows = [
        [
            row.output,
            "at rest" if row.steps is None else str(row.steps),
            *(_number(each) for each in (row.mean_absolute, row.largest, row.relative, row.r2)),
            _number(row.correlation),
            *([_number(row.to_labels)] * labelled + [_number(row.accuracy)] * classes),
        ]
        for row in over.rows
    ]
    floats = [*over.float_to_labels.items(), *over.float_accuracy.items()]
    rows += [[name, "float", *[""] * 5, _number(value)] for name, value in floats]
    output.table("decoded outputs against the float network", head, rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
