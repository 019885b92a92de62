"""Edges of single links: averages, upsampling, factors, and numbers that only change place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Node
from spikemorph.run.event.layout import Ints, Layout
from spikemorph.run.event.program import Edge, EdgeKind
from spikemorph.run.event.views import Shape, Term

Triple = tuple[Ints, Ints, Ints]
"""Source places, target places, weights."""


def linked(source: int, before: Layout, after: Layout, links: Triple) -> Edge:
    """Links sorted by their source place.

    Args:
        before, after: layouts of what is sent and of the sums.
    """
    places, targets, weights = links
    size, alike = before.size, before.padded == after.padded
    if alike and np.array_equal(places, targets) and len(np.unique(places)) == len(places):
        straight = np.zeros(size, dtype=np.int64)
        straight[places] = weights
        return Edge(EdgeKind.STRAIGHT, source, weight=straight)
    order = np.argsort(places, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(places, minlength=size))])
    return Edge(EdgeKind.LINKS, source, first=first, target=targets[order], weight=weights[order])


@final
@dataclass(frozen=True, eq=False)
class Sparse:
    """Links between the numbers of two values, row-major on both sides."""

    source: Ints
    result: Ints
    weight: Ints

    def from_term(self, term: Term, target: Ints, sign: int) -> Triple:
        """The same from the places of a term to the places of the target."""
        places, targets = term.index[self.source], target[self.result]
        used = (places >= 0) & (targets >= 0)
        return places[used], targets[used], self.weight[used] * (sign * term.sign)


def mapped(node: Node, before: Shape, tensors: Mapping[str, Tensor]) -> Sparse:
    """The links of a scale or of a map along one axis."""
    op = node.op
    numbers = np.arange(math.prod(node.shape))
    if isinstance(op, ops.Scale):
        factor = np.broadcast_to(tensors[op.factor].long().numpy(), node.shape).reshape(-1)
        source = np.broadcast_to(np.arange(math.prod(before)).reshape(before), node.shape).reshape(-1)
        return Sparse(source, numbers, factor)
    assert isinstance(op, ops.AxisMap)
    matrix = tensors[op.matrix].long().numpy()
    out, inner = np.nonzero(matrix)
    sources = np.arange(math.prod(before)).reshape(before).take(inner, axis=op.axis)
    results = numbers.reshape(node.shape).take(out, axis=op.axis)
    along = [-1 if i == op.axis else 1 for i in range(len(before))]
    weights = np.broadcast_to(matrix[out, inner].reshape(along), sources.shape)
    return Sparse(sources.reshape(-1), results.reshape(-1), weights.reshape(-1))
