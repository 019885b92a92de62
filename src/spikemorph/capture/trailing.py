"""Smooth functions behind the last layer run on the host; softmax and argmax may be nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from spikemorph.capture.refusals import softmax_inside
from spikemorph.errors import Offence
from spikemorph.ir import functions as fn
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node

_STAYS = (fn.Relu, fn.Clamp)
_MOVES = (ops.Reshape, ops.Permute, ops.Slice)


def to_host(graph: Graph, read: frozenset[str] = frozenset()) -> Graph:
    """The graph with trailing functions, relu and clamps apart, as host functions.

    Args:
        read: nodes that are not trailing because something outside the graph reads them.
    """
    for node in reversed(graph.nodes):
        if _smooth(node) and node.name not in read:
            views = _views_to_output(graph, node)
            if views:
                graph = _behind(graph, [node, *views])
            elif all(isinstance(each.op, ops.HOST) for each in graph.consumers[node.name]):
                graph = _replaced(graph, {node.name: _hosted(node)})
    return graph


def _smooth(node: Node) -> bool:
    return isinstance(node.op, ops.Elementwise) and not isinstance(node.op.function, _STAYS)


def _hosted(node: Node) -> Node:
    assert isinstance(node.op, ops.Elementwise)
    return replace(node, op=ops.HostFunction(node.op.function))


def _replaced(graph: Graph, changed: dict[str, Node]) -> Graph:
    return graph.with_nodes(changed.get(each.name, each) for each in graph.nodes)


def _views_to_output(graph: Graph, node: Node) -> list[Node]:
    """The views between a node and an output, where nothing else reads any of them; else none."""
    views: list[Node] = []
    reader = node
    while reader.name not in graph.outputs and len(graph.consumers[reader.name]) == 1:
        (reader,) = graph.consumers[reader.name]
        if not isinstance(reader.op, _MOVES):
            return []
        views.append(reader)
    return views if reader.name in graph.outputs and not graph.consumers[reader.name] else []


def _behind(graph: Graph, chain: list[Node]) -> Graph:
    """sigmoid(x).squeeze(1) as sigmoid(x.squeeze(1)): the views move one node up, the function goes last."""
    function, *views = chain
    moved = {
        place.name: replace(place, op=view.op, shape=view.shape, origin=view.origin)
        for place, view in zip(chain, views, strict=False)
    }
    last = chain[-1]
    moved[last.name] = replace(last, op=_hosted(function).op, origin=function.origin)
    return _replaced(graph, moved)


def softmax_offences(graph: Graph) -> Iterable[Offence]:
    """Softmax and argmax whose results flow on into the network."""
    for node in graph.nodes:
        if isinstance(node.op, ops.HOST) and not all(
            isinstance(each.op, ops.HOST) for each in graph.consumers[node.name]
        ):
            yield softmax_inside(node.origin)
