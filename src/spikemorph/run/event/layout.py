"""How the numbers of a value lie in memory: positions, each a padded row of channels.

One spike then adds whole contiguous rows of weights. Which axis is the channel axis follows from what
produces a value: axis 0 for convolutions, the last one for linear layers; rearrangements carry it on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from spikemorph.evaluate.linear import LINEAR
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node

Ints = NDArray[np.int64]
LANES = 32
"""Rows of channels are multiples of this many numbers."""

BIJECTIVE = (ops.Reshape, ops.Permute)


@final
@dataclass(frozen=True, eq=False)
class Layout:
    """Places of the numbers of a value.

    Args:
        index: [numel], the place of every number in row-major order: position * padded + channel.
    """

    positions: int
    channels: int
    index: Ints

    @property
    def padded(self) -> int:
        """Length of a row."""
        return -(-self.channels // LANES) * LANES

    @property
    def size(self) -> int:
        """Places, the unused ones included."""
        return self.positions * self.padded

    def same(self, other: Layout) -> bool:
        """Whether every number has the same place."""
        return self.padded == other.padded and np.array_equal(self.index, other.index)


def by_axis(shape: tuple[int, ...], axis: int) -> Layout:
    """Channels along one axis; positions are the others in row-major order."""
    shape = shape or (1,)
    axis %= len(shape)
    channels = shape[axis]
    positions = math.prod(shape) // channels
    padded = -(-channels // LANES) * LANES
    others = np.arange(positions).reshape([1 if i == axis else n for i, n in enumerate(shape)])
    lane = np.arange(channels).reshape([n if i == axis else 1 for i, n in enumerate(shape)])
    return Layout(positions, channels, (others * padded + lane).reshape(-1))


def moved(op: ops.Op, before: tuple[int, ...], tensors: Mapping[str, Any] | None = None) -> Ints:
    """Of every number behind a rearranging op its place in front of it, row-major; -1 for padding."""
    numbers = torch.arange(1, math.prod(before) + 1, dtype=torch.float64).reshape(1, *before)
    found: Ints = LINEAR[type(op)](op, [numbers], tensors or {}).reshape(-1).long().numpy() - 1
    return found


def layouts(graph: Graph) -> dict[str, Layout]:
    """The layout of every node of an integer graph without recurrences."""
    found: dict[str, Layout] = {}
    for node in graph.body:
        found[node.name] = _layout(graph, node, found)
    return found


def _layout(graph: Graph, node: Node, found: Mapping[str, Layout]) -> Layout:
    op = node.op
    sources = [graph.by_name[name] for name in node.inputs]
    if isinstance(op, ops.Conv):
        return by_axis(node.shape, 0)
    if isinstance(op, ops.Linear):
        return by_axis(node.shape, -1)
    if isinstance(op, ops.Input):
        return _as_read(graph, node)
    if isinstance(op, BIJECTIVE):
        before = found[sources[0].name]
        return Layout(before.positions, before.channels, before.index[moved(op, sources[0].shape)])
    if isinstance(op, ops.Neuron | ops.IntegrateFire | ops.Readout | ops.Scale | ops.Add | ops.Mul):
        for source in sources:
            if source.shape == node.shape:
                return found[source.name]
    return by_axis(node.shape, 0 if len(node.shape) > 1 else -1)


def _as_read(graph: Graph, node: Node) -> Layout:
    """An input lies as the first op wants it."""
    for user in graph.consumers[node.name]:
        if isinstance(user.op, ops.Conv):
            return by_axis(node.shape, 0)
        if isinstance(user.op, ops.Linear):
            return by_axis(node.shape, -1)
    return by_axis(node.shape, 0 if len(node.shape) > 1 else -1)
