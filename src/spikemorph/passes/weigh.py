"""Gains that a rising neuron cannot take in become weights, and so do those between two activations."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node

MOST_AXES = 4
"""Channels and as many more as a convolution has."""


def weigh_gains(graph: Graph) -> Graph:
    """Affine -> Conv of single numbers, or Linear: between two activations, and where a gain is not positive.

    Args:
        graph: float dialect, batch norms lowered, gains behind weights absorbed.
    """
    tensors, nodes = dict(graph.tensors), []
    for node in graph.nodes:
        if isinstance(node.op, ops.Affine) and _to_weigh(graph, node):
            node = _weighed(graph, node, node.op, tensors)
        nodes.append(node)
    return graph.with_nodes(nodes, tensors=tensors)


def _to_weigh(graph: Graph, node: Node) -> bool:
    assert isinstance(node.op, ops.Affine)
    source = graph.by_name[node.inputs[0]]
    if isinstance(source.op, ops.Input) or source.shape != node.shape:
        return False
    named = [graph.tensors[name] for name in (node.op.gain, node.op.offset) if name is not None]
    if not 1 <= len(node.shape) <= MOST_AXES or not all(_by_channel(each, node) for each in named):
        return False
    gain = node.op.gain
    falls = gain is not None and bool((graph.tensors[gain] <= 0).any())
    follows = isinstance(source.op, ops.Elementwise) and any(
        isinstance(each.op, ops.Elementwise) for each in graph.consumers[node.name]
    )
    return falls or follows


def _by_channel(constant: Tensor, node: Node) -> bool:
    """Whether a constant that broadcasts against the node's shape differs along its first axis at most."""
    front = len(node.shape) - constant.dim()
    return front >= 0 and all(size == 1 or place + front == 0 for place, size in enumerate(constant.shape))


def _weighed(graph: Graph, node: Node, op: ops.Affine, tensors: dict[str, Tensor]) -> Node:
    channels, axes = node.shape[0], len(node.shape) - 1

    def of_channels(name: str | None, neutral: float) -> Tensor:
        constant = torch.full((1,), neutral) if name is None else graph.tensors[name].reshape(-1)
        return constant.float().expand(channels).clone()

    weight, bias = f"{node.name}.gains", f"{node.name}.offsets"
    gains = of_channels(op.gain, 1.0)
    tensors[bias] = of_channels(op.offset, 0.0)
    if axes == 0:
        tensors[weight] = torch.diag(gains)
        return replace(node, op=ops.Linear(weight, bias))
    tensors[weight] = gains.reshape(-1, 1, *(1,) * axes)
    ones, zeros = (1,) * axes, (0,) * axes
    return replace(node, op=ops.Conv(weight, bias, ones, zeros, ones, channels, False, zeros))
