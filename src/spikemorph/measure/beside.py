"""A float network laid beside the integer or rate graph that was made from it, neuron by neuron.

Both have the same names: a neuron is called after the last function of its chain, an identity neuron after
the value that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from spikemorph.errors import GraphError
from spikemorph.evaluate.floats import evaluate_node
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.passes import plan_without_identities
from spikemorph.passes.levels import Levels

IDENTITY = ".identity"
READOUT = ".readout"

Seen = Callable[[str, Tensor], Tensor]
"""seen(name, what the float layer makes of what arrives) -> what is passed on."""


@final
@dataclass(frozen=True)
class Beside:
    """The float network in the shape of an integer graph.

    Args:
        planned: with an identity where the integer graph has an identity neuron.
        graph: the integer or rate graph.
    """

    planned: Graph
    graph: Graph

    def walk(self, inputs: tuple[Tensor, ...], seen: Seen) -> None:
        """Every layer in turn: what `seen` returns for it is what reaches the layers behind it.

        Args:
            inputs: [batch, *shape], by argument number, of any float type.
        """
        read = {_source_of(node.name): node.name for node in self.graph.readouts}
        last_use = {name: node.name for node in self.planned.nodes for name in node.inputs}
        known = {node.name for node in (*self.graph.inputs, *self.graph.neurons)}
        values: dict[str, Tensor] = {}
        for node in self.planned.body:
            if isinstance(node.op, ops.Input):
                values[node.name] = inputs[node.op.index]
            else:
                values[node.name] = evaluate_node(node, values, self.planned.tensors)
            if node.name in known:
                values[node.name] = seen(node.name, values[node.name])
            if node.name in read:
                seen(read[node.name], values[node.name])
            for name in node.inputs:
                if last_use[name] == node.name:
                    values.pop(name, None)


def layers_of(graph: Graph) -> tuple[Node, ...]:
    """What has an activation to compare: inputs, nodes that emit, readouts."""
    kinds = (ops.Input, *ops.EMITTING, ops.Readout)
    return tuple(node for node in graph.nodes if isinstance(node.op, kinds))


def _source_of(name: str) -> str:
    """The value that a readout reads, of those that the planned graph has."""
    return name.removesuffix(READOUT)


def lay_beside(float_graph: Graph, graph: Graph) -> Beside:
    """The float network beside an integer graph.

    Args:
        float_graph: as captured from the model that `graph` was quantised from.
        graph: integer or rate dialect.

    Raises:
        GraphError: another dialect, or a network of another architecture.
    """
    if float_graph.dialect is not Dialect.FLOAT:
        raise GraphError(
            where="the float network",
            got=f"dialect {float_graph.dialect.value}",
            known="the captured network, dialect float",
            do="pass the result of capture(model, example_inputs)",
        )
    with torch.no_grad():
        planned = plan_without_identities(float_graph, Levels())
    planned = _with_identities(planned, graph)
    _check(planned, graph)
    return Beside(planned, graph)


def _with_identities(planned: Graph, graph: Graph) -> Graph:
    """Identities where the integer graph has them, between the very nodes between which it has them."""
    guarded = {
        (reader, source)
        for node in graph.nodes
        for source in node.inputs
        if source.endswith(IDENTITY)
        for reader in _readers(planned, graph, node)
    }
    made: list[Node] = []
    for node in planned.nodes:
        guards = {name: f"{name}{IDENTITY}" for name in node.inputs}
        guards = {name: guard for name, guard in guards.items() if (node.name, guard) in guarded}
        made.append(replace(node, inputs=tuple(guards.get(name, name) for name in node.inputs)))
        guard = graph.by_name.get(f"{node.name}{IDENTITY}")
        if guard is not None and isinstance(guard.op, ops.Neuron | ops.IntegrateFire):
            op = ops.Quantiser((), guard.op.lo, guard.op.hi)
            made.append(replace(node, name=guard.name, op=op, inputs=(node.name,)))
    return planned.with_nodes(made)


def _readers(planned: Graph, graph: Graph, node: Node) -> tuple[str, ...]:
    """The node, or where the planned graph has none of its name, those behind it that it has."""
    if node.name in planned.by_name:
        return (node.name,)
    return tuple(name for user in graph.consumers[node.name] for name in _readers(planned, graph, user))


def _check(planned: Graph, graph: Graph) -> None:
    """Every layer of the integer graph has a float value of its shape."""
    for node in layers_of(graph):
        twin = planned.by_name.get(_source_of(node.name))
        if twin is None or twin.shape != node.shape:
            raise GraphError(
                where=f"layer '{node.name}', {node.origin}",
                got="no such layer in the float network" if twin is None else f"shape {list(twin.shape)}",
                known=f"one of shape {list(node.shape)}",
                do="pass the float network that this one was converted from, with inputs of the same size",
            )
