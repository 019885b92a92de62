"""Operations of a spiking run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from spikemorph.convert.network import Spikes, SpikingNetwork
from spikemorph.evaluate.intervals import accumulator_bounds, spans
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.measure.dense import bits_of, bits_of_weights, multiplied_by, weight_of
from spikemorph.measure.ledger import Ledger, Operations
from spikemorph.measure.operations import fan_out
from spikemorph.run.result import Run
from spikemorph.run.schedule import count_of, schedule
from spikemorph.verify.bounds import integer_type


def snn_operations(network: SpikingNetwork, run: Run) -> Ledger:
    """Of all samples of a run together; `scaled` gives the mean."""
    samples = run.element_steps.shape[1]
    return _arrivals(network, run) + _updates(network, run) + _emitted(network, run, samples)


def _arrivals(network: SpikingNetwork, run: Run) -> Ledger:
    """At every map, what arrived there times its fan-out."""
    found = Ledger({})
    for work in run.work:
        widths = accumulator_bits(work.graph)
        for name, arrived in work.arrivals.items():
            node = work.graph.by_name[name]
            count = float((arrived.double() * fan_out(work.graph, node)).sum())
            weight = weight_of(node)
            tensor = None if weight is None else work.graph.tensors[weight]
            single = all(_single(network, work.graph, source) for source in node.inputs)
            multiplies = tensor is None or (not single and multiplied_by(tensor))
            counted = Operations(
                macs=count if multiplies else 0.0,
                accumulates=0.0 if multiplies else count,
                weight_bits=0.0 if tensor is None else count * bits_of_weights(tensor),
                accumulator_bits=2 * count * widths[name],
            )
            found += Ledger({layer_of(network.graph, name): counted})
    return found


def _single(network: SpikingNetwork, graph: Graph, name: str) -> bool:
    """Whether a value consists of spikes of size one, not of analog input, graded spikes, sums, products."""
    node = graph.by_name[name]
    if isinstance(node.op, ops.Input):
        analog = name in network.graph.by_name and not isinstance(network.encoding, Spikes)
        return not analog and network.spike.largest == 1
    if isinstance(node.op, (ops.Concat, *ops.REARRANGING)):
        return all(_single(network, graph, source) for source in node.inputs)
    return isinstance(node.op, ops.EMITTING) and network.spike.largest == 1


def _updates(network: SpikingNetwork, run: Run) -> Ledger:
    """Every neuron in every step of the element in which it runs."""
    graph = network.graph
    bounds, known, rounds = accumulator_bounds(graph), spans(graph), schedule(graph).rounds
    steps = run.element_steps.clamp(min=1).sum(1)
    found = {}
    for node in graph.neurons:
        each = math.prod(node.shape) // count_of(node)
        updates = each * int(sum(int(steps[now]) for now in rounds[node.name]))
        bits = _type_bits(bounds[node.name]) + bits_of(known[node.name])
        found[node.name] = Operations(updates=updates, state_bits=2.0 * updates * bits)
    return Ledger(found)


def _emitted(network: SpikingNetwork, run: Run, samples: int) -> Ledger:
    """Spikes and events, and the analog numbers that enter."""
    graph = network.graph
    size = 1 + network.spike.largest.bit_length()
    found = {}
    for name, spikes in run.layer_spikes.items():
        node = graph.by_name[layer_of(graph, name)]
        address = max(1, (math.prod(node.shape) // count_of(node) - 1).bit_length())
        events = float(run.layer_events[name].sum())
        found[name] = Operations(
            spikes=float(spikes.sum()), events=events, event_bits=events * (size + address)
        )
    if not isinstance(network.encoding, Spikes):
        known = spans(graph)
        for node in graph.inputs:
            moved = samples * math.prod(node.shape) * bits_of(known[node.name])
            found[node.name] = Operations(activation_bits=moved)
    return Ledger(found)


def layer_of(graph: Graph, name: str) -> str:
    """The layer that a name of one of its cells belongs to: "conv.3" and "conv.handover" to "conv"."""
    known, _, _ = name.rpartition(".")
    return name if name in graph.by_name or not known else layer_of(graph, known)


def accumulator_bits(graph: Graph) -> Mapping[str, int]:
    """By node of an integer graph, the proven width of the accumulators that it adds to."""
    bounds = accumulator_bounds(graph)
    found: dict[str, int] = {}
    for node in reversed(graph.body):
        readers = graph.consumers[node.name]
        found[node.name] = max((_reached(reader, bounds, found) for reader in readers), default=16)
    return found


def _reached(reader: Node, bounds: Mapping[str, int], found: Mapping[str, int]) -> int:
    if isinstance(reader.op, (*ops.EMITTING, ops.Readout)):
        return _type_bits(bounds[reader.name])
    return found.get(reader.name, 16)


def _type_bits(bound: int) -> int:
    """Of the proven integer type: 16, 32 or 64."""
    return int(torch.iinfo(getattr(torch, integer_type(bound))).bits)
