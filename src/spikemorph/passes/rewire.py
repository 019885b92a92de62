"""Sums of sums become one sum; a pool before a rising activation moves behind it."""

from __future__ import annotations

from dataclasses import replace

from spikemorph.evaluate.functions import non_decreasing
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node


def flatten_adds(graph: Graph) -> Graph:
    """Add(Add(a, b), c) -> Add(a, b, c), where the inner sum is used nowhere else and has the same shape."""
    absorbed: dict[str, tuple[tuple[str, int], ...]] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node.op, ops.Add):
            terms = tuple(
                (name, sign * inner)
                for source, sign in zip(node.inputs, node.op.signs, strict=True)
                for name, inner in absorbed.get(source, ((source, 1),))
            )
            users = graph.consumers[node.name]
            last = users[0] if len(users) == 1 and node.name not in graph.outputs else None
            if last is not None and _takes_over(last, node):
                absorbed[node.name] = terms
                continue
            node = replace(
                node, op=ops.Add(tuple(sign for _, sign in terms)), inputs=tuple(name for name, _ in terms)
            )
        nodes.append(node)
    return graph.with_nodes(nodes)


def _takes_over(outer: Node, inner: Node) -> bool:
    once = outer.inputs.count(inner.name) == 1
    return isinstance(outer.op, ops.Add) and outer.shape == inner.shape and once


def pools_behind_activations(graph: Graph) -> Graph:
    """max-pool -> f becomes f -> max-pool for every f that never falls: both orders give the same numbers.

    The pool then works on counts. After a falling f the two orders differ, and the pool stays in front.
    """
    while (pair := _swappable(graph)) is not None:
        graph = _swap(graph, *pair)
    return graph


def _swappable(graph: Graph) -> tuple[Node, Node] | None:
    for pool in graph.nodes:
        if not isinstance(pool.op, ops.MaxPool | ops.AMax) or pool.name in graph.outputs:
            continue
        users = graph.consumers[pool.name]
        if len(users) == 1 and _rises(users[0]):
            return pool, users[0]
    return None


def _rises(node: Node) -> bool:
    return isinstance(node.op, ops.Elementwise) and non_decreasing(node.op.function)


def _swap(graph: Graph, pool: Node, act: Node) -> Graph:
    source = graph.by_name[pool.inputs[0]]
    early = replace(act, inputs=pool.inputs, shape=source.shape)
    late = replace(pool, inputs=(act.name,))
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name == pool.name:
            nodes += [early, late]
        elif node.name != act.name:
            inputs = tuple(pool.name if name == act.name else name for name in node.inputs)
            nodes.append(replace(node, inputs=inputs))
    outputs = tuple(pool.name if name == act.name else name for name in graph.outputs)
    return graph.with_nodes(nodes, outputs=outputs)
