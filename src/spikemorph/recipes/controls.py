"""Negative controls for sequences: two ways that look lossless on short ones and are not.

Raw replay hands over the spike train of the element before instead of its settled counts. Float32 keeps the
settled counts, but adds real-valued weights in float32, where the order of summation shows at ties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import GraphError
from spikemorph.evaluate.encode import input_counts
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.run.dense import Dense
from spikemorph.run.handover import Fresh, Handover, Replay
from spikemorph.run.record import SpikeCounts

MOST_STEPS = 64


def controls(
    network: SpikingNetwork,
    float_graph: Graph,
    x: Tensor,
    steps: tuple[int, ...],
    *,
    more: Tensor | None = None,
) -> dict[str, Any]:
    """Fractions of wrong states, and the first wrong element, of every control and of the right way.

    Args:
        network: one recurrence, forwards.
        float_graph: the network it came from.
        x: [batch, *shape].
        steps: how many steps an element, for each run.
        more: samples for float32, which errs at ties alone and so more rarely; None: the same.
    """
    state = _recurrence(network.graph)
    graph, counts = network.graph, input_counts(network.graph, x)
    wanted = evaluate_counts(graph, counts)[state.name]
    found: dict[str, Any] = {"samples": len(x), "elements": state.shape[0], "raw_replay": {}, "settled": {}}
    ways: Mapping[str, Handover] = {"raw_replay": Replay(), "settled": Fresh()}
    for way, handover in ways.items():
        for number in steps:
            run = Dense().run(network, counts, steps=number, record=(SpikeCounts(),), handover=handover)
            assert run.counts is not None
            found[way][f"{number} steps"] = _wrong(run.counts[state.name].double(), wanted)
    many = x if more is None else more
    found["float32"] = {"samples": len(many), **in_float32(float_graph, many, levels=_levels(state))}
    return found


def _recurrence(graph: Graph) -> Node:
    found = [node for node in graph.nodes if isinstance(node.op, ops.Recurrence)]
    if len(found) != 1:
        raise GraphError(
            where="controls",
            got=f"{len(found)} recurrences",
            known="one",
            do="use a network with one RNN layer, in one direction",
        )
    return found[0]


def _levels(state: Node) -> int:
    assert isinstance(state.op, ops.Recurrence) and isinstance(state.op.cell, ops.Neuron)
    return state.op.cell.hi


def _wrong(got: Tensor, wanted: Tensor) -> dict[str, Any]:
    """Of states [batch, elements, units]."""
    different = got != wanted
    elements = different.any(2).any(0).nonzero().flatten()
    return {
        "wrong_states_percent": 100.0 * float(different.double().mean()),
        "first_wrong_element": int(elements[0]) if len(elements) else None,
        "samples_with_wrong_states": int(different.any(2).any(1).sum()),
    }


@final
@dataclass(frozen=True)
class _Cell:
    """A ReLU recurrence with real weights: v = (own h + x) in units of h, h = clip(round(v), 0, levels)."""

    own: Tensor
    levels: int

    def at_rest(self, x: Tensor, h: Tensor) -> Tensor:
        """The quantised recurrence, one element."""
        return (x + h @ self.own.T + 0.5).floor().clamp(0, self.levels)

    def spiking(self, x: Tensor, h: Tensor) -> Tensor:
        """The bipolar integrate-and-fire neuron (arXiv 2408.09403): settled counts arrive one by one."""
        v, count = x + 0.5, torch.zeros_like(h)
        for step in range(MOST_STEPS):
            v = v + (h > step).to(v.dtype) @ self.own.T
            spike = ((v >= 1) & (count < self.levels)).to(v.dtype) - ((v < 0) & (count > 0)).to(v.dtype)
            v, count = v - spike, count + spike
            if step >= self.levels and not bool((spike != 0).any()):
                break
        return count


def in_float32(graph: Graph, x: Tensor, *, levels: int) -> dict[str, Any]:
    """The float network's own recurrence with quantised states, at rest and spiking, both in float32.

    Args:
        graph: float dialect, one forward ReLU recurrence.
        x: [batch, *shape].
        levels: of the states.
    """
    node = _recurrence(graph)
    assert isinstance(node.op, ops.Recurrence)
    values = evaluate_float(graph, (x,))
    unit = values[node.name].max() / levels
    incoming = values[node.inputs[0]] / unit
    cell = _Cell(graph.tensors[node.op.weight].float(), levels)
    rest = spiking = torch.zeros(len(x), node.shape[1])
    rests, spikings = [], []
    for arriving in incoming.unbind(1):
        rest, spiking = cell.at_rest(arriving, rest), cell.spiking(arriving, spiking)
        rests.append(rest)
        spikings.append(spiking)
    return _wrong(torch.stack(spikings, 1), torch.stack(rests, 1))
