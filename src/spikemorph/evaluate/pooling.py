"""Pools, means and upsampling on torch tensors [batch, *shape]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from spikemorph.ir import ops

Maximum = ops.MaxPool | ops.AMax
Average = ops.AvgPool | ops.AdaptiveAvgPool | ops.Mean | ops.Upsample


def maximum(op: Maximum, x: Tensor) -> Tensor:
    """The maximum over windows or axes; padding never wins."""
    match op:
        case ops.MaxPool(kernel, stride, padding, dilation, ceil):
            pool: Callable[..., Tensor] = F.max_pool1d if len(kernel) == 1 else F.max_pool2d
            return _batched(lambda y: pool(y, kernel, stride, padding, dilation, ceil), x, len(kernel))
        case ops.AMax(axes, keepdim):
            return torch.amax(x, dim=[axis + 1 for axis in axes], keepdim=keepdim)
        case _:
            assert_never(op)


def average(op: Average, x: Tensor) -> Tensor:
    """Average pools, means and upsampling as torch defines them."""
    match op:
        case ops.AvgPool():
            return _avg_pool(op, x)
        case ops.AdaptiveAvgPool(size):
            adaptive: Callable[..., Tensor] = (
                F.adaptive_avg_pool1d if len(size) == 1 else F.adaptive_avg_pool2d
            )
            return _batched(lambda y: adaptive(y, size), x, len(size))
        case ops.Mean(axes, keepdim):
            return x.mean(dim=[axis + 1 for axis in axes], keepdim=keepdim)
        case ops.Upsample():
            return _batched(lambda y: _upsample(op, y), x, len(op.size))
        case _:
            assert_never(op)


def _avg_pool(op: ops.AvgPool, x: Tensor) -> Tensor:
    if len(op.kernel) == 1:
        y = F.avg_pool1d(_flat(x, 1), op.kernel, op.stride, op.padding, op.ceil, op.count_include_pad)
    else:
        y = F.avg_pool2d(
            _flat(x, 2), op.kernel, op.stride, op.padding, op.ceil, op.count_include_pad, op.divisor
        )
    return y.reshape(*x.shape[: x.dim() - len(op.kernel)], *y.shape[2:])


def _upsample(op: ops.Upsample, x: Tensor) -> Tensor:
    if op.mode == "nearest":
        source = [_nearest(x.shape[2 + i], out, scale) for i, (out, scale) in enumerate(_sizes(op))]
        for i, index in enumerate(source):
            x = x.index_select(2 + i, index.to(x.device))
        return x
    mode = "linear" if len(op.size) == 1 else "bilinear"
    factors = [scale for _, scale in _sizes(op) if scale is not None]
    if 0 < len(factors) < len(op.size):
        return _axis_by_axis(op, x)
    if len(factors) == len(op.size):
        y = F.interpolate(
            x, scale_factor=factors, mode=mode, align_corners=op.align_corners, recompute_scale_factor=False
        )
        if tuple(y.shape[2:]) == op.size:
            return y
    return F.interpolate(x, size=op.size, mode=mode, align_corners=op.align_corners)


def _axis_by_axis(op: ops.Upsample, x: Tensor) -> Tensor:
    """Where only some axes have a scale: torch takes one for all or none, and the op is separable."""
    for axis, (size, scale) in enumerate(_sizes(op), start=2):
        one = replace(op, size=(size,), scales=(scale,))
        moved = x.movedim(axis, -1)
        x = _upsample(one, moved.flatten(1, -2)).reshape(*moved.shape[:-1], size).movedim(-1, axis)
    return x


def _sizes(op: ops.Upsample) -> list[tuple[int, float | None]]:
    return list(zip(op.size, op.scales or (None,) * len(op.size), strict=True))


def _nearest(size: int, out: int, scale: float | None) -> Tensor:
    step = torch.tensor(size / out if scale is None else 1.0 / scale, dtype=torch.float32)
    return (torch.arange(out, dtype=torch.float32) * step).floor().long().clamp(max=size - 1)


def _flat(x: Tensor, spatial: int) -> Tensor:
    """[N, C, *spatial] whatever stands before the spatial axes."""
    return x.reshape(x.shape[0], -1, *x.shape[x.dim() - spatial :])


def _batched(pool: Callable[[Tensor], Tensor], x: Tensor, spatial: int) -> Tensor:
    y = pool(_flat(x, spatial))
    return y.reshape(*x.shape[: x.dim() - spatial], *y.shape[2:])
