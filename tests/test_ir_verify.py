"""A graph that keeps the rules passes; a graph that breaks any one of them is refused by name."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ir_graphs import DRAWN, changed, random_graph, random_graphs
from spikemorph.errors import GraphError
from spikemorph.ir import functions, ops
from spikemorph.ir.graph import Dialect, Graph, Node, Origin
from spikemorph.ir.structure import Items, Leaf, Named
from spikemorph.ir.verify import ALLOWED, TENSOR_FIELDS, named_tensors, used_tensors, verify

torch.set_num_threads(1)
HERE = Origin("features.4", "net.py:31", "aten.conv2d")


def node(name: str, op: ops.Op, inputs: str, *shape: int) -> Node:
    return Node(name, op, tuple(inputs.split()), shape, HERE)


def integer_graph() -> Graph:
    """x [1, 4] -> conv -> neuron -> readout -> softmax, and the neuron padded and pooled by a map."""
    tensors = {
        "unit": torch.tensor(0.5, dtype=torch.float64),
        "kernel": torch.tensor([[[1, -1]], [[2, 3]]]),
        "steps": torch.tensor([[[0, 2, 2]], [[-1, 0, 5]]]),
        "values": torch.tensor([[[0, 2, 3, 1]], [[1, 0, 3, 2]]]),
        "bias": torch.tensor([[1], [2]]),
        "map": torch.ones(1, 5, dtype=torch.int64),
        "scale": torch.tensor([[0.25], [0.5]], dtype=torch.float64),
        "pair": torch.tensor([1, 2]),
        "one": torch.tensor([1]),
        "stale": torch.tensor([float("nan")]),
    }
    nodes = (
        node("x", ops.Input(0, -3, 3, "unit"), "", 1, 4),
        node("conv", ops.Conv("kernel", None, (1,), (0,), (1,)), "x", 2, 3),
        node("spikes", ops.Neuron(0, 3, "steps", "values", "bias"), "conv", 2, 3),
        node("pad", ops.Pad((0, 0, 1, 1)), "spikes", 2, 5),
        node("mean", ops.AxisMap(1, "map"), "pad", 2, 1),
        node("out", ops.Readout("scale", "bias", None), "mean", 2, 1),
        node("soft", ops.Softmax(0), "out", 2, 1),
        node("best", ops.Argmax(None), "soft"),
    )
    return Graph(Dialect.INTEGER, nodes, ("out", "best"), tensors, Items((Leaf(0), Leaf(1))))


def float_graph() -> Graph:
    tensors = {"w": torch.ones(2, 3), "b": torch.ones(2), "g": torch.ones(1)}
    nodes = (
        node("x", ops.Input(0), "", 3),
        node("fc", ops.Linear("w", "b"), "x", 2),
        node("act", ops.Elementwise(functions.Clamp(0.0, 6.0)), "fc", 2),
        node("soft", ops.Softmax(0), "act", 2),
    )
    return Graph(Dialect.FLOAT, nodes, ("soft",), tensors)


def planned_graph() -> Graph:
    graph = float_graph()
    op = ops.Quantiser((functions.Relu(), ops.Affine("g", None)), 0, 3)
    return replace(changed(graph, "act", op=op), dialect=Dialect.PLANNED)


def op(name: str, kind: ops.Op) -> Callable[[Graph], Graph]:
    return lambda graph: changed(graph, name, op=kind)


def tensor(name: str, value: torch.Tensor) -> Callable[[Graph], Graph]:
    return lambda graph: replace(graph, tensors={**graph.tensors, name: value})


def with_node(new: Node) -> Callable[[Graph], Graph]:
    return lambda graph: graph.with_nodes((*graph.nodes, new))


def inputs(name: str, *names: str) -> Callable[[Graph], Graph]:
    return lambda graph: changed(graph, name, inputs=names)


def outputs(*names: str) -> Callable[[Graph], Graph]:
    return lambda graph: replace(graph, outputs=names)


def structure(value) -> Callable[[Graph], Graph]:
    return lambda graph: replace(graph, structure=value)


def nested(depth: int):
    value = Items((Leaf(0), Leaf(1)))
    for _ in range(depth):
        value = Items((value,))
    return value


@dataclass
class Breach:
    """One rule broken: the change, and parts of the message."""

    change: Callable[[Graph], Graph]
    where: str
    says: str
    graph: Callable[[], Graph] = integer_graph


REAL = torch.ones(1, 5, dtype=torch.float64)
LINEAR = ops.Linear("w", None)
BREACHES = [
    Breach(with_node(node("x", ops.Reshape((4,)), "x", 4)), "node 'x' (Reshape)", "unique"),
    Breach(inputs("conv", "y"), "node 'conv'", "input 'y'"),
    Breach(lambda g: g.with_nodes(g.nodes[::-1]), "node 'best'", "earlier node"),
    Breach(
        op("spikes", ops.Elementwise(functions.Relu())), "node 'spikes'", "not an op of the integer dialect"
    ),
    Breach(op("act", ops.Quantiser((), 0, 1)), "node 'act'", "not an op of the float dialect", float_graph),
    Breach(op("act", ops.Elementwise(functions.Relu())), "node 'act'", "the planned dialect", planned_graph),
    Breach(op("mean", ops.AxisMap(1, "gone")), "node 'mean'", "matrix 'gone', which is missing"),
    Breach(
        op("act", ops.Quantiser((ops.Affine("gone", None),), 0, 1)),
        *("node 'act'", "chain[0].gain 'gone', which is missing", planned_graph),
    ),
    Breach(tensor("map", REAL), "node 'mean'", "matrix 'map' of torch.float64"),
    Breach(tensor("map", torch.ones(1, 5, dtype=torch.int32)), "node 'mean'", "int64"),
    Breach(tensor("bias", torch.ones(2, 1)), "node 'spikes'", "bias 'bias' of torch.float32"),
    Breach(tensor("scale", torch.ones(2, 1)), "node 'out'", "scale 'scale' of torch.float32"),
    Breach(tensor("unit", torch.tensor(1)), "node 'x'", "unit 'unit' of torch.int64"),
    Breach(tensor("w", torch.ones(2, 3) > 0), "node 'fc'", "torch.bool", float_graph),
    Breach(tensor("w", torch.ones(2, 3, dtype=torch.int8)), "node 'fc'", "torch.int8", float_graph),
    Breach(
        tensor("w", torch.ones(2, 3) / 0), "node 'fc'", "NaN or infinite numbers in weight 'w'", float_graph
    ),
    Breach(tensor("scale", REAL[:, :1] * float("nan")), "node 'out'", "NaN or infinite"),
    Breach(op("act", ops.Elementwise(functions.Clamp(0.0, float("inf")))), "node 'act'", "inf", float_graph),
    Breach(op("act", ops.Pad((0, 0), float("-inf"))), "node 'act'", "the number -inf", float_graph),
    Breach(
        op("act", ops.Quantiser((functions.Elu(float("nan")),), 0, 1)), "node 'act'", "nan", planned_graph
    ),
    Breach(lambda g: changed(g, "mean", shape=(2, 2)), "node 'mean'", "recorded shape (2, 2)"),
    Breach(op("mean", ops.AxisMap(2, "map")), "node 'mean'", "axes (2,) of shape (2, 5)"),
    Breach(lambda g: changed(g, "x", shape=(1, 0)), "node 'x'", "positive sizes"),
    Breach(inputs("conv"), "node 'conv'", "0 input(s)"),
    Breach(with_node(Node("y", ops.Input(1, 0, 0, "unit"), ("x",), (1,))), "node 'y'", "reads an argument"),
    Breach(lambda g: changed(g, "x", element_axis=2), "node 'x'", "element axis 2"),
    Breach(lambda g: changed(g, "x", element_axis=-1), "node 'x'", "element axis -1"),
    Breach(with_node(node("late", ops.Reshape((2,)), "soft", 2)), "node 'late'", "input 'soft', a host op"),
    Breach(with_node(node("late", ops.Reshape((2,)), "soft", 2)), "node 'late'", "a host op", float_graph),
    Breach(
        with_node(node("late", ops.HostFunction(functions.Tanh()), "best")),
        "node 'late'",
        "indices are outputs only",
    ),
    Breach(inputs("soft", "mean"), "node 'soft'", "host ops read a Readout"),
    Breach(with_node(node("late", ops.Reshape((2,)), "out", 2)), "node 'late'", "input 'out', a Readout"),
    Breach(
        with_node(node("late", ops.Readout("scale", None, None), "out", 2, 1)), "node 'late'", "a Readout"
    ),
    Breach(op("x", ops.Input(0, 1, 3, "unit")), "node 'x'", "lo <= 0 <= hi"),
    Breach(op("x", ops.Input(0, -3, -1, "unit")), "node 'x'", "lo <= 0 <= hi"),
    Breach(op("x", ops.Input(0, -3, 3)), "node 'x'", "no unit"),
    Breach(tensor("unit", torch.zeros((), dtype=torch.float64)), "node 'x'", "above 0"),
    Breach(tensor("unit", torch.ones(1, dtype=torch.float64)), "node 'x'", "scalar"),
    Breach(op("conv", ops.Conv("kernel", "two", (1,), (0,), (1,))), "node 'conv'", "bias 'two', which is"),
    Breach(op("conv", ops.Conv("kernel", "pair", (1,), (0,), (1,))), "node 'conv'", "biases are injected"),
    Breach(op("mean", ops.Linear("map", "one")), "node 'mean'", "biases are injected"),
    Breach(op("mean", ops.AxisMap(1, "map", 5)), "node 'mean'", "denominator 5"),
    Breach(op("pad", ops.Pad((0, 0, 1, 1), 1.0)), "node 'pad'", "pad value 1.0"),
    Breach(tensor("steps", torch.tensor([[[0, 2, 1]], [[-1, 0, 5]]])), "node 'spikes'", "that fall"),
    Breach(tensor("values", torch.tensor([0, 4, 1, 1]).expand(2, 1, 4)), "node 'spikes'", "all in 0..3"),
    Breach(tensor("values", torch.tensor([0, -1, 1, 1]).expand(2, 1, 4)), "node 'spikes'", "-1..1 of shape"),
    Breach(tensor("steps", torch.zeros(3, 1, 3, dtype=torch.int64)), "node 'spikes'", "broadcasts to (2, 3)"),
    Breach(op("spikes", ops.Neuron(0, 4, "steps", None, None)), "node 'spikes'", "3 breakpoints"),
    Breach(op("x", ops.Input(1, -3, 3, "unit")), "the graph's inputs", "argument numbers [1]"),
    Breach(with_node(node("y", ops.Input(0, 0, 0, "unit"), "", 1)), "the graph's inputs", "numbers [0, 0]"),
    Breach(lambda g: Graph(Dialect.FLOAT, (), ()), "the graph's inputs", "argument numbers []"),
    Breach(outputs("out", "gone"), "the graph's outputs", "'gone'"),
    Breach(outputs("out", "mean"), "node 'mean'", "outputs of an integer graph"),
    Breach(outputs(), "the structure", "for 0 output(s)"),
    Breach(structure(Items(())), "the structure", "leaves [] for 2 output(s)"),
    Breach(structure(Leaf(0)), "the structure", "leaves [0] for 2 output(s)"),
    Breach(structure(Items((Leaf(0), Leaf(2)))), "the structure", "leaves [0, 2]"),
    Breach(structure(Items((Leaf(0), Leaf(1), Leaf(-1)))), "the structure", "leaves [-1, 0, 1]"),
    Breach(structure(Named(("a", "a"), (Leaf(0), Leaf(1)))), "the structure", "one key a value"),
    Breach(structure(Named(("a",), (Leaf(0), Leaf(1)))), "the structure", "one key a value"),
    Breach(structure(nested(100)), "the structure", "at most 64 levels"),
]


@pytest.mark.parametrize("breach", BREACHES, ids=lambda each: f"{each.where} {each.says}")
def test_a_broken_rule_is_named(breach: Breach):
    whole = breach.graph()
    verify(whole)
    with pytest.raises(GraphError) as caught:
        verify(breach.change(whole))
    error = caught.value
    assert breach.where in error.where
    assert breach.says in str(error)
    assert all((error.got, error.known, error.do))


def test_the_message_in_full():
    with pytest.raises(GraphError) as caught:
        verify(changed(integer_graph(), "mean", shape=(2, 2)))
    assert str(caught.value) == (
        "node 'mean' (AxisMap), features.4 (net.py:31): recorded shape (2, 2)\n"
        "  known: (2, 1), by its inputs\n"
        "  do:    correct the pass or the file that made this graph"
    )


@settings(max_examples=150, deadline=None)
@given(random_graphs())
def test_random_graphs_keep_the_rules(graph: Graph):
    verify(graph)


@pytest.mark.parametrize("dialect", DRAWN)
def test_random_graphs_hold_every_op(dialect: Dialect):
    """Otherwise the round trips that use them would leave ops out."""
    met = set()
    for seed in range(200):
        met |= {type(each.op) for each in random_graph(np.random.default_rng(seed), dialect, 12).nodes}
    drawn_elsewhere = {ops.Recurrence} if dialect is Dialect.INTEGER else set()
    assert met == ALLOWED[dialect] - drawn_elsewhere


def test_all_strings_of_ops_are_tensor_names_or_known_not_to_be():
    others = {("Upsample", "mode"), ("Quantiser", "reason")}
    for kind in ops.ALL_OPS:
        hints = typing.get_type_hints(kind)
        for each in fields(kind):
            named = str in (hints[each.name], *typing.get_args(hints[each.name]))
            assert named == (each.name in TENSOR_FIELDS or (kind.__name__, each.name) in others)


def test_named_tensors_of_a_chain():
    chain = (ops.Affine("a", None), functions.Elu(1.0, 2.0), ops.Affine("b", "c"))
    assert named_tensors(ops.Quantiser(chain, 0, 1, reason="weight")) == {
        "chain[0].gain": "a",
        "chain[2].gain": "b",
        "chain[2].offset": "c",
    }


def test_used_tensors_leave_stale_ones_out():
    assert list(used_tensors(integer_graph())) == [
        "bias",
        "kernel",
        "map",
        "scale",
        "steps",
        "unit",
        "values",
    ]


def test_the_cell_of_a_recurrence_holds_functions_only():
    """Constants that differ between elements came with the input; the cell is the same for all."""
    cell = ops.Quantiser((ops.Affine("gain", None),), 0, 3)
    nodes = (Node("x", ops.Input(0), (), (4, 2)), Node("h", ops.Recurrence("w", cell), ("x",), (4, 2)))
    tensors = {"w": torch.ones(2, 2), "gain": torch.ones(4, 1)}
    with pytest.raises(GraphError, match="constants in the cell's chain"):
        verify(Graph(Dialect.PLANNED, nodes, ("h",), tensors))
