"""One small exact test for each break that random graphs and whole networks notice late or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphs import Builder, network, pooled, product, two_layers
from spikemorph.convert.files import load, save
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import convert
from spikemorph.convert.network import (
    Analog,
    Encoding,
    Graded,
    Spike,
    Spikes,
    SpikingNetwork,
    Ternary,
    Window,
)
from spikemorph.errors import LevelsError
from spikemorph.evaluate import intervals
from spikemorph.evaluate.encode import input_counts, saturated
from spikemorph.evaluate.integers import evaluate, evaluate_counts
from spikemorph.evaluate.intervals import Span, accumulator_bounds, spans
from spikemorph.ir import functions, ops
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.shapes import infer
from spikemorph.ir.store import graph_hash
from spikemorph.passes.levels import Levels, Max, count_range
from spikemorph.passes.lower import rational
from spikemorph.passes.rewire import flatten_adds, pools_behind_activations
from spikemorph.quantise import freeze, quantise, trainable
from spikemorph.quantise.cells import round_through
from spikemorph.quantise.inputs import PIXEL, input_grid
from spikemorph.run.dense import Dense
from spikemorph.run.record import Everything
from spikemorph.run.reference import Reference
from spikemorph.run.result import Run
from spikemorph.verify.bounds import integer_type, steps_bound
from spikemorph.verify.certificate import network_hash, verify

LEVELS = Levels(255, observer=Max(), weight_observer=Max())


def node(name: str, op: ops.Op, inputs: str, *shape: int) -> Node:
    return Node(name, op, tuple(inputs.split()), shape)


def float_graph(*nodes: Node, **tensors: Tensor) -> Graph:
    """The last node is the output."""
    return Graph(Dialect.FLOAT, nodes, (nodes[-1].name,), tensors)


def x_of(*shape: int) -> Node:
    return node("x", ops.Input(0), "", *shape)


def per_channel(*numbers: float) -> Tensor:
    return torch.tensor(numbers).reshape(-1, 1, 1)


def whole_numbers(batch: int, *shape: int) -> Tensor:
    """0..255, which the input grid holds exactly."""
    return torch.randint(0, 256, (batch, *shape), generator=torch.Generator().manual_seed(0)).float()


def assert_like_float(graph: Graph, x: Tensor, within: float) -> Graph:
    """The integer graph, whose outputs are the float graph's up to a part of their largest magnitude."""
    integer = quantise(graph, x, LEVELS)
    wanted = evaluate(graph, x)
    assert float((evaluate(integer, x) - wanted).abs().max()) <= within * float(wanted.abs().max())
    return integer


# ---------------------------------------------------------------- ir
def test_windows_of_max_pools_are_counted_as_torch_does() -> None:
    """Where a last window may reach beyond the end, it starts inside the input or its left padding."""
    for size, kernel, stride in itertools.product(range(4, 9), range(2, 5), range(1, 5)):
        for padding in range(kernel // 2 + 1):
            op = ops.MaxPool((kernel,), (stride,), (padding,), (1,), ceil=True)
            made = F.max_pool1d(torch.zeros(1, size), kernel, stride, padding, ceil_mode=True)
            assert infer(op, ((1, size),), {}) == tuple(made.shape), op


# ---------------------------------------------------------------- evaluate
def test_inputs_round_half_up_and_are_clipped() -> None:
    b = Builder()
    graph = b.graph(b.readout(b.input(0, (1,), -3, 3)))
    x = torch.tensor([-2.0, -0.75, -0.25, 0.25, 0.75, 9.0]).unsqueeze(1)  # halves of the unit 0.5
    assert input_counts(graph, x)[0].flatten().tolist() == [-3, -1, 0, 1, 2, 3]
    assert saturated(graph, x).tolist() == [True, False, False, False, False, True]


def test_a_readout_is_scaled_then_moved() -> None:
    b = Builder()
    graph = b.graph(b.readout(b.input(0, (2,), -3, 3), [0.25, 0.5], bias=[1, 0], offset=[10.0, 0.0]))
    assert evaluate(graph, torch.tensor([[1.0, -0.5]])).tolist() == [[10.75, -0.5]]


def test_spans_of_a_known_network() -> None:
    """Negative weights and signs swap the ends; the count of a neuron of 1..3 starts at 0."""
    b = Builder()
    total = b.linear(b.input(0, (2,), -3, 2), [[2, -1]])
    count = b.neuron(total, 1, 3, [0, 2])
    graph = b.graph(b.readout(b.add(ops.Add((1, -1)), total, count, bound=14), bias=[4]))
    assert spans(graph) == {
        "input0": Span(-3, 2, 5),
        "linear1": Span(-8, 7, 15),
        "neuron2": Span(0, 3, 3, sum=8),
        "add3": Span(-11, 7, 18),
        "readout4": Span(-11, 11, 22, sum=11),
    }


def test_spans_are_over_all_numbers_of_a_value() -> None:
    b = Builder()
    graph = b.graph(b.readout(b.linear(b.input(0, (2,), -3, 2), [[2, -1], [0, 3]]), [1.0, 1.0]))
    assert spans(graph)["linear1"] == Span(-9, 7, 15)
    assert spans(graph)["linear1"].size == 9


def test_spans_are_found_once_and_die_with_their_graph() -> None:
    graph = two_layers()
    assert spans(graph) is spans(graph)
    key = id(graph)
    assert key in intervals._KNOWN
    del graph
    assert key not in intervals._KNOWN


def test_bounds_and_types_of_a_known_network() -> None:
    graph = two_layers()
    assert accumulator_bounds(graph) == {"neuron2": 9, "neuron4": 8, "readout6": 8}
    bounds = [steps_bound(network(graph, s, e)) for s in (Ternary(), Graded(3)) for e in (Analog(), Spikes())]
    assert bounds == [4, 10, 2, 4]
    assert [integer_type(2**15 + i) for i in (-1, 0)] == ["int16", "int32"]
    assert [integer_type(2**31 + i) for i in (-1, 0)] == ["int32", "int64"]


# ---------------------------------------------------------------- passes
def test_rows_of_averages_sum_exactly() -> None:
    """No small denominator serves sevenths, elevenths, thirteenths and seventeenths alike."""
    rows = torch.tensor([[1 / n] * n + [0.0] * (17 - n) for n in (7, 11, 13, 17)], dtype=torch.float64)
    integers, denominator = rational(rows)
    assert integers.sum(1).tolist() == [denominator] * 4
    assert float((integers / denominator - rows).abs().max()) < 4 / denominator
    thirds, three = rational(torch.full((1, 3), 1 / 3).double())
    assert (thirds.tolist(), three) == ([[1, 1, 1]], 3)


@pytest.mark.parametrize(("function", "reads"), [(functions.Relu(), "act"), (functions.Abs(), "x")])
def test_a_pool_stays_in_front_of_a_falling_activation(function: functions.Function, reads: str) -> None:
    pool = node("pool", ops.MaxPool((2,), (2,), (0,), (1,)), "x", 1, 2)
    graph = float_graph(x_of(1, 4), pool, node("act", ops.Elementwise(function), "pool", 1, 2))
    assert pools_behind_activations(graph).by_name["pool"].inputs == (reads,)


def test_flat_sums_keep_every_sign() -> None:
    """x - (y - z) is x - y + z."""
    y, z = node("y", ops.Input(1), "", 2), node("z", ops.Input(2), "", 2)
    inner = node("inner", ops.Add((1, -1)), "y z", 2)
    graph = float_graph(x_of(2), y, z, inner, node("sum", ops.Add((1, -1)), "x inner", 2))
    flat = flatten_adds(graph).by_name["sum"]
    assert (flat.op, flat.inputs) == (ops.Add((1, -1, 1)), ("x", "y", "z"))


def test_a_value_that_others_read_is_not_fused_away() -> None:
    first = node("first", ops.Elementwise(functions.Relu()), "x", 2)
    second = node("second", ops.Elementwise(functions.Tanh()), "first", 2)
    graph = float_graph(x_of(2), first, second, node("both", ops.Add((1, 1)), "first second", 2))
    assert_like_float(graph, whole_numbers(16, 2), 0.02)


def test_ranges_of_counts() -> None:
    assert [count_range(p, signed=True) for p in (1, 3, 4, 15)] == [(-1, 1), (-2, 2), (-2, 2), (-8, 8)]
    assert [count_range(p, signed=False) for p in (1, 15)] == [(0, 1), (0, 15)]


@pytest.mark.parametrize("moved", [ops.Affine("gain", None), ops.Pad((0, 0, 0, 1, 0, 1), 200.0)])
def test_a_pool_takes_positive_units_without_offset(moved: ops.Op) -> None:
    """The largest count has the largest value only where units are positive and there is no constant."""
    size = 3 if isinstance(moved, ops.Pad) else 2
    graph = float_graph(
        x_of(2, 2, 2),
        node("moved", moved, "x", 2, size, size),
        node("pool", ops.MaxPool((2, 2), (1, 1), (0, 0), (1, 1)), "moved", 2, size - 1, size - 1),
        gain=per_channel(-1.0, 1.0),
    )
    assert_like_float(graph, whole_numbers(16, 2, 2, 2), 0.08)


# ---------------------------------------------------------------- quantise
def test_an_image_without_white_keeps_the_grid_of_its_pixels() -> None:
    assert input_grid(torch.tensor([0.0, 100.0, 200.0]) / 255, 8) == (PIXEL, 0, 255)


def test_rounding_goes_up_at_one_half_and_passes_gradients() -> None:
    x = torch.tensor([-1.5, -0.5, 0.45, 0.5, 1.45, 2.5], requires_grad=True)
    assert round_through(x).tolist() == [-1, 0, 0, 1, 1, 3]
    round_through(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1] * 6


def test_an_offset_in_front_of_padding_depends_on_the_position() -> None:
    graph = float_graph(
        x_of(1, 3, 3),
        node("moved", ops.Affine(None, "offset"), "x", 1, 3, 3),
        node("conv", ops.Conv("w", None, (1, 1), (1, 1), (1, 1)), "moved", 1, 3, 3),
        offset=per_channel(200.0),
        w=torch.ones(1, 1, 3, 3),
    )
    assert_like_float(graph, whole_numbers(8, 1, 3, 3), 1e-4)


def test_a_gain_multiplies_the_offset_in_front_of_it() -> None:
    graph = float_graph(
        x_of(2),
        node("moved", ops.Affine(None, "offset"), "x", 2),
        node("scaled", ops.Affine("gain", None), "moved", 2),
        offset=torch.tensor([20.0, -3.5]),
        gain=torch.tensor([3.0, -7.0]),
    )
    assert_like_float(graph, whole_numbers(8, 2), 1e-5)


def test_channels_of_gain_zero_stay_constant() -> None:
    graph = float_graph(
        x_of(2, 2, 2),
        node("flat", ops.Affine("gain", "offset"), "x", 2, 2, 2),
        node("conv", ops.Conv("w", None, (1, 1), (0, 0), (1, 1)), "flat", 1, 2, 2),
        gain=per_channel(0.0, 0.0),
        offset=per_channel(1.0, -3.0),
        w=torch.tensor([2.0, 0.25]).reshape(1, 2, 1, 1),
    )
    assert_like_float(graph, whole_numbers(8, 2, 2, 2), 1e-5)


def test_a_sum_of_branches_of_gain_zero_is_zero() -> None:
    graph = float_graph(
        x_of(2),
        node("a", ops.Affine("ga", None), "x", 2),
        node("b", ops.Affine("gb", None), "x", 2),
        node("sum", ops.Add((1, 1)), "a b", 2),
        ga=torch.tensor([0.0, 1.0]),
        gb=torch.tensor([0.0, 2.0]),
    )
    assert_like_float(graph, whole_numbers(8, 2), 1e-5)


def test_branches_of_one_unit_keep_their_signs() -> None:
    other = node("other", ops.Permute((1, 0)), "x", 2, 2)
    graph = float_graph(x_of(2, 2), other, node("sum", ops.Add((1, -1)), "x other", 2, 2))
    integer = assert_like_float(graph, whole_numbers(8, 2, 2), 0.0)
    assert integer.by_name["sum"].op == ops.Add((1, -1))


def test_factors_of_a_sum_are_rounded_within_half_a_unit() -> None:
    graph = float_graph(
        x_of(2),
        node("small", ops.Affine("gain", None), "x", 2),
        node("sum", ops.Add((1, -1)), "x small", 2),
        gain=torch.tensor(0.3),
    )
    integer = assert_like_float(graph, whole_numbers(8, 2), 0.005)
    scales = [each.op.factor for each in integer.nodes if isinstance(each.op, ops.Scale)]
    factors = [abs(int(integer.tensors[name])) for name in scales]
    assert factors == [427, 128]  # 128 / 0.3 is 426.67


def test_a_bias_on_a_tiny_unit_stays_in_int32() -> None:
    graph = float_graph(
        x_of(2, 2, 2),
        node("flat", ops.Affine("gain", "offset"), "x", 2, 2, 2),
        node("act", ops.Elementwise(functions.Relu()), "flat", 2, 2, 2),
        gain=per_channel(1e-12, 1.0),
        offset=per_channel(100.0, 1.0),
    )
    integer = assert_like_float(graph, whole_numbers(8, 2, 2, 2), 0.01)
    assert max(accumulator_bounds(integer).values()) < 2**30


@pytest.mark.parametrize("transposed", [False, True])
def test_grouped_convolutions_take_in_the_units_of_their_own_group(transposed: bool) -> None:
    """Four input channels of units 1, 4, 16, 64 in two groups, six output channels."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand((4, 3, 2, 2) if transposed else (6, 2, 2, 2), generator=generator) - 0.5
    conv = ops.Conv("w", None, (1, 1), (0, 0), (1, 1), 2, transposed)
    size = 4 if transposed else 2
    graph = float_graph(
        x_of(4, 3, 3),
        node("scaled", ops.Affine("gain", None), "x", 4, 3, 3),
        node("conv", conv, "scaled", 6, size, size),
        gain=per_channel(1.0, 4.0, 16.0, 64.0),
        w=weight,
    )
    assert_like_float(graph, whole_numbers(8, 4, 3, 3), 0.01)


def test_the_trainable_twin_has_the_integer_graphs_biases() -> None:
    graph = float_graph(
        x_of(2),
        node("moved", ops.Affine("gain", "offset"), "x", 2),
        node("act", ops.Elementwise(functions.Relu()), "moved", 2),
        gain=torch.tensor([1.0, -2.0]),
        offset=torch.tensor([100.0, 300.25]),
    )
    x = whole_numbers(8, 2)
    twin = trainable(graph, LEVELS, x)
    rest = evaluate_counts(freeze(twin), input_counts(freeze(twin), x))
    values, _ = twin.integers(x)
    assert torch.equal(values["act"].double(), rest["act"])
    assert int(rest["act"].max()) == 255


def test_sums_beyond_int32_are_refused() -> None:
    """300 weights of 127 on 16-bit inputs."""
    graph = float_graph(x_of(300), node("fc", ops.Linear("w", None), "x", 1), w=torch.ones(1, 300))
    with pytest.raises(LevelsError, match="accumulators are int32") as caught:
        quantise(graph, whole_numbers(4, 300) / 7, replace(LEVELS, input=Analog(16)))
    assert "'fc'" in caught.value.where


# ---------------------------------------------------------------- convert
def test_a_network_is_a_copy_with_the_asked_for_spikes() -> None:
    graph = two_layers()
    made = convert(graph, Lossless(Graded(3), Spikes()))
    assert (made.spike, made.encoding, made.source) == (Graded(3), Spikes(), graph_hash(graph))
    for tensor in graph.tensors.values():
        tensor += 1
    assert graph_hash(made.graph) == made.source


@pytest.mark.parametrize("spike", [Ternary(), Graded(3)])
@pytest.mark.parametrize("encoding", [Analog(4), Spikes()])
def test_files_keep_spikes_encoding_and_source(tmp_path: Path, spike: Spike, encoding: Encoding) -> None:
    made = convert(two_layers(), Lossless(spike, encoding))
    save(made, tmp_path / "net")
    found = load(tmp_path / "net")
    assert isinstance(found, SpikingNetwork)
    assert (found.spike, found.encoding, found.source) == (spike, encoding, made.source)
    assert network_hash(found) == network_hash(made)


# ---------------------------------------------------------------- run
@pytest.mark.parametrize("make", [two_layers, product, pooled])
@pytest.mark.parametrize("spike", [Ternary(), Graded(2)])
@pytest.mark.parametrize("encoding", [Analog(), Spikes()])
def test_dense_follows_the_oracle_for_a_fixed_number_of_steps(
    make: Callable[[], Graph], spike: Spike, encoding: Encoding
) -> None:
    """A fixed number, so that a run that would never settle ends as well."""
    made = network(make(), spike, encoding)
    generator = torch.Generator().manual_seed(3)
    shapes = [each.shape for each in made.graph.inputs]
    counts = tuple(torch.randint(-3, 4, (6, *shape), generator=generator) for shape in shapes)
    for steps in (1, 2, 3, 8):
        dense, oracle = (
            engine.run(made, counts, steps=steps, record=(Everything(),)) for engine in (Dense(), Reference())
        )
        assert dense.steps == steps
        assert torch.equal(dense.settled, oracle.settled)
        for part in ("raw", "counts", "trace"):
            for name, wanted in getattr(oracle, part).items():
                assert torch.equal(getattr(dense, part)[name], wanted), (steps, part, name)


# ---------------------------------------------------------------- verify
@dataclass(frozen=True)
class Lying:
    """The dense engine, whose report is changed afterwards."""

    change: Callable[[Run], Run]

    def run(self, network, counts, **asked) -> Run:
        return self.change(Dense().run(network, counts, **asked))


def one_count(run: Run) -> Run:
    assert run.counts is not None
    return replace(run, counts={name: each + (name == "neuron2") for name, each in run.counts.items()})


LIES: dict[str, Callable[[Run], Run]] = {
    "nothing": lambda run: run,
    "counts": one_count,
    "outputs": lambda run: replace(run, raw={name: each + 1 for name, each in run.raw.items()}),
    "settled": lambda run: replace(run, element_settled=torch.zeros_like(run.element_settled)),
}


@pytest.mark.parametrize("lie", LIES)
def test_every_check_alone_decides_the_verdict(lie: str) -> None:
    graph, x = two_layers(), torch.tensor([[1.0, 0.5], [0.0, -1.0]])
    certificate = verify(convert(graph), graph, x, engine=Lying(LIES[lie]))
    assert certificate.lossless == (lie == "nothing")
    found = certificate.neurons_different, certificate.outputs_different, certificate.unsettled_samples
    assert tuple(map(bool, found)) == (lie == "counts", lie == "outputs", lie == "settled")
    assert certificate.structural_differences == ()


def test_one_number_that_no_data_shows_decides_the_verdict() -> None:
    graph = two_layers()
    made = convert(graph)
    (scale,) = (each.op.scale for each in graph.readouts if isinstance(each.op, ops.Readout))
    tensors = {**made.graph.tensors, scale: torch.tensor(0.5).double()}
    other = made.graph.with_nodes(made.graph.nodes, tensors=tensors)
    certificate = verify(replace(made, graph=other), graph, torch.tensor([[1.0, 0.5]]))
    assert (certificate.neurons_different, certificate.outputs_different) == (0, 0)
    assert [each.part for each in certificate.structural_differences] == ["scale[]"]
    assert not certificate.lossless


def test_the_networks_hash_sees_all_that_decides_a_run() -> None:
    made = convert(two_layers())
    others = [
        *(replace(made, spike=Graded(largest)) for largest in (1, 2)),
        replace(made, encoding=Spikes()),
        replace(made, source="another"),
        replace(made, ramp=2),
        replace(made, ramp=3),
        convert(product()),
        *(replace(made, window=Window(start)) for start in (0, 1)),
    ]
    assert len({network_hash(each) for each in (made, *others)}) == 10
