"""What `spikemorph run` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.cli import output
from spikemorph.cli.against import HOW, Against
from spikemorph.cli.work import Chosen
from spikemorph.convert.network import SpikingNetwork
from spikemorph.evaluate.encode import saturated
from spikemorph.measure.layers import LayerError, LayerErrors, layer_errors
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
    """

    steps: int | None
    layers: bool
    against: Against
    threshold: float


def run(chosen: Chosen, wanted: Wanted, *, as_json: bool) -> int:
    """Simulate and summarise."""
    handover = chosen.passed_on()
    network, x, y, engine = chosen.load()
    runs = _runs(network, x, wanted.steps, engine, handover)
    spikes = {name: sum(int(each.layer_spikes[name].sum()) for each in runs) for name in runs[0].layer_spikes}
    summary = _summary(network, x, y, runs, sum(spikes.values()))
    by_layer = {name: count / len(x) for name, count in spikes.items()}
    errors = _errors(chosen, wanted, network, x, engine) if wanted.layers else None
    if as_json:
        found = {} if errors is None else {"errors": errors.to_dict()}
        output.emit_json({**summary, "layers": by_layer, **found})
        return 0
    output.table(str(chosen.network), ["", "value"], [[key, str(value)] for key, value in summary.items()])
    if summary["settled"] < len(x):
        left = len(x) - summary["settled"]
        output.show(f"{left} samples had not settled after {wanted.steps} steps an element")
    if summary["saturated_samples"]:
        output.show(f"{summary['saturated_samples']} samples reach beyond the input grid and were clipped")
    if errors is not None:
        output.table("spikes a sample", ["layer", "spikes"], [[n, f"{c:.1f}"] for n, c in by_layer.items()])
        _show_errors(errors)
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
        "settled": sum(int(each.settled.sum()) for each in runs),
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
    if y is None or not isinstance(outputs[0], Tensor):
        return None
    scores = torch.cat(outputs)
    if scores.dim() == 1 and not scores.is_floating_point():
        return 100.0 * float((scores == y).double().mean())
    return accuracy(scores, y) if scores.dim() == 2 and scores.shape[1] > 1 else None


# ---------------------------------------------------------------- errors by layer
def _errors(
    chosen: Chosen, wanted: Wanted, network: SpikingNetwork, x: Tensor, engine: Engine
) -> LayerErrors:
    part = x[:DIAGNOSED]
    graph = wanted.against.graph(chosen.network, part)
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
        rows = [[each.name, f"{each.unsettled:.3f}", _percent(each.silent)] for each in errors.layers]
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
