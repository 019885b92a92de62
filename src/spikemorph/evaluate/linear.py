"""Linear and rearranging ops on torch tensors [batch, *shape], for float and integer graphs alike.

Integers travel in floating-point tensors: exact in float64 up to 2**53, in float32 up to 2**24 where no
transform algorithm is used. Weights are cast to the dtype of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.table import OpTable

Inputs = Sequence[Tensor]
Tensors = Mapping[str, Tensor]
LinearRule = Callable[[ops.Op, Inputs, Tensors], Tensor]

LINEAR_OPS = frozenset((
    ops.Conv,
    ops.Linear,
    ops.Affine,
    ops.Scale,
    ops.AxisMap,
    ops.Add,
    ops.Concat,
    *ops.REARRANGING,
))

LINEAR: OpTable[LinearRule] = OpTable("evaluate linear", LINEAR_OPS)


def _named(name: str | None, tensors: Tensors, like: Tensor) -> Tensor | None:
    return None if name is None else tensors[name].to(like.dtype)


@LINEAR.rule(ops.Conv)
def _conv(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Conv)
    (x,) = inputs
    weight, bias = tensors[op.weight].to(x.dtype), _named(op.bias, tensors, x)
    axes = len(op.stride) - 1
    if op.transposed:
        up = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes]
        return up(x, weight, bias, op.stride, op.padding, op.output_padding or 0, op.groups, op.dilation)
    conv = (F.conv1d, F.conv2d, F.conv3d)[axes]
    return conv(x, weight, bias, op.stride, op.padding, op.dilation, op.groups)


@LINEAR.rule(ops.Linear)
def _linear(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Linear)
    (x,) = inputs
    return F.linear(x, tensors[op.weight].to(x.dtype), _named(op.bias, tensors, x))


@LINEAR.rule(ops.Affine)
def _affine(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Affine)
    (x,) = inputs
    gain, offset = _named(op.gain, tensors, x), _named(op.offset, tensors, x)
    x = x if gain is None else x * gain
    return x if offset is None else x + offset


@LINEAR.rule(ops.Scale)
def _scale(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Scale)
    (x,) = inputs
    return x * tensors[op.factor].to(x.dtype)


@LINEAR.rule(ops.AxisMap)
def _axis_map(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.AxisMap)
    (x,) = inputs
    matrix = tensors[op.matrix].to(x.dtype)
    y = torch.movedim(F.linear(torch.movedim(x, op.axis + 1, -1), matrix), -1, op.axis + 1)
    return y if op.denominator == 1 else y / op.denominator


@LINEAR.rule(ops.Add)
def _add(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Add)
    total: Tensor | None = None
    for x, sign in zip(inputs, op.signs, strict=True):
        term = x if sign > 0 else -x
        total = term if total is None else _aligned_add(total, term)
    assert total is not None
    return total


def _aligned_add(a: Tensor, b: Tensor) -> Tensor:
    a, b = align_ranks(a, b)
    return a + b


def align_ranks(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors with as many axes, ones put after the batch axis, so that sample shapes broadcast."""
    rank = max(a.dim(), b.dim())

    def lift(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *(1,) * (rank - x.dim()), *x.shape[1:])

    return lift(a), lift(b)


@LINEAR.rule(ops.Concat)
def _concat(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Concat)
    return torch.cat(tuple(inputs), dim=op.axis + 1)


@LINEAR.rule(ops.Reshape)
def _reshape(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Reshape)
    return inputs[0].reshape(inputs[0].shape[0], *op.shape)


@LINEAR.rule(ops.Permute)
def _permute(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Permute)
    return inputs[0].permute(0, *(axis + 1 for axis in op.axes))


@LINEAR.rule(ops.Slice)
def _slice(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Slice)
    window = [slice(None)] * inputs[0].dim()
    window[op.axis + 1] = slice(op.start, op.stop, op.step)
    return inputs[0][tuple(window)]


@LINEAR.rule(ops.Expand)
def _expand(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Expand)
    (x,) = inputs
    lifted = x.reshape(x.shape[0], *(1,) * (len(op.shape) + 1 - x.dim()), *x.shape[1:])
    return lifted.expand(x.shape[0], *op.shape)


@LINEAR.rule(ops.Pad)
def _pad(op: ops.Op, inputs: Inputs, tensors: Tensors) -> Tensor:
    assert isinstance(op, ops.Pad)
    pairs = [op.pads[i : i + 2] for i in range(0, len(op.pads), 2)]
    return F.pad(inputs[0], [n for pair in reversed(pairs) for n in pair], value=op.value)
