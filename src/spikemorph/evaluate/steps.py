"""The step functions of neurons on torch tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from spikemorph.ir.ops import IntegrateFire, Neuron

FEW = 8
"""Up to this many breakpoints a sum of comparisons beats a binary search."""


def step_function(op: Neuron, acc: Tensor, tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """F(acc), acc [batch, *shape] holding integers with the bias in it; result in the dtype of acc."""
    breakpoints = tensors[op.breakpoints]
    values = None if op.values is None else tensors[op.values]
    if breakpoints.shape[-1] <= FEW:
        return _compare(
            op.lo, breakpoints.to(acc.dtype), None if values is None else values.to(acc.dtype), acc
        )
    return _search(op.lo, breakpoints, values, acc, shape)


def staircase(op: IntegrateFire, acc: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """F(acc) of an integrate-and-fire neuron, acc [batch, *shape] holding integers with all biases in it."""
    threshold, first = (tensors[name].to(acc.dtype) for name in (op.threshold, op.first))
    return (torch.div(acc - first, threshold, rounding_mode="floor") + 1).clamp(op.lo, op.hi)


def _compare(lo: int, breakpoints: Tensor, values: Tensor | None, acc: Tensor) -> Tensor:
    if values is None:
        out = torch.full_like(acc, lo)
        for k in range(breakpoints.shape[-1]):
            out += acc >= breakpoints[..., k]
        return out
    out = values[..., 0].expand_as(acc).clone()
    for k in range(breakpoints.shape[-1]):
        out += (acc >= breakpoints[..., k]) * (values[..., k + 1] - values[..., k])
    return out


def _search(
    lo: int, breakpoints: Tensor, values: Tensor | None, acc: Tensor, shape: tuple[int, ...]
) -> Tensor:
    """Binary search, one row of breakpoints a group: group axes go in front, all others behind."""
    group = (1,) * (len(shape) - breakpoints.dim() + 1) + tuple(breakpoints.shape[:-1])
    front = [axis + 1 for axis, size in enumerate(group) if size > 1]
    order = [*front, *(axis for axis in range(acc.dim()) if axis not in front)]
    moved = acc.permute(order)
    rows = breakpoints.reshape(-1, breakpoints.shape[-1]).to(acc.dtype).contiguous()
    flat = moved.reshape(rows.shape[0], -1).contiguous()
    found = torch.searchsorted(rows, flat, right=True)
    counts = found + lo if values is None else values.reshape(rows.shape[0], -1).gather(1, found)
    back = [order.index(axis) for axis in range(acc.dim())]
    return counts.to(acc.dtype).reshape(moved.shape).permute(back)
