"""Errors by layer: nothing where nothing is wrong, and the culprit where something is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Binary
from spikemorph.convert.rate import Rate
from spikemorph.errors import GraphError, UsageError
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir.graph import Graph
from spikemorph.levels import Levels, Max, Override, Percentile, PerChannel
from spikemorph.measure.beside import lay_beside
from spikemorph.measure.layers import LayerErrors, layer_errors
from spikemorph.passes.plan import sources_of_outputs
from test_quantise import FINE, drawn
from test_rates import case

torch.set_num_threads(1)


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.third = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.third(self.second(self.first(x))).flatten(1))


def chain() -> tuple[Graph, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(40, 1, 8, 8)
    return sm.capture(Chain().eval(), x[:2]), x


def diagnosed(levels: Levels, steps: int | None = None, scale: float = 1, most: float = 0.3) -> LayerErrors:
    graph, x = chain()
    network = sm.convert(sm.quantise(graph, x, levels))
    return layer_errors(network, x[:12] * scale, graph, steps=steps, threshold=most)


# ---------------------------------------------------------------- nothing wrong
class Exact(nn.Module):
    """Whole weights, inputs of 0..15, activations of 0..255: nothing is rounded anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]]) * 127.0)
            self.b.weight.copy_(torch.tensor([[1, -1, 0, 1], [0, 1, 1, 0]]) * 127.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def test_an_exact_network_has_no_error() -> None:
    x = torch.tensor([[255.0, 0, 3], [1, 255, 2], [128, 64, 255], [7, 7, 7]])
    graph = sm.capture(Exact().eval(), x[:2])
    levels = Levels(activation=255, observer=Max(), weight_observer=Max())
    made = layer_errors(sm.convert(sm.quantise(graph, x, levels)), x, graph)
    assert [layer.kind for layer in made.layers] == ["input", "neuron", "output"]
    for layer in made.layers:
        assert layer.error == layer.added == layer.quantisation == layer.unsettled == layer.clipped == 0
        assert layer.cosine == pytest.approx(1)
    assert made.layers[1].silent == made.layers[1].silent_float == 0.25  # -x is never above zero
    assert made.first_broken is None
    assert made.samples == 4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**5), st.sampled_from([FINE, Levels(3), Levels(granularity=PerChannel())]))
def test_the_float_network_in_the_shape_of_the_integer_one_is_itself(seed: int, levels: Levels) -> None:
    """With the float activations handed on, every layer is the float network's own."""
    graph, x = drawn(seed)
    integer = sm.quantise(graph, x, levels)
    beside = lay_beside(graph, integer)
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        beside.walk(x, seen.setdefault)
    wanted = evaluate_float(graph, x)
    for name, readout in zip(sources_of_outputs(graph), sources_of_outputs(integer), strict=True):
        scale = wanted[name].abs().max().clamp(min=1e-6)
        assert float(((seen[readout] - wanted[name]).abs() / scale).max()) < 1e-3
    assert set(seen) >= {node.name for node in integer.neurons}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**5))
@example(seed=120)  # one layer is zero but for what floats leave of it
def test_at_rest_nothing_is_unsettled_and_fine_grids_add_little(seed: int) -> None:
    graph, x = drawn(seed)
    network = sm.convert(sm.quantise(graph, x, FINE))
    made = layer_errors(network, x, graph)
    for layer in made.layers:
        assert layer.unsettled == 0
        assert layer.error == pytest.approx(layer.quantisation)
        assert layer.added == pytest.approx(layer.quantisation_added)
        assert layer.added is not None
        assert layer.added < 0.08 or layer.silent_float == 1, layer  # nothing is left of x - x


# ---------------------------------------------------------------- the culprit is found
def test_a_layer_of_one_level_breaks_first() -> None:
    made = diagnosed(Levels(activation=63, overrides={"third": Override(activation=1)}))
    broken = made.first_broken
    assert broken is not None
    assert broken.origin.startswith("third")
    assert "more levels or weight bits" in made.verdict
    others = [layer.added for layer in made.layers if layer is not broken]
    assert max(each for each in others if each is not None) < 0.1
    # The head is as wrong as what it was given, and adds nothing.
    head = made.layers[-1]
    assert head.error is not None
    assert head.error > 0.1
    assert head.added is not None
    assert head.added < 0.02


def test_weights_of_two_bits_are_blamed_on_their_own_layer() -> None:
    coarse = Levels(activation=255, overrides={"second": Override(activation=255, weight_bits=2)})
    made = diagnosed(coarse, most=0.1)
    assert made.first_broken is not None
    assert made.first_broken.origin.startswith("second")
    assert made.threshold == 0.1


def test_too_few_steps_are_told_from_too_few_levels() -> None:
    made = diagnosed(Levels(activation=63), steps=5)
    assert made.first_broken is not None
    assert "not settled; run more steps" in made.verdict
    assert made.first_broken.unsettled > 0.3
    assert diagnosed(Levels(activation=63)).first_broken is None


def test_data_of_another_range_breaks_the_input() -> None:
    made = diagnosed(Levels(activation=63), scale=4.0)
    assert made.first_broken is made.layers[0]
    assert "clipped" in made.verdict
    assert made.layers[0].clipped is not None
    assert made.layers[0].clipped > 0.5


def test_pools_add_nothing_and_clipped_counts_are_those_beyond_the_range() -> None:
    made = diagnosed(Levels(activation=15, observer=Max()))
    (pool,) = (layer for layer in made.layers if layer.kind == "pool")
    assert pool.added == 0
    assert pool.error is not None
    assert pool.error > 0
    assert all(layer.clipped == 0 for layer in made.layers)  # the largest value is at the end, not beyond


def test_without_a_float_network_the_qnn_is_what_is_left() -> None:
    graph, x = chain()
    network = sm.convert(sm.quantise(graph, x, Levels(activation=63)))
    made = layer_errors(network, x[:6], steps=5)
    assert made.first_broken is not None
    assert "away from rest; run more steps" in made.verdict
    assert {layer.error for layer in made.layers} == {None}
    assert "farthest from rest, by 0.00" in layer_errors(network, x[:6]).verdict
    # Not even units are needed.
    bare = replace(network, graph=replace(network.graph, units={}))
    assert layer_errors(bare, x[:6], steps=5).first_broken is not None


def test_sequences_are_diagnosed_too() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(3, 6, nonlinearity="relu", batch_first=True)
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(1)
    x = torch.rand(10, 7, 3)
    graph = sm.capture(Reader().eval(), x[:2])
    network = sm.convert(sm.quantise(graph, x, Levels(activation=31)))
    made = layer_errors(network, x, graph)
    assert made.first_broken is None
    assert all(layer.unsettled == 0 for layer in made.layers)
    assert layer_errors(network, x, graph, steps=1).first_broken is not None


def test_batches_do_not_matter() -> None:
    graph, x = chain()
    network = sm.convert(sm.quantise(graph, x, Levels(activation=7)))
    whole = layer_errors(network, x[:6], graph, steps=4).to_dict()
    parts = layer_errors(network, [x[:2], x[2:5], x[5:6]], graph, steps=4).to_dict()
    assert parts["samples"] == whole["samples"] == 6
    for one, other in zip(whole["layers"], parts["layers"], strict=True):
        words = {"name", "kind", "origin"}
        assert [one[key] for key in sorted(words)] == [other[key] for key in sorted(words)]
        for key in one.keys() - words:
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-5), key
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole


# ---------------------------------------------------------------- bad input
def test_another_float_network_is_refused() -> None:
    graph, x = chain()
    network = sm.convert(sm.quantise(graph, x, Levels()))
    with pytest.raises(GraphError, match="no such layer in the float network") as met:
        layer_errors(network, x[:2], sm.capture(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval(), x[:2]))
    assert "converted from" in met.value.do
    with pytest.raises(GraphError, match="dialect integer"):
        layer_errors(network, x[:2], network.graph)


def test_files_without_units_say_so() -> None:
    graph, x = chain()
    network = sm.convert(sm.quantise(graph, x, Levels()))
    bare = replace(network, graph=replace(network.graph, units={}))
    with pytest.raises(GraphError, match="what one of its counts stands for is not known") as met:
        layer_errors(bare, x[:2], graph)
    assert "convert the model again" in met.value.do


def test_a_threshold_is_above_zero() -> None:
    graph, x = chain()
    network = sm.convert(sm.quantise(graph, x, Levels()))
    with pytest.raises(UsageError, match="threshold"):
        layer_errors(network, x[:2], graph, threshold=0)


def test_every_identity_neuron_has_its_float_twin() -> None:
    """Linear after linear at many levels needs an identity neuron; what it adds is its own rounding."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(9, 40), nn.Linear(40, 40), nn.Linear(40, 3)).eval()
    x = torch.randn(30, 9)
    graph = sm.capture(model, x[:2])
    made = layer_errors(sm.convert(sm.quantise(graph, x, Levels(activation=255, identity=7))), x, graph)
    found = [layer for layer in made.layers if layer.kind == "identity"]
    assert found
    for layer in found:
        assert layer.added is not None
        assert 0.02 < layer.added < 0.3
    # What stands behind one is judged by what it was given, the rounded value.
    assert made.layers[-1].added is not None
    assert made.layers[-1].added < 0.01


@pytest.mark.parametrize("model", [nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), nn.AvgPool2d(2)])
def test_behind_an_identity_neuron_and_an_affine_map_nothing_is_added(model: nn.Module) -> None:
    """Batch norm behind a pool of sums has no node in the integer graph."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
            self.inner, self.norm = model, nn.BatchNorm2d(4)
            self.out = nn.Conv2d(4, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(self.inner(self.a(x) + self.b(self.a(x)))))

    torch.manual_seed(3)
    net = Net().eval()
    net.norm.running_mean += 0.5
    x = torch.randn(20, 1, 8, 8)
    graph = sm.capture(net, x[:2])
    made = layer_errors(sm.convert(sm.quantise(graph, x, Levels(activation=255, identity=7))), x, graph)
    assert "identity" in {layer.kind for layer in made.layers}
    assert made.layers[-1].added is not None
    assert made.layers[-1].added < 0.01


# ---------------------------------------------------------------- rates
@pytest.mark.parametrize("spike", [sm.Ternary(), sm.Graded(3)])
def test_rates_come_closer_with_steps_layer_by_layer(spike: sm.Ternary | sm.Graded) -> None:
    _, graph, x = case()
    network = convert(graph, Rate(Max(), spike=spike), x)
    few, many = (layer_errors(network, x[:8], graph, steps=steps) for steps in (1, 256))
    assert {layer.quantisation for layer in many.layers} == {None}
    assert {layer.unsettled for layer in many.layers} == {None}
    kinds = [layer.kind for layer in many.layers]
    assert {"input", "neuron", "pool", "identity", "output"} == set(kinds)
    for before, after in zip(few.layers, many.layers, strict=True):
        assert after.error is not None
        assert before.error is not None
        assert after.error < 0.05
        assert after.kind == "input" or before.error > after.error
        assert after.added is not None
        assert after.added < 0.03
    assert few.first_broken is not None
    assert few.verdict.endswith("run more steps")


def test_rates_above_one_spike_a_step_are_clipped() -> None:
    _, graph, x = case()
    network = convert(graph, Rate(Percentile(50), spike=Binary()), x)
    made = layer_errors(network, x[:8], graph, steps=64)
    assert made.first_broken is not None
    assert made.first_broken.clipped is not None
    assert made.first_broken.clipped > 0.02
    assert "clipped" in made.verdict


def test_rates_need_steps_and_the_float_network() -> None:
    _, graph, x = case()
    network = convert(graph, Rate(), x)
    with pytest.raises(UsageError, match="a rate network without steps"):
        layer_errors(network, x[:2], graph)
    with pytest.raises(UsageError, match="without its float network"):
        layer_errors(network, x[:2], steps=8)
