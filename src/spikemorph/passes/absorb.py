"""Gains and offsets behind weights go into the weights, so that no unit is negative."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node


def absorb_gains(graph: Graph) -> Graph:
    """Conv | Linear -> Affine becomes one Conv | Linear, where the constants go by output channel.

    Args:
        graph: float or planned dialect, batch norms lowered.
    """
    tensors, made, names = dict(graph.tensors), dict[str, Node](), dict[str, str]()
    for node in graph.nodes:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        node = replace(node, inputs=inputs)
        source = made.get(inputs[0]) if isinstance(node.op, ops.Affine) else None
        if source is not None and _absorbs(graph, source, node, tensors):
            made[source.name] = _joined(source, node, tensors)
            names[node.name] = source.name
        else:
            made[node.name] = node
    outputs = tuple(names.get(name, name) for name in graph.outputs)
    return graph.with_nodes(made.values(), tensors=tensors, outputs=outputs)


def _absorbs(graph: Graph, source: Node, node: Node, tensors: dict[str, Tensor]) -> bool:
    alone = source.name not in graph.outputs and len(graph.consumers[source.name]) == 1
    if not isinstance(source.op, ops.Conv | ops.Linear) or not alone or source.shape != node.shape:
        return False
    assert isinstance(node.op, ops.Affine)
    axis = _channel_axis(source)
    named = [tensors[name] for name in (node.op.gain, node.op.offset) if name is not None]
    return all(
        size == 1 or place + len(node.shape) - each.dim() == axis
        for each in named
        for place, size in enumerate(each.shape)
    )


def _channel_axis(node: Node) -> int:
    return 0 if isinstance(node.op, ops.Conv) else len(node.shape) - 1


def _joined(source: Node, node: Node, tensors: dict[str, Tensor]) -> Node:
    op, affine = source.op, node.op
    assert isinstance(op, ops.Conv | ops.Linear) and isinstance(affine, ops.Affine)
    channels = source.shape[_channel_axis(source)]

    def by_channel(name: str | None, neutral: float) -> Tensor:
        constant = torch.full((1,), neutral) if name is None else tensors[name].reshape(-1)
        return constant.double().expand(channels)

    gain, offset = by_channel(affine.gain, 1.0), by_channel(affine.offset, 0.0)
    weight = tensors[op.weight].double()
    name = f"{source.name}.weight with gain"
    tensors[name] = (weight * _along(op, weight, gain)).float()
    bias = offset if op.bias is None else tensors[op.bias].double() * gain + offset
    tensors[f"{source.name}.bias with offset"] = bias.float()
    return replace(source, op=replace(op, weight=name, bias=f"{source.name}.bias with offset"))


def _along(op: ops.Conv | ops.Linear, weight: Tensor, gain: Tensor) -> Tensor:
    """Gains of output channels as they multiply a weight."""
    if isinstance(op, ops.Conv) and op.transposed:
        per_group = gain.reshape(op.groups, 1, -1)
        inside = weight.shape[0] // op.groups
        return per_group.expand(-1, inside, -1).reshape(*weight.shape[:2], *(1,) * (weight.dim() - 2))
    return gain.reshape(-1, *(1,) * (weight.dim() - 1))
