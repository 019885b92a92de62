"""The certificate of a recurrent network: what it counts, and that no wrong weight passes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from recurrent_graphs import KINDS, Floats, How, Window, quantised, samples
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Encoding, Spike, SpikingNetwork
from spikemorph.errors import DataError
from spikemorph.evaluate.encode import input_counts
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.run.handover import Delta, Fresh, Handover
from spikemorph.run.record import SpikeCounts
from spikemorph.run.reference import Reference
from spikemorph.run.schedule import schedule
from spikemorph.verify.certificate import recheck, verify

TWO = How(elements=8, layers=2, behind="last")


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("handover", [Fresh(), Delta()])
def test_a_certificate_counts_every_neuron_of_every_element(
    kind: tuple[Spike, Encoding], handover: Handover
) -> None:
    graph, x = quantised(TWO), samples(TWO, 5)
    net = convert(graph, Lossless(*kind))
    made = verify(net, graph, x, handover=handover)
    neurons = sum(math.prod(node.shape) for node in graph.neurons)
    assert neurons == 2 * 8 * 3
    assert (made.lossless, made.samples, made.neurons) == (True, 5, neurons)
    assert (made.neurons_compared, made.neurons_different) == (5 * neurons, 0)
    assert (made.elements, made.look_ahead) == (8, 0)
    assert made.handover == ("delta" if handover == Delta() else "fresh")
    run = Reference().run(net, input_counts(graph, x), steps=None, record=(SpikeCounts(),), handover=handover)
    handed = sum(int(each.sum()) for name, each in run.layer_spikes.items() if name.endswith(".handover"))
    assert made.handover_spikes == handed > 0
    assert (made.spikes, made.events) == (run.spikes, run.events)
    assert made.steps_max == int(run.element_steps.max()) <= made.steps_bound
    assert made.steps_mean == pytest.approx(float(run.element_steps.double().mean()))


def test_batches_change_nothing() -> None:
    graph, x = quantised(TWO), samples(TWO, 5)[0]
    net, lengths = convert(graph), torch.tensor([8, 3, 1, 5, 8])
    whole = verify(net, graph, x, handover=Delta(), lengths=lengths)
    assert whole.lossless
    assert verify(net, graph, [x[:2], x[2:]], handover=Delta(), lengths=lengths) == whole
    assert verify(net, graph, [x[:2], x[2:]], handover=Delta()).spikes != whole.spikes


LOOKING = {
    "none": (How(elements=8), 8, 0),
    "centred": (How(elements=8, front=(Window("conv", 3, padding=1),)), 8, 1),
    "wide": (How(elements=8, front=(Window("conv", 5, padding=2),)), 8, 2),
    "two layers": (How(elements=8, layers=2), 8, 0),
    "both ways": (How(elements=8, both=True), 8, 7),
    "two layers both ways": (How(elements=8, layers=2, both=True), 15, 7),
    "given state": (How(elements=8, state=True), 8, 0),
}


@pytest.mark.parametrize("name", LOOKING)
def test_how_far_a_network_looks_ahead(name: str) -> None:
    how, elements, ahead = LOOKING[name]
    timing = schedule(quantised(how))
    assert timing.elements == elements
    assert timing.look_ahead >= ahead if how.both else timing.look_ahead == ahead


def test_a_convolution_behind_a_recurrence_looks_ahead() -> None:
    torch.manual_seed(0)
    rnn, conv = nn.RNN(3, 4, batch_first=True), nn.Conv1d(4, 2, 9, padding=4)

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.conv = rnn, conv

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(self.rnn(x)[0].transpose(1, 2))
            return out

    x = torch.randn(16, 20, 3)
    graph = sm.quantise(sm.capture(Late().eval(), x[:3]), x, sm.Levels(activation=15))
    assert schedule(graph).look_ahead == 4
    changed = x.clone()
    changed[:, 11] += 3
    differs = (sm.evaluate(graph, x) != sm.evaluate(graph, changed)).any(1).any(0)
    assert int(differs.nonzero()[0]) == 11 - 4


def test_causal_padding_looks_nowhere() -> None:
    b = Floats(np.random.default_rng(0))
    x = b.add(ops.Pad((0, 0, 2, 0)), b.add(ops.Input(0), shape=(2, 8)))
    x = b.add(ops.Permute((1, 0)), b.conv(x, 3, Window("conv", 3)))
    h = b.direction(x, How(elements=8), 0, None)
    graph = Graph(Dialect.FLOAT, tuple(b.nodes), (h.name,), b.tensors)
    noise = torch.randn(8, 2, 8)
    integer = sm.quantise(graph, noise, sm.Levels(activation=3))
    made = verify(convert(integer), integer, noise)
    assert (made.lossless, made.elements, made.look_ahead) == (True, 8, 0)


def test_feed_forward_networks_have_no_hand_over() -> None:
    from graphs import two_layers

    made = verify(convert(two_layers()), two_layers(), torch.zeros(1, 2), handover=Delta())
    assert (made.handover, made.elements, made.look_ahead, made.handover_spikes) == ("none", 1, 0, 0)


@pytest.mark.parametrize("handover", [Fresh(), Delta()])
def test_a_certificate_is_rechecked_with_its_own_hand_over(handover: Handover) -> None:
    graph, x = quantised(TWO), samples(TWO, 3)
    net = convert(graph)
    made = verify(net, graph, x, handover=handover)
    again, wrong = recheck(made.to_json(), net, graph, x, engine=Reference())
    assert wrong == ()
    assert again.handover == made.handover
    fields = json.loads(made.to_json())
    for name in ("elements", "look_ahead", "handover_spikes"):
        forged = json.dumps({**fields, name: fields[name] + 1})
        _, wrong = recheck(forged, net, graph, x)
        assert [each.split(":")[0] for each in wrong] == [name]
    other = "fresh" if handover == Delta() else "delta"
    assert recheck(json.dumps({**fields, "handover": other}), net, graph, x)[1]


# ---------------------------------------------------------------- wrong networks
def altered(graph: Graph, name: str, place: int, by: int) -> SpikingNetwork:
    """The network of the graph with one number of a tensor changed."""
    tensor = graph.tensors[name].clone()
    flat = tensor.view(-1)
    flat[place % len(flat)] += by
    if name.endswith("breakpoints"):
        tensor = tensor.sort(-1).values
    other = graph.with_nodes(graph.nodes, tensors={**graph.tensors, name: tensor})
    return replace(convert(graph), graph=other)


@pytest.mark.parametrize("part", ["weight", "breakpoints", "bias"])
def test_structure_is_compared_down_to_the_numbers_of_a_cell(part: str) -> None:
    """A change that no data shows: one unit of numbers in the hundred thousands."""
    graph = quantised(TWO)
    node = graph.neurons[0]
    assert isinstance(node.op, ops.Recurrence)
    name = node.op.weight if part == "weight" else getattr(node.op.cell, part)
    found = verify(altered(graph, name, 0, 1), graph, samples(TWO, 1)).structural_differences
    assert [each.layer for each in found] == [node.name]
    assert part in found[0].part


def by_loops(
    graph: Graph, net: SpikingNetwork, x: tuple[Tensor, ...]
) -> tuple[int, str, int, int, int] | None:
    """(element, layer, sample, qnn, snn) of the earliest element, then the first layer, sample, neuron."""
    right, wrong = (
        Reference().run(each, input_counts(graph, x), steps=None, record=(SpikeCounts(),))
        for each in (convert(graph), net)
    )
    assert right.counts is not None
    assert wrong.counts is not None
    rounds, found = schedule(graph).rounds, []
    for order, node in enumerate(graph.neurons):
        pairs = zip(right.counts[node.name].tolist(), wrong.counts[node.name].tolist(), strict=True)
        for sample, (qnn, snn) in enumerate(pairs):
            for n, (wanted, got) in enumerate(zip(qnn, snn, strict=True)):
                for a, b in zip(wanted, got, strict=True):
                    if a != b:
                        found.append((rounds[node.name][n], order, sample, a, b))
    if not found:
        return None
    element, order, sample, qnn, snn = min(found, key=lambda each: each[:3])
    return element, graph.neurons[order].name, sample, qnn, snn


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**4),
    layer=st.integers(0, 1),
    part=st.sampled_from(["weight", "breakpoints"]),
    place=st.integers(0, 99),
    by=st.sampled_from([-400, -30, 30, 400]),
    both=st.booleans(),
    handover=st.sampled_from([Fresh(), Delta()]),
)
def test_one_wrong_number_is_caught_where_and_when_it_first_shows(
    seed: int, layer: int, part: str, place: int, by: int, both: bool, handover: Handover
) -> None:
    how = How(elements=6, layers=2, both=both)
    graph, x = quantised(how, seed), samples(how, 4, seed)
    node = graph.neurons[layer]
    assert isinstance(node.op, ops.Recurrence)
    assert isinstance(node.op.cell, ops.Neuron)
    name = node.op.weight if part == "weight" else node.op.cell.breakpoints
    net = altered(graph, name, place, by)
    made = verify(net, graph, x, handover=handover)
    assert not made.lossless
    wanted, found = by_loops(graph, net, x), made.first_difference
    if wanted is None:
        assert found is None
        assert made.structural_differences
        return
    assert found is not None
    assert (found.element, found.layer, found.sample, found.qnn, found.snn) == wanted
    assert made.neurons_different > 0


def test_the_earliest_element_comes_before_the_first_layer() -> None:
    """Layer 1 goes wrong only late, layer 2 at once: layer 2 is named."""
    graph, x = quantised(TWO), samples(TWO, 4)
    first, second = graph.neurons
    assert isinstance(first.op, ops.Recurrence)
    assert isinstance(second.op, ops.Recurrence)
    assert isinstance(second.op.cell, ops.Neuron)
    tensors = {**graph.tensors, first.op.weight: -graph.tensors[first.op.weight]}
    tensors[second.op.cell.breakpoints] = tensors[second.op.cell.breakpoints] - 10**6
    net = replace(convert(graph), graph=graph.with_nodes(graph.nodes, tensors=tensors))
    found = verify(net, graph, x).first_difference
    assert found is not None
    assert (found.layer, found.element) == (second.name, 0)
    only = {**graph.tensors, first.op.weight: -graph.tensors[first.op.weight]}
    net = replace(convert(graph), graph=graph.with_nodes(graph.nodes, tensors=only))
    found = verify(net, graph, x).first_difference
    assert found is not None
    assert found.layer == first.name
    assert found.element >= 1, "the first element has no state before it"


def test_lengths_are_verified_too() -> None:
    graph, x = quantised(TWO), samples(TWO, 3)
    lengths = torch.tensor([8, 2, 5])
    made = verify(convert(graph), graph, x, lengths=lengths)
    assert made.lossless
    node = graph.neurons[0]
    assert isinstance(node.op, ops.Recurrence)
    assert isinstance(node.op.cell, ops.Neuron)
    wrong = verify(altered(graph, node.op.cell.breakpoints, 0, -(10**6)), graph, x, lengths=lengths)
    assert not wrong.lossless
    assert wrong.neurons_different > 0
    with pytest.raises(DataError):
        sm.verify(convert(graph), graph, x, lengths=torch.tensor([8, 2, 9]))


def test_a_certificate_with_lengths_says_so_and_is_rechecked_with_them() -> None:
    graph, (x,) = quantised(TWO), samples(TWO, 3)
    net, lengths = convert(graph), torch.tensor([8, 2, 5])
    made, whole = verify(net, graph, x, lengths=lengths), verify(net, graph, x)
    assert (len(made.lengths_hash), whole.lengths_hash) == (64, "")
    assert made.data_hash != whole.data_hash
    text = made.to_json()
    assert recheck(text, net, graph, x, lengths=lengths, engine=Reference())[1] == ()
    assert recheck(text, net, graph, x, lengths=lengths.tolist())[1] == ()  # type: ignore[arg-type]
    for other in (None, torch.tensor([8, 2, 4])):
        _, wrong = recheck(text, net, graph, x, lengths=other)
        assert "lengths_hash" in {each.split(":")[0] for each in wrong}
    older = {name: each for name, each in json.loads(whole.to_json()).items() if name != "lengths_hash"}
    assert recheck(json.dumps(older), net, graph, x)[1] == ()


def test_only_what_stands_in_front_of_the_ends_is_counted() -> None:
    how = How(elements=8, front=(Window("conv", 3, padding=1),), both=True, behind="linear")
    graph, (x,) = quantised(how), samples(how, 3)
    net, lengths = convert(graph), torch.tensor([8, 2, 5])
    made = verify(net, graph, x, lengths=lengths, handover=Delta())
    assert (made.neurons_compared, made.outputs_compared) == (15 * 3 * how.units, 15 * 2)
    assert made.spikes_per_neuron == pytest.approx(made.spikes / made.neurons_compared)
    run = Reference().run(
        net, input_counts(graph, x), steps=None, record=(), handover=Delta(), lengths=lengths
    )
    timing = schedule(graph).rounds
    steps = [
        int(run.element_steps[now, sample])
        for sample, length in enumerate(lengths.tolist())
        for now in sorted({rounds[n] for rounds in timing.values() for n in range(min(length, len(rounds)))})
    ]
    assert made.steps_mean == pytest.approx(sum(steps) / len(steps))
    behind = x.clone()
    behind[1, :, 2:], behind[2, :, 5:] = torch.nan, 1e9
    assert verify(net, graph, behind, lengths=lengths, handover=Delta()) == made
    assert verify(net, graph, x.where(torch.isfinite(behind), 1e9)).saturated_samples > made.saturated_samples


def test_a_wrong_neuron_of_one_single_element_is_found_with_lengths_too() -> None:
    how = How(elements=1)
    graph, x = quantised(how), samples(how, 4)
    node = graph.neurons[0]
    assert isinstance(node.op, ops.Recurrence)
    assert isinstance(node.op.cell, ops.Neuron)
    net, lengths = altered(graph, node.op.cell.breakpoints, 0, -(10**6)), torch.ones(4, dtype=torch.int64)
    assert verify(net, graph, x, lengths=lengths).first_difference == verify(net, graph, x).first_difference
