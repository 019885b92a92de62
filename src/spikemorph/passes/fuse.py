"""Every run of elementwise ops on one accumulator becomes one quantiser: a neuron to be."""

from __future__ import annotations

from dataclasses import replace

from spikemorph.evaluate.functions import never_negative
from spikemorph.ir import ops
from spikemorph.ir.functions import Function
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.passes.levels import Levels, PerChannel, count_range


def fuse_elementwise(graph: Graph, levels: Levels) -> Graph:
    """Elementwise (-> Affine | Elementwise)* -> one Quantiser, named after its last function.

    A chain goes on while the value has one reader, keeps its shape and is no output; it ends with a function.
    """
    chains: dict[str, tuple[Node, ...]] = {}
    inside: set[str] = set()
    for node in graph.nodes:
        if isinstance(node.op, ops.Elementwise) and node.name not in inside:
            chain = _chain(graph, node)
            chains[chain[-1].name] = chain
            inside |= {each.name for each in chain}
    nodes = []
    for node in graph.nodes:
        if node.name in chains:
            nodes.append(_quantiser(chains[node.name], levels))
        elif isinstance(node.op, ops.Recurrence) and isinstance(node.op.cell, ops.Elementwise):
            cell = quantiser_of(node, node.op.cell.function, levels)
            nodes.append(replace(node, op=replace(node.op, cell=cell)))
        elif node.name not in inside:
            nodes.append(node)
    return graph.with_nodes(nodes, dialect=Dialect.PLANNED)


def quantiser_of(node: Node, function: Function, levels: Levels) -> ops.Quantiser:
    """The quantiser of a recurrence: one unit for all its neurons."""
    signed = not never_negative(function)
    lo, hi = count_range(levels.activation_of(node.origin.module), signed=signed)
    return ops.Quantiser((function,), lo, hi)


def _chain(graph: Graph, start: Node) -> tuple[Node, ...]:
    chain = [start]
    while True:
        last = chain[-1]
        users = graph.consumers[last.name]
        if len(users) != 1 or last.name in graph.outputs or users[0].shape != last.shape:
            break
        if not isinstance(users[0].op, ops.Elementwise | ops.Affine):
            break
        chain.append(users[0])
    while isinstance(chain[-1].op, ops.Affine):
        chain.pop()
    return tuple(chain)


def _quantiser(chain: tuple[Node, ...], levels: Levels) -> Node:
    last = chain[-1]
    links: list[Function | ops.Affine] = []
    for node in chain:
        if isinstance(node.op, ops.Elementwise):
            links.append(node.op.function)
        elif isinstance(node.op, ops.Affine):
            links.append(node.op)
    function = links[-1]
    assert not isinstance(function, ops.Affine)
    lo, hi = count_range(levels.activation_of(last.origin.module), signed=not never_negative(function))
    per_channel = isinstance(levels.granularity, PerChannel)
    return replace(last, op=ops.Quantiser(tuple(links), lo, hi, per_channel), inputs=chain[0].inputs)
