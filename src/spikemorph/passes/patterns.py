"""Along which axes the unit of a value may vary.

A pattern is a shape that broadcasts against the value's: size 1 where the unit is the same along an axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from spikemorph.evaluate.linear import LINEAR
from spikemorph.ir import ops

Shape = tuple[int, ...]

OUTSIDE = -1
"""Marks padding: counts are 0 there, any unit will do."""


@lru_cache(maxsize=512)
def rearranged(op: ops.Op, shape: Shape, pattern: Shape) -> tuple[Shape, Tensor]:
    """Where the units of a rearranged value come from.

    Args:
        op: one of `ops.REARRANGING`.
        shape: of the value that is rearranged.
        pattern: of its unit.

    Returns:
        The pattern of the result, and for each of its entries the flat index into the old pattern
        (int64, in the shape of the new pattern).
    """
    labels = torch.arange(_numel(pattern), dtype=torch.float64).reshape(pattern).expand(shape)
    if isinstance(op, ops.Pad):
        op = ops.Pad(op.pads, float(OUTSIDE))
    moved = LINEAR[type(op)](op, [labels.unsqueeze(0)], {})[0].to(torch.int64)
    for axis in range(moved.dim()):
        moved = _squeeze_uniform(moved, axis)
    return tuple(moved.shape), moved.clamp(min=0)


def _squeeze_uniform(labels: Tensor, axis: int) -> Tensor:
    """Size 1 along an axis whose labels agree, padding aside."""
    if labels.numel() == 0 or labels.shape[axis] == 1:
        return labels
    highest = labels.amax(axis, keepdim=True)
    agree = (labels == highest) | (labels == OUTSIDE)
    return highest if bool(agree.all()) else labels


def _numel(shape: Shape) -> int:
    return int(torch.Size(shape).numel())


def broadcast(*patterns: Shape) -> Shape:
    """The pattern of a sum or product."""
    return tuple(torch.broadcast_shapes(*patterns))


def joined(axis: int, shapes: tuple[Shape, ...], patterns: tuple[Shape, ...]) -> Shape:
    """The pattern of a concatenation: the unit may vary along its axis."""
    merged = list(broadcast(*(tuple(1 if i == axis else n for i, n in enumerate(each)) for each in patterns)))
    merged[axis] = sum(shape[axis] for shape in shapes)
    return tuple(merged)


def lifted(pattern: Shape, rank: int) -> Shape:
    """The same pattern with ones in front, as broadcasting reads it."""
    return (1,) * (rank - len(pattern)) + pattern


def affine_pattern(op: ops.Affine, pattern: Shape, tensors: Mapping[str, Tensor]) -> Shape:
    """The pattern after a gain."""
    return pattern if op.gain is None else broadcast(pattern, tuple(tensors[op.gain].shape))
