"""Every change of a network is found by structure, whatever the data shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from graphs import Builder, network, product, two_layers
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.ir.structure import Items, Leaf
from spikemorph.ir.verify import named_tensors
from spikemorph.ir.verify import verify as check_graph
from spikemorph.verify.certificate import verify
from spikemorph.verify.structure import Difference, differences

torch.set_num_threads(1)


def small() -> Graph:
    """input0 [1,4,4] -> conv1 [2,1,1] -> neuron2 -> reshape3 -> linear4 -> neuron5 -> linear6 -> readout7."""
    b = Builder()
    x = b.input(0, (1, 4, 4), -3, 3)
    kernel = torch.arange(-16, 16).reshape(2, 1, 4, 4)
    name = b.tensor(kernel)
    x = b.add(ops.Conv(name, None, (1, 1), (0, 0), (1, 1)), x, bound=1000)
    x = b.neuron(x, 0, 2, [[[[20, 40]]], [[[10, 30]]]], [[[[0, 1, 2]]]] * 2, bias=[[[3]], [[-3]]])
    x = b.add(ops.Reshape((2,)), x, bound=2)
    x = b.neuron(b.linear(x, [[2, 1], [1, -1]]), -1, 1, [0, 3])
    return b.graph(b.readout(b.linear(x, [[5, 7]]), bias=[4]))


def with_op(graph: Graph, name: str, **changes: Any) -> Graph:
    nodes = [
        replace(node, op=replace(node.op, **changes)) if node.name == name else node for node in graph.nodes
    ]
    return graph.with_nodes(nodes)


def with_number(graph: Graph, name: str, field: str, index: tuple[int, ...], by: float = 1) -> Graph:
    """The number at this place of the node's tensor, plus one."""
    tensor = named_tensors(graph.by_name[name].op)[field]
    changed = graph.tensors[tensor].clone()
    changed[index] += by
    return graph.with_nodes(graph.nodes, tensors={**graph.tensors, tensor: changed})


def fed_by(graph: Graph, name: str, source: str) -> Graph:
    return graph.with_nodes([replace(n, inputs=(source,)) if n.name == name else n for n in graph.nodes])


CHANGES: list[tuple[Callable[[Graph], Graph], Difference]] = [
    (
        lambda g: with_number(g, "conv1", "weight", (1, 0, 2, 3)),
        Difference("conv1", "weight[1, 0, 2, 3]", "11", "12"),
    ),
    (lambda g: with_number(g, "linear4", "weight", (1, 0)), Difference("linear4", "weight[1, 0]", "1", "2")),
    (
        lambda g: with_number(g, "neuron2", "breakpoints", (1, 0, 0, 1)),
        Difference("neuron2", "breakpoints[1, 0, 0, 1]", "30", "31"),
    ),
    (
        lambda g: with_number(g, "neuron2", "bias", (1, 0, 0)),
        Difference("neuron2", "bias[1, 0, 0]", "-3", "-2"),
    ),
    (lambda g: with_op(g, "neuron2", bias=None), Difference("neuron2", "bias", "t4", "None")),
    (lambda g: with_op(g, "neuron2", hi=3), Difference("neuron2", "hi", "2", "3")),
    (lambda g: with_op(g, "neuron2", lo=-1), Difference("neuron2", "lo", "0", "-1")),
    (
        lambda g: with_number(g, "neuron2", "values", (0, 0, 0, 2), by=-1),
        Difference("neuron2", "values[0, 0, 0, 2]", "2", "1"),
    ),
    (lambda g: with_op(g, "conv1", stride=(1, 2)), Difference("conv1", "stride", "(1, 1)", "(1, 2)")),
    (lambda g: with_op(g, "input0", hi=2), Difference("input0", "hi", "3", "2")),
    (lambda g: with_number(g, "input0", "unit", (), by=0.5), Difference("input0", "unit[]", "0.5", "1.0")),
    (lambda g: with_number(g, "readout7", "scale", ()), Difference("readout7", "scale[]", "0.25", "1.25")),
    (
        lambda g: fed_by(g, "linear6", "reshape3"),
        Difference("linear6", "inputs", "('neuron5',)", "('reshape3',)"),
    ),
    (
        lambda g: replace(g, structure=Items((Leaf(0),))),
        Difference("", "structure", "Leaf(index=0)", "Items(items=(Leaf(index=0),), is_list=False)"),
    ),
]


@pytest.mark.parametrize(("change", "difference"), CHANGES, ids=[str(each) for _, each in CHANGES])
def test_a_change_by_one_is_found_whatever_the_data(
    change: Callable[[Graph], Graph], difference: Difference
) -> None:
    graph, silence = small(), torch.zeros(2, 1, 4, 4)
    changed = change(graph)
    check_graph(changed)
    made = verify(network(changed), graph, silence)
    assert not made.lossless
    assert made.structural_differences == (difference,)
    assert (made.neurons_different, made.outputs_different, made.first_difference) == (0, 0, None)
    assert json.loads(made.to_json())["structural_differences"][0]["layer"] == difference.layer


def test_other_nodes_are_named() -> None:
    graph = two_layers()
    renamed = graph.with_nodes([
        replace(node, name="same") if node.name == "linear5" else node for node in graph.nodes
    ])
    renamed = fed_by(renamed, "readout6", "same")
    assert [str(each) for each in differences(graph, renamed)] == [
        "the graph: nodes is without ['same'] in the QNN, without ['linear5'] in the SNN",
        "readout6: inputs is ('linear5',) in the QNN, ('same',) in the SNN",
    ]
    (swapped,) = differences(product(), _swapped(product()))
    assert (swapped.layer, swapped.part) == ("", "order of nodes")
    other_op = graph.with_nodes([
        replace(n, op=ops.Add((1,))) if n.name == "linear5" else n for n in graph.nodes
    ])
    assert differences(graph, other_op) == (Difference("linear5", "op", "Linear", "Add"),)


def _swapped(graph: Graph) -> Graph:
    first, second, *rest = graph.nodes
    return graph.with_nodes([second, first, *rest])


def test_several_changes_of_a_tensor_are_counted() -> None:
    graph = small()
    changed = with_number(with_number(graph, "linear6", "weight", (0, 1)), "linear6", "weight", (0, 0))
    assert differences(graph, changed) == (Difference("linear6", "weight[0, 0] (and 1 more)", "5", "6"),)
