"""Inferred shapes are those that torch makes, and what torch refuses is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ir_graphs import random_graphs
from spikemorph.errors import GraphError
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir import functions, ops
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.shapes import SHAPES, broadcast, infer

torch.set_num_threads(1)
few = st.integers(1, 4)
sizes = st.integers(1, 9)


def outcome(op, shape, tensors=None):
    """The inferred shape, None where the op is refused."""
    try:
        return infer(op, (shape,), tensors or {})
    except GraphError:
        return None


def of_torch(make):
    """The shape torch makes, without batch, None where it refuses."""
    try:
        made = make()
    except (RuntimeError, ValueError):
        return None
    # Torch returns nothing, instead of refusing, where a transposed convolution crops everything.
    return tuple(made.shape[1:]) if made.numel() else None


@st.composite
def per_axis(draw, n, values):
    return tuple(draw(values) for _ in range(n))


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from((1, 2)))
def test_max_pool(data, n):
    shape = data.draw(per_axis(n + 1, sizes))
    kernel, stride, dilation = (data.draw(per_axis(n, few)) for _ in range(3))
    padding, ceil = data.draw(per_axis(n, st.integers(0, 3))), data.draw(st.booleans())
    assume(all(d <= size or p == 0 for d, p, size in zip(dilation, padding, shape[1:], strict=True)))
    pool = F.max_pool1d if n == 1 else F.max_pool2d
    made = of_torch(lambda: pool(torch.zeros(1, *shape), kernel, stride, padding, dilation, ceil))
    assert outcome(ops.MaxPool(kernel, stride, padding, dilation, ceil), shape) == made
    if made is not None:
        assert pool(torch.zeros(1, *shape), kernel, stride, padding, dilation, ceil).isfinite().all()


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from((1, 2)))
def test_avg_pool(data, n):
    shape = data.draw(per_axis(n + 1, sizes))
    kernel, stride = (data.draw(per_axis(n, few)) for _ in range(2))
    padding, ceil = data.draw(per_axis(n, st.integers(0, 2))), data.draw(st.booleans())
    pool = F.avg_pool1d if n == 1 else F.avg_pool2d
    made = of_torch(lambda: pool(torch.zeros(1, *shape), kernel, stride, padding, ceil))
    assert outcome(ops.AvgPool(kernel, stride, padding, ceil), shape) == made


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from((1, 2)), st.booleans())
def test_conv(data, n, transposed):
    shape = data.draw(per_axis(n + 1, sizes))
    stride, dilation, kernel = (data.draw(per_axis(n, st.integers(1, 3))) for _ in range(3))
    padding, extra = (data.draw(per_axis(n, st.integers(0, 2))) for _ in range(2))
    groups = data.draw(st.integers(1, 3))
    bad = data.draw(st.sampled_from((0, 0, 0, 1)))  # one channel too many, now and then
    out = data.draw(st.integers(1, 6))
    first = (shape[0] + bad, out) if transposed else (out, max(shape[0] // groups, 1) + bad)
    weight = torch.zeros(*first, *kernel)
    x, tensors = torch.zeros(1, *shape), {"w": weight}
    if transposed:
        up = F.conv_transpose1d if n == 1 else F.conv_transpose2d
        made = of_torch(lambda: up(x, weight, None, stride, padding, extra, groups, dilation))
        op = ops.Conv("w", None, stride, padding, dilation, groups, True, extra)
    else:
        conv = F.conv1d if n == 1 else F.conv2d
        made = of_torch(lambda: conv(x, weight, None, stride, padding, dilation, groups))
        op = ops.Conv("w", None, stride, padding, dilation, groups)
    assert outcome(op, shape, tensors) == made


@given(st.lists(st.lists(st.integers(1, 3), max_size=3).map(tuple), min_size=1, max_size=3).map(tuple))
def test_broadcast(shapes):
    try:
        made = tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        made = None
    assert broadcast(shapes) == made


@settings(max_examples=150, deadline=None)
@given(random_graphs(Dialect.FLOAT, Dialect.PLANNED))
def test_every_value_of_a_random_graph_has_the_inferred_shape(graph: Graph):
    """All float and planned ops at once; quantisers, which have no float rule here, are cut off."""
    kept: list = []
    for node in graph.nodes:
        known = {each.name for each in kept}
        if not isinstance(node.op, ops.Quantiser) and known.issuperset(node.inputs):
            kept.append(node)
    cut = Graph(graph.dialect, tuple(kept), tuple(node.name for node in kept), graph.tensors)
    inputs = tuple(torch.zeros(2, *node.shape) for node in cut.inputs)
    values = evaluate_float(cut, inputs)
    assert {name: tuple(value.shape[1:]) for name, value in values.items()} == {
        node.name: node.shape for node in kept
    }


@dataclass
class Case:
    """A misfit: the op, its input shapes, a part of the message."""

    op: ops.Op
    shapes: tuple
    says: str


T = {
    "2": torch.zeros(2),
    "23": torch.zeros(2, 3),
    "223": torch.zeros(2, 2, 3),
    "1233": torch.zeros(1, 2, 3, 3),
}
CASES = [
    Case(ops.Conv("no", None, (1,), (0,), (1,)), ((2, 9),), "no tensor 'no'"),
    Case(ops.Conv("23", None, (1,), (0,), (1,)), ((2, 9),), "weight of shape (2, 3)"),
    Case(ops.Conv("223", None, (0,), (0,), (1,)), ((2, 9),), "stride (0,)"),
    Case(ops.Conv("223", None, (1,), (-1,), (1,)), ((2, 9),), "padding (-1,)"),
    Case(ops.Conv("223", None, (1,), (0,), (0,)), ((2, 9),), "dilation (0,)"),
    Case(ops.Conv("223", None, (1,), (0,), (1, 1)), ((2, 9),), "dilation (1, 1)"),
    Case(ops.Conv("223", None, (), (), ()), ((2, 9),), "1 to 3 window axes"),
    Case(ops.Conv("223", None, (1,), (0,), (1,)), ((2, 9, 9),), "channels and 1 window axes"),
    Case(ops.Conv("223", None, (1,), (0,), (1,)), ((3, 9),), "1 groups, input of shape (3, 9)"),
    Case(ops.Conv("223", None, (1,), (0,), (1,), 0), ((2, 9),), "0 groups"),
    Case(ops.Conv("1233", None, (1, 1), (0, 0), (1, 1), 2), ((4, 9, 9),), "2 groups"),
    Case(ops.Conv("223", "23", (1,), (0,), (1,)), ((2, 9),), "'23' of shape (2, 3)"),
    Case(ops.Conv("223", None, (1,), (0,), (1,)), ((2, 2),), "a result of shape (2, 0)"),
    Case(ops.Conv("223", None, (1,), (0,), (1,), 1, False, (1,)), ((2, 9),), "only a transposed"),
    Case(ops.Conv("223", None, (1,), (0,), (1,), 1, True, (1,)), ((2, 9),), "output_padding below"),
    Case(ops.Conv("223", None, (1,), (0,), (1,), 1, True, (-1,)), ((2, 9),), "output_padding (-1,)"),
    Case(ops.Conv("223", None, (1,), (5,), (1,), 1, True), ((2, 3),), "a result of shape (2, -5)"),
    Case(ops.Linear("23", None), ((2, 2),), "weight of shape (2, 3) on (2, 2)"),
    Case(ops.Linear("2", None), ((2,),), "[out, in]"),
    Case(ops.Linear("23", None), ((),), "on ()"),
    Case(ops.Linear("23", "23"), ((3,),), "shape (2,)"),
    Case(ops.BatchNorm(None, None, "2", "2", 1e-5), ((3, 4),), "shape (3,)"),
    Case(ops.BatchNorm(None, None, "2", "2", 1e-5), ((),), "a channel axis"),
    Case(ops.BatchNorm("23", None, "2", "2", 1e-5), ((2,),), "'23'"),
    Case(ops.BatchNorm(None, "23", "2", "2", 1e-5), ((2,),), "'23'"),
    Case(ops.Affine("23", None), ((3,),), "broadcasts to (3,)"),
    Case(ops.Affine(None, "23"), ((3,),), "broadcasts to (3,)"),
    Case(ops.Scale("2"), ((1,),), "broadcasts to (1,)"),
    Case(ops.AxisMap(1, "23"), ((3,),), "axes (1,)"),
    Case(ops.AxisMap(-1, "23"), ((3,),), "axes (-1,)"),
    Case(ops.AxisMap(0, "23", 0), ((3,),), "denominator 0"),
    Case(ops.AxisMap(0, "23"), ((2,),), "matrix of shape (2, 3)"),
    Case(ops.AxisMap(0, "223"), ((2,),), "matrix of shape (2, 2, 3)"),
    Case(ops.Add((1, 1)), ((2,), (3,)), "shapes (2,) and (3,)"),
    Case(ops.Add((1,)), ((2,), (2,)), "signs (1,) for 2"),
    Case(ops.Add((1, 2)), ((2,), (2,)), "signs (1, 2)"),
    Case(ops.Add(()), (), "0 input(s)"),
    Case(ops.Mul(), ((2,),), "1 input(s)"),
    Case(ops.Mul(), ((2,), (3,)), "aligned at the end"),
    Case(ops.Concat(0), (), "0 input(s)"),
    Case(ops.Concat(1), ((2,),), "axes (1,)"),
    Case(ops.Concat(0), ((2, 3), (2, 4)), "the same size along every other axis"),
    Case(ops.Concat(0), ((2, 3), (3,)), "the same size along every other axis"),
    Case(ops.Reshape((4,)), ((2, 3),), "(2, 3) to (4,)"),
    Case(ops.Reshape((-2, -3)), ((2, 3),), "positive sizes"),
    Case(ops.Permute((0, 0)), ((2, 3),), "different axes"),
    Case(ops.Permute((0,)), ((2, 3),), "every axis once"),
    Case(ops.Permute((0, 2)), ((2, 3),), "axes (0, 2)"),
    Case(ops.Slice(0, 1, 1), ((3,),), "start < stop"),
    Case(ops.Slice(0, 0, 4), ((3,),), "stop <= size"),
    Case(ops.Slice(0, -1, 2), ((3,),), "0 <= start"),
    Case(ops.Slice(0, 0, 3, 0), ((3,),), "step >= 1"),
    Case(ops.Slice(1, 0, 3), ((3,),), "axes (1,)"),
    Case(ops.Expand((4, 2)), ((3,),), "(3,) to (4, 2)"),
    Case(ops.Expand((3,)), ((1, 3),), "(1, 3) to (3,)"),
    Case(ops.Pad((1,)), ((3,),), "before and after"),
    Case(ops.Pad((1, -1)), ((3,),), "none negative"),
    Case(ops.AvgPool((2,), (1,), (0,), divisor=3), ((3,),), "divisor 3"),
    Case(ops.AvgPool((2, 2), (1, 1), (0, 0), divisor=0), ((3, 3),), "divisor 0"),
    Case(ops.AvgPool((3,), (1,), (2,)), ((9,),), "at most half"),
    Case(ops.AvgPool((), (), ()), ((9,),), "1 or 2 window axes"),
    Case(ops.AvgPool((1, 1, 1), (1, 1, 1), (0, 0, 0)), ((1, 2, 3),), "1 or 2 window axes"),
    Case(ops.MaxPool((2, 2), (1, 1), (0, 0), (1, 1)), ((9,),), "at least 2 axes"),
    Case(ops.MaxPool((2,), (1,), (1,), (2,)), ((1,),), "as long as the dilation"),
    Case(ops.MaxPool((), (), (), ()), ((1,),), "1 or 2 window axes"),
    Case(ops.AdaptiveAvgPool((0,)), ((3,),), "size (0,)"),
    Case(ops.AdaptiveAvgPool((1, 1)), ((3,),), "at least 2 axes"),
    Case(ops.Upsample((0,), "nearest"), ((3,),), "size (0,)"),
    Case(ops.Upsample((2,), "cubic"), ((3,),), "mode 'cubic'"),
    Case(ops.Upsample((2,), "nearest", True), ((3,),), "align_corners"),
    Case(ops.Upsample((2,), "linear", scales=(1.0, 1.0)), ((3,),), "scales (1.0, 1.0)"),
    Case(ops.Upsample((2,), "linear", scales=(0.0,)), ((3,),), "scales (0.0,)"),
    Case(ops.Mean((), False), ((3,),), "no axes"),
    Case(ops.AMax((0, 0), False), ((3,),), "different axes"),
    Case(ops.AMax((-1,), False), ((3,),), "axes (-1,)"),
    Case(ops.Argmax(None, True), ((3,),), "keepdim"),
    Case(ops.Argmax(1), ((3,),), "axes (1,)"),
    Case(ops.Softmax(1), ((3,),), "axes (1,)"),
    Case(ops.Quantiser((), 1, 0), ((3,),), "counts 1..0"),
    Case(ops.Quantiser((ops.Affine("2", None),), 0, 1), ((3,),), "broadcasts to (3,)"),
    Case(ops.Quantiser((ops.Affine(None, "2"),), 0, 1), ((3,),), "broadcasts to (3,)"),
    Case(ops.Neuron(1, 0, "2", None, None), ((3,),), "counts 1..0"),
    Case(ops.Neuron(0, 1, "2", None, None), ((3,),), "2 breakpoints for counts 0..1"),
    Case(ops.Neuron(0, 3, "23", None, None), ((3,),), "group broadcasts to (3,)"),
    Case(ops.Neuron(0, 2, "2", "2", None), ((3,),), "shape (3,)"),
    Case(ops.Neuron(0, 2, "2", None, "2"), ((3,),), "broadcasts to (3,)"),
    Case(ops.Readout("2", None, None), ((3,),), "broadcasts to (3,)"),
    Case(ops.Readout("1", "2", None), ((3,),), "broadcasts to (3,)"),
    Case(ops.Readout("1", None, "2"), ((3,),), "broadcasts to (3,)"),
    Case(ops.Elementwise(functions.Relu()), (), "0 input(s)"),
    Case(ops.HostFunction(functions.Relu()), ((1,), (1,)), "2 input(s)"),
    Case(ops.Input(0), ((1,),), "without a rule"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{type(case.op).__name__}: {case.says}")
def test_misfits_are_refused_in_four_parts(case: Case):
    with pytest.raises(GraphError) as caught:
        infer(case.op, case.shapes, T | {"1": torch.zeros(1)})
    assert case.says in str(caught.value)
    assert type(case.op).__name__ in str(caught.value)
    assert all((caught.value.where, caught.value.got, caught.value.known, caught.value.do))


FITS = [
    (ops.Conv("1233", None, (2, 2), (1, 1), (1, 1)), ((2, 5, 6),), (1, 3, 3)),
    (ops.Argmax(None), ((2, 3),), ()),
    (ops.Argmax(0, True), ((2, 3),), (1, 3)),
    (ops.Argmax(0), ((2, 3),), (3,)),
    (ops.Mean((0, 1), False), ((2, 3),), ()),
    (ops.Slice(1, 1, 6, 2), ((2, 7),), (2, 3)),
    (ops.Expand((4, 2, 3)), ((1, 3),), (4, 2, 3)),
    (ops.Pad((1, 2, 0, 3)), ((2, 3),), (5, 6)),
    (ops.Concat(1), ((2, 3), (2, 1)), (2, 4)),
    (ops.Permute((1, 2, 0)), ((2, 3, 4),), (3, 4, 2)),
    (ops.MaxPool((3,), (2,), (1,), (1,), True), ((4, 6),), (4, 4)),
    (ops.Linear("23", "2"), ((5, 3),), (5, 2)),
    (ops.AxisMap(0, "23"), ((3, 4),), (2, 4)),
    (ops.Add((1, -1)), ((2, 1), (3,)), (2, 3)),
    (ops.Neuron(0, 5, "23", None, None), ((2,),), None),
    (ops.Neuron(0, 3, "23", None, "1"), ((2,),), (2,)),
    (ops.Readout("1", "2", None), ((5, 2),), (5, 2)),
]


@pytest.mark.parametrize(("op", "shapes", "wanted"), FITS, ids=str)
def test_known_shapes(op, shapes, wanted):
    tensors = T | {"1": torch.zeros(1)}
    if wanted is None:
        with pytest.raises(GraphError):
            infer(op, shapes, tensors)
    else:
        assert infer(op, shapes, tensors) == wanted


def test_the_table_is_complete():
    assert SHAPES.missing() == frozenset()
