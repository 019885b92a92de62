"""What every integer op makes of the values of its inputs, in NumPy int64, written as it is defined.

Shares no arithmetic with the torch paths on purpose: it is what they are tested against. Values are
[batch, *shape]; op axes and shapes never count the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import EllipsisType

import numpy as np
import numpy.typing as npt

from spikemorph.errors import GraphError
from spikemorph.ir import ops
from spikemorph.ir.table import OpTable

Array = npt.NDArray[np.int64]
Inputs = tuple[Array, ...]
Numbers = Mapping[str, Array]
Rule = Callable[[ops.Op, Inputs, Numbers], Array]

_HOST = "works on the decoded output, after the simulation"
_NOTHING = np.iinfo(np.int64).min

REFERENCE: OpTable[Rule] = OpTable(
    "reference", ops.SPIKING_OPS, gaps={ops.Recurrence: "runs as cells", **dict.fromkeys(ops.HOST, _HOST)}
)


def value(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    """The value of an op whose inputs have these values, all [batch, *shape].

    A neuron or pool gives the count it wants to reach, a readout its integers with the bias, an input
    what it is given.

    Args:
        numbers: the graph's integer tensors, int64, by name.

    Raises:
        GraphError: an op without a rule, a pooling window without a single input.
    """
    return REFERENCE[type(op)](op, inputs, numbers)


@REFERENCE.rule(ops.Input)
def _input(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    (x,) = inputs
    return x


# ---------------------------------------------------------------- linear, with weights
@REFERENCE.rule(ops.Conv)
def _conv(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Conv)
    (x,) = inputs
    return (_conv_up if op.transposed else _conv_down)(op, x, numbers[op.weight])


def _conv_down(op: ops.Conv, x: Array, weight: Array) -> Array:
    """Every kernel position reads the input at its offset, one stride apart."""
    x = _surrounded(x, tuple((pad, pad) for pad in op.padding), 0)
    batch, channels, *size = x.shape
    out, _, *kernel = weight.shape
    reach = [n - d * (k - 1) - 1 for n, k, d in zip(size, kernel, op.dilation, strict=True)]
    count = tuple(n // s + 1 for n, s in zip(reach, op.stride, strict=True))
    grouped = x.reshape(batch, op.groups, channels // op.groups, *size)
    weight = weight.reshape(op.groups, out // op.groups, channels // op.groups, *kernel)
    y = np.zeros((batch, op.groups, out // op.groups, *count), np.int64)
    for offset in np.ndindex(*kernel):
        seen = grouped[_strided(offset, op.dilation, op.stride, count)]
        y += np.einsum("bgi...,goi->bgo...", seen, weight[(..., *offset)])
    return y.reshape(batch, out, *count)


def _conv_up(op: ops.Conv, x: Array, weight: Array) -> Array:
    """Every kernel position writes to the output at its offset, one stride apart; padding cuts the rim."""
    batch, channels, *size = x.shape
    _, out, *kernel = weight.shape
    more = op.output_padding or (0,) * len(size)
    span = [d * (k - 1) + 1 for k, d in zip(kernel, op.dilation, strict=True)]
    whole = [(n - 1) * s + w + o for n, s, w, o in zip(size, op.stride, span, more, strict=True)]
    grouped = x.reshape(batch, op.groups, channels // op.groups, *size)
    weight = weight.reshape(op.groups, channels // op.groups, out, *kernel)
    y = np.zeros((batch, op.groups, out, *whole), np.int64)
    for offset in np.ndindex(*kernel):
        place = _strided(offset, op.dilation, op.stride, tuple(size))
        y[place] += np.einsum("bgi...,gio->bgo...", grouped, weight[(..., *offset)])
    kept = tuple(slice(pad, n - pad) for pad, n in zip(op.padding, whole, strict=True))
    y = y[:, :, :, *kept]
    return y.reshape(batch, op.groups * out, *y.shape[3:])


def _strided(
    offset: tuple[int, ...], dilation: ops.Ints, stride: ops.Ints, count: tuple[int, ...]
) -> tuple[EllipsisType | slice, ...]:
    """Of each trailing axis, `count` places one stride apart, the first at a kernel position's offset."""
    axes = zip(offset, dilation, stride, count, strict=True)
    return (..., *(slice(o * d, o * d + s * (n - 1) + 1, s) for o, d, s, n in axes))


def _surrounded(x: Array, pads: tuple[tuple[int, int], ...], filling: int) -> Array:
    """`filling` before and after the trailing axes."""
    still = ((0, 0),) * (x.ndim - len(pads))
    return np.pad(x, (*still, *pads), constant_values=filling)


@REFERENCE.rule(ops.Linear)
def _linear(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Linear)
    return _mapped(inputs[0], -1, numbers[op.weight])


@REFERENCE.rule(ops.AxisMap)
def _axis_map(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.AxisMap)
    return _mapped(inputs[0], op.axis + 1, numbers[op.matrix])


def _mapped(x: Array, axis: int, matrix: Array) -> Array:
    y = np.einsum("...i,oi->...o", np.moveaxis(x, axis, -1), matrix)
    return np.moveaxis(y, -1, axis)


@REFERENCE.rule(ops.Scale)
def _scale(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Scale)
    return inputs[0] * numbers[op.factor]


# ---------------------------------------------------------------- linear, without weights
@REFERENCE.rule(ops.Add)
def _add(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Add)
    total, *rest = (sign * x for sign, x in zip(op.signs, same_rank(inputs), strict=True))
    for term in rest:
        total = total + term
    return total


def same_rank(inputs: Inputs) -> Inputs:
    """Axes of size 1 after the batch, so that values without their batch broadcast."""
    rank = max(x.ndim for x in inputs)
    return tuple(x.reshape(x.shape[0], *(1,) * (rank - x.ndim), *x.shape[1:]) for x in inputs)


@REFERENCE.rule(ops.Concat)
def _concat(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Concat)
    return np.concatenate(inputs, axis=op.axis + 1)


@REFERENCE.rule(ops.Reshape)
def _reshape(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Reshape)
    return inputs[0].reshape(inputs[0].shape[0], *op.shape)


@REFERENCE.rule(ops.Permute)
def _permute(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Permute)
    return inputs[0].transpose(0, *(axis + 1 for axis in op.axes))


@REFERENCE.rule(ops.Slice)
def _slice(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Slice)
    return np.take(inputs[0], np.arange(op.start, op.stop, op.step), axis=op.axis + 1)


@REFERENCE.rule(ops.Expand)
def _expand(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Expand)
    batch = inputs[0].shape[0]
    (x, _) = same_rank((inputs[0], np.zeros((batch, *op.shape), np.int64)))
    return np.broadcast_to(x, (batch, *op.shape))


@REFERENCE.rule(ops.Pad)
def _pad(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Pad)
    return _surrounded(inputs[0], tuple(zip(op.pads[::2], op.pads[1::2], strict=True)), 0)


# ---------------------------------------------------------------- non-linear
@REFERENCE.rule(ops.Mul)
def _mul(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    a, b = same_rank(inputs)
    return a * b


@REFERENCE.rule(ops.Neuron)
def _neuron(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    """The step function: count the breakpoints that the accumulator has reached, look the count up."""
    assert isinstance(op, ops.Neuron)
    accumulator = inputs[0] if op.bias is None else inputs[0] + numbers[op.bias]
    breakpoints = numbers[op.breakpoints]
    reached = np.zeros_like(accumulator)
    for k in range(breakpoints.shape[-1]):
        reached += breakpoints[..., k] <= accumulator
    if op.values is None:
        return op.lo + reached
    values = numbers[op.values]
    target = np.zeros_like(accumulator)
    for k in range(values.shape[-1]):
        target += np.where(reached == k, values[..., k], 0)
    return target


@REFERENCE.rule(ops.IntegrateFire)
def _integrate_fire(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    """How many spikes have been due: one when the sum reaches `first`, one more with every threshold."""
    assert isinstance(op, ops.IntegrateFire)
    accumulator = inputs[0] if op.bias is None else inputs[0] + numbers[op.bias]
    due = 1 + np.floor_divide(accumulator - numbers[op.first], numbers[op.threshold])
    return np.asarray(np.clip(due, op.lo, op.hi), np.int64)


@REFERENCE.rule(ops.MaxPool)
def _max_pool(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.MaxPool)
    (x,) = inputs
    size = x.shape[x.ndim - len(op.kernel) :]
    axes = list(zip(size, op.kernel, op.stride, op.padding, op.dilation, strict=True))
    count = tuple(_windows(*axis, ceil=op.ceil) for axis in axes)
    # The last window may end beyond the right padding (ceil), or before it.
    ends = [(n - 1) * s + d * (k - 1) + 1 for n, (_, k, s, _, d) in zip(count, axes, strict=True)]
    pads = tuple((p, max(0, end - n - p)) for end, (n, _, _, p, _) in zip(ends, axes, strict=True))
    x = _surrounded(x, pads, _NOTHING)
    best = np.full((*x.shape[: x.ndim - len(count)], *count), _NOTHING)
    for offset in np.ndindex(*op.kernel):
        best = np.maximum(best, x[_strided(offset, op.dilation, op.stride, count)])
    if (best == _NOTHING).any():
        raise GraphError(
            where=f"max pool of kernel {op.kernel}, dilation {op.dilation}, padding {op.padding}",
            got=f"a window that holds nothing but padding, on an input of size {size}",
            known="every window must see at least one input",
            do="use less padding or dilation, or a larger input",
        )
    return best


def _windows(size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool) -> int:
    """How many windows fit; the last one must start inside the input or its left padding, as in torch."""
    reach = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return reach // stride + 1
    count = -(-reach // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


@REFERENCE.rule(ops.AMax)
def _amax(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.AMax)
    axes = tuple(axis + 1 for axis in op.axes)
    return np.asarray(inputs[0].max(axis=axes, keepdims=op.keepdim))


@REFERENCE.rule(ops.Readout)
def _readout(op: ops.Op, inputs: Inputs, numbers: Numbers) -> Array:
    assert isinstance(op, ops.Readout)
    return inputs[0] if op.bias is None else inputs[0] + numbers[op.bias]
