"""Linear layers with the scale behind them as one layer, where nobody asks what arrives between the two."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node


def composed(graph: Graph) -> Graph:
    """The same sums from fewer ops: a linear layer that one scale alone reads takes it into its weights."""
    tensors = dict(graph.tensors)
    gone: set[str] = set()
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        nodes[node.name] = node
        if not isinstance(node.op, ops.Scale):
            continue
        source = graph.by_name[node.inputs[0]]
        if not isinstance(source.op, ops.Linear) or len(graph.consumers[source.name]) != 1:
            continue
        factor = _by_channel(tensors[node.op.factor], node.shape)
        if factor is None or source.shape != node.shape:
            continue
        name = f"{source.op.weight} * {node.op.factor}"
        tensors[name] = graph.tensors[source.op.weight].long() * factor[:, None]
        nodes[node.name] = replace(node, op=replace(source.op, weight=name), inputs=source.inputs)
        gone.add(source.name)
    if not gone:
        return graph
    return graph.with_nodes((node for name, node in nodes.items() if name not in gone), tensors=tensors)


def _by_channel(factor: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """[channels] factors along the last axis, None where they differ along another one."""
    rows = torch.broadcast_to(factor.long(), shape).reshape(-1, shape[-1])
    return rows[0] if bool((rows == rows[0]).all()) else None
