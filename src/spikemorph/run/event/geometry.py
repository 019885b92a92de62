"""Which positions a window reads, as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spikemorph.ir import ops
from spikemorph.run.event.layout import Ints


def conv_windows(op: ops.Conv, before: Sequence[int], after: Sequence[int], kernel: Sequence[int]) -> Ints:
    """[out positions, taps] input positions of a convolution, -1 outside; all row-major."""
    axes = []
    for i, (size, out, taps) in enumerate(zip(before, after, kernel, strict=True)):
        o, k = np.arange(out)[:, None], np.arange(taps)[None, :] * op.dilation[i]
        if op.transposed:
            reach = o + op.padding[i] - k
            at = np.where(reach % op.stride[i] == 0, reach // op.stride[i], -1)
        else:
            at = o * op.stride[i] - op.padding[i] + k
        axes.append(np.where((at >= 0) & (at < size), at, -1))
    return _product(axes, before)


def pool_windows(op: ops.MaxPool, before: Sequence[int], after: Sequence[int]) -> Ints:
    """[out positions, taps] input positions of a pool over all of these axes, -1 for padding."""
    axes = []
    for i, (size, out) in enumerate(zip(before, after, strict=True)):
        o, k = np.arange(out)[:, None], np.arange(op.kernel[i])[None, :] * op.dilation[i]
        at = o * op.stride[i] - op.padding[i] + k
        axes.append(np.where((at >= 0) & (at < size), at, -1))
    return _product(axes, before)


def _product(axes: Sequence[Ints], before: Sequence[int]) -> Ints:
    """Tables of single axes [out, taps] to one of all axes together."""
    table = np.zeros((1, 1), dtype=np.int64)
    for each, size in zip(axes, before, strict=True):
        both = table[:, None, :, None] * size + each[None, :, None, :]
        missing = (table[:, None, :, None] < 0) | (each[None, :, None, :] < 0)
        both[missing] = -1
        table = both.reshape(table.shape[0] * each.shape[0], -1)
    return table


def windows_of(op: ops.MaxPool | ops.AMax, before: tuple[int, ...], after: tuple[int, ...]) -> Ints:
    """[numbers of the result, taps] numbers of the input, row-major, -1 for padding."""
    if isinstance(op, ops.AMax):
        kept = [axis for axis in range(len(before)) if axis not in op.axes]
        numbers = np.arange(math.prod(before)).reshape(before or (1,))
        return numbers.transpose([*kept, *op.axes]).reshape(math.prod(after), -1)
    spatial = len(op.kernel)
    front = math.prod(before[: len(before) - spatial])
    inside = pool_windows(op, before[len(before) - spatial :], after[len(after) - spatial :])
    offsets = np.arange(front)[:, None, None] * math.prod(before[len(before) - spatial :])
    found: Ints = np.where(inside < 0, -1, inside + offsets).reshape(-1, inside.shape[1])
    return found
