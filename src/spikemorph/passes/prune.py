"""What no output needs is left out."""

from __future__ import annotations

from spikemorph.ir.graph import Graph
from spikemorph.ir.ops import Input


def prune(graph: Graph) -> Graph:
    """The graph without nodes that no output depends on; inputs stay, they are arguments."""
    needed = set(graph.outputs)
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed |= set(node.inputs)
    return graph.with_nodes(node for node in graph.nodes if node.name in needed or isinstance(node.op, Input))
