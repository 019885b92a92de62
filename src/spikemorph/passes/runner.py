"""Passes: graph -> graph, each with a promise that is checked every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from spikemorph.errors import GraphError
from spikemorph.ir.graph import Graph
from spikemorph.ir.verify import verify


@final
@dataclass(frozen=True, slots=True)
class Pass:
    """One rewrite.

    Args:
        name: for messages.
        apply: the rewrite; returns a new graph.
        removes: op types of which none may be left afterwards.
    """

    name: str
    apply: Callable[[Graph], Graph]
    removes: tuple[type, ...] = ()


def run_passes(graph: Graph, passes: Sequence[Pass]) -> Graph:
    """The graph after all passes.

    Raises:
        GraphError: a pass broke the graph's rules or its promise; the message says which.
    """
    for index, each in enumerate(passes):
        graph = each.apply(graph)
        try:
            verify(graph)
        except GraphError as error:
            before = ", ".join(earlier.name for earlier in passes[:index]) or "none"
            raise GraphError(
                where=f"pass {each.name} (after: {before})", got=str(error), known=error.known, do=error.do
            ) from error
        left = [node.name for node in graph.nodes if isinstance(node.op, each.removes)]
        if left:
            raise GraphError(
                where=f"pass {each.name}",
                got=f"left {', '.join(left)}",
                known=f"it promises to remove {', '.join(kind.__name__ for kind in each.removes)}",
                do="report this as a bug of spikemorph, with the model",
            )
    return graph
