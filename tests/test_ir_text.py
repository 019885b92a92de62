"""The text of a graph: one line a node, aligned, the same every time."""

from __future__ import annotations

from hypothesis import given, settings

from ir_graphs import random_graphs
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.structure import Items, Leaf, Named
from spikemorph.ir.text import text
from test_ir_verify import integer_graph, planned_graph

INTEGER = """\
integer graph, 8 nodes
  x       Input(index=0, lo=-3, hi=3, unit=unit)                                            [1, 4]
  conv    Conv(weight=kernel, bias=None, stride=[1], padding=[0], dilation=[1])  <- x       [2, 3]
  spikes  Neuron(lo=0, hi=3, breakpoints=steps, values=values, bias=bias)        <- conv    [2, 3]
  pad     Pad(pads=[0, 0, 1, 1])                                                 <- spikes  [2, 5]
  mean    AxisMap(axis=1, matrix=map)                                            <- pad     [2, 1]
  out     Readout(scale=scale, bias=bias, offset=None)                           <- mean    [2, 1]
  soft    Softmax(axis=0)                                                        <- out     [2, 1]
  best    Argmax(axis=None)                                                      <- soft    []
outputs: (out, best)
"""


def test_an_integer_graph():
    assert text(integer_graph()) == INTEGER


def test_functions_and_chains_are_spelled_out():
    assert "Quantiser(chain=[Relu(), Affine(gain=g, offset=None)], lo=0, hi=3)" in text(planned_graph())


def test_names_that_could_mislead_are_quoted_and_elements_marked():
    nodes = (
        Node("a b", ops.Input(0), (), (3, 2), element_axis=0),
        Node("\n", ops.Mul(), ("a b", "a b"), (3, 2)),
    )
    structure = Named(("k", "k:"), (Leaf(1), Items((Leaf(0),), is_list=True)))
    assert text(Graph(Dialect.FLOAT, nodes, ("a b", "\n"), {}, structure)) == (
        "float graph, 2 nodes\n"
        "  'a b'  Input(index=0)                   [3 elements, 2]\n"
        "  '\\n'   Mul()           <- 'a b', 'a b'  [3, 2]\n"
        "outputs: {k: '\\n', 'k:': ['a b']}\n"
    )


def test_an_empty_graph():
    assert text(Graph(Dialect.FLOAT, (), (), {}, Items(()))) == "float graph, 0 nodes\noutputs: ()\n"


@settings(max_examples=50, deadline=None)
@given(random_graphs())
def test_one_line_a_node_without_numbers_of_tensors(graph: Graph):
    got = text(graph)
    assert got.count("\n") == len(graph.nodes) + 2
    assert got == text(Graph(graph.dialect, graph.nodes, graph.outputs, {}, graph.structure))
    got.encode()
