"""The shape of every op's result, without the batch axis, in plain integers: nothing is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from spikemorph.errors import GraphError
from spikemorph.ir import ops
from spikemorph.ir.table import OpTable

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
Tensors = Mapping[str, Tensor]
ShapeRule = Callable[[Any, Shapes, Tensors], Shape]

SHAPES: OpTable[ShapeRule] = OpTable("shapes", ops.ALL_OPS, gaps={ops.Input: "its node states the shape"})
"""Rules are called by `infer`, which has checked the number of inputs."""

DO = "correct the step, or the file, that made this op"


def infer(op: ops.Op, input_shapes: Shapes, tensors: Tensors) -> Shape:
    """The shape of the op's result, without batch.

    Args:
        op: any op but `Input`, whose shape is given.
        input_shapes: without batch, one for each input.
        tensors: every tensor that the op names; only their shapes are read.

    Raises:
        GraphError: op, inputs and tensors do not fit together.
    """
    many = isinstance(op, ops.Add | ops.Concat)
    wanted = 2 if isinstance(op, ops.Mul) else 1
    got = len(input_shapes)
    _demand(got >= 1 if many else got == wanted, op, f"{got} input(s)", "1 or more" if many else str(wanted))
    shape = SHAPES[type(op)](op, input_shapes, tensors)
    _demand(
        all(size >= 1 for size in shape),
        op,
        f"a result of shape {shape} from {' and '.join(map(str, input_shapes))}",
        "every axis of a result has at least one entry",
        "make the input larger, or the window or padding smaller",
    )
    return shape


def broadcast(shapes: Shapes) -> Shape | None:
    """The common shape, axes aligned at the end; None where two sizes differ and none is 1."""
    rank = max((len(shape) for shape in shapes), default=0)
    result = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            return None
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def window_count(
    size: int, kernel: int, stride: int, padding: int, dilation: int = 1, *, ceil: bool = False
) -> int:
    """How many windows torch lays along one axis; `ceil` admits a last one that reaches beyond the end.

    That last window must start inside the input or its left padding. At most 0 where none fits.
    """
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def _demand(holds: bool, op: ops.Op, got: str, known: str, do: str = DO) -> None:
    if not holds:
        raise GraphError(where=f"op {type(op).__name__}", got=got, known=known, do=do)


def _tensor_shape(op: ops.Op, name: str, tensors: Tensors) -> Shape:
    _demand(name in tensors, op, f"no tensor '{name}'", "every tensor that an op names is in the graph")
    return tuple(tensors[name].shape)


def _demand_shape(op: ops.Op, name: str | None, tensors: Tensors, wanted: Shape) -> None:
    if name is not None:
        got = _tensor_shape(op, name, tensors)
        _demand(got == wanted, op, f"tensor '{name}' of shape {got}", f"shape {wanted}")


def _demand_constant(op: ops.Op, name: str | None, tensors: Tensors, shape: Shape) -> None:
    """A constant may be broadcast to the shape, but may not enlarge it."""
    if name is not None:
        got = _tensor_shape(op, name, tensors)
        fits = broadcast((got, shape)) == shape
        _demand(fits, op, f"tensor '{name}' of shape {got}", f"broadcasts to {shape}")


def _demand_axes(op: ops.Op, axes: Shape, shape: Shape) -> None:
    fits = all(0 <= axis < len(shape) for axis in axes) and len(set(axes)) == len(axes)
    _demand(fits, op, f"axes {axes} of shape {shape}", f"different axes in 0..{len(shape) - 1}, batch apart")


def _demand_windows(op: ops.Op, shape: Shape, sizes: Mapping[str, Shape], lowest: Mapping[str, int]) -> int:
    """All `sizes` have one entry a window axis, and none below `lowest`. The number of window axes."""
    spatial = len(next(iter(sizes.values())))
    listing = ", ".join(f"{name} {value}" for name, value in sizes.items())
    most, axes = (3, "1 to 3") if isinstance(op, ops.Conv) else (2, "1 or 2")
    fits = 1 <= spatial <= most and all(len(value) == spatial for value in sizes.values())
    _demand(fits, op, listing, f"{axes} window axes, and one entry for each in every parameter")
    for name, value in sizes.items():
        low = lowest.get(name, 1)
        _demand(min(value) >= low, op, f"{name} {value}", f"entries of at least {low}")
    _demand(len(shape) >= spatial, op, f"input of shape {shape}", f"at least {spatial} axes")
    return spatial


# ---------------------------------------------------------------- linear, with weights
@SHAPES.rule(ops.Conv)
def _conv(op: ops.Conv, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    sizes = {"stride": op.stride, "padding": op.padding, "dilation": op.dilation}
    if op.output_padding:
        sizes["output_padding"] = op.output_padding
    spatial = _demand_windows(op, shape, sizes, {"padding": 0, "output_padding": 0})
    _demand(len(shape) == spatial + 1, op, f"input of shape {shape}", f"channels and {spatial} window axes")
    weight = _tensor_shape(op, op.weight, tensors)
    known = f"{spatial + 2} axes: channels, channels, kernel"
    _demand(len(weight) == spatial + 2 and min(weight) >= 1, op, f"weight of shape {weight}", known)
    channels = _conv_channels(op, shape, weight)
    _demand_shape(op, op.bias, tensors, (channels,))
    extra = op.output_padding or (0,) * spatial
    axes = zip(shape[1:], weight[2:], op.stride, op.padding, op.dilation, extra, strict=True)
    if not op.transposed:
        _demand(not any(extra), op, f"output_padding {extra}", "only a transposed convolution has it")
        return channels, *(window_count(n, k, s, p, d) for n, k, s, p, d, _ in axes)
    known = "output_padding below the stride or the dilation of its axis"
    for extra_size, s, d in zip(extra, op.stride, op.dilation, strict=True):
        _demand(extra_size < max(s, d), op, f"output_padding {extra}", known)
    return channels, *((n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, d, e in axes)


def _conv_channels(op: ops.Conv, shape: Shape, weight: Shape) -> int:
    """The number of output channels."""
    groups, layout = op.groups, "[in, out/groups, ...]" if op.transposed else "[out, in/groups, ...]"
    taken, made = (weight[0], weight[1] * groups) if op.transposed else (weight[1] * groups, weight[0])
    fits = groups >= 1 and taken == shape[0] and taken % groups == 0 and made % groups == 0
    got = f"{groups} groups, input of shape {shape}, weight of shape {weight}"
    _demand(fits, op, got, f"weight {layout}, both numbers of channels multiples of groups")
    return made


@SHAPES.rule(ops.Linear)
def _linear(op: ops.Linear, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    weight = _tensor_shape(op, op.weight, tensors)
    fits = len(weight) == 2 and len(shape) >= 1 and weight[1] == shape[-1]
    _demand(fits, op, f"weight of shape {weight} on {shape}", "[out, in], in = the size of the last axis")
    _demand_shape(op, op.bias, tensors, weight[:1])
    return *shape[:-1], weight[0]


@SHAPES.rule(ops.BatchNorm)
def _batch_norm(op: ops.BatchNorm, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    _demand(len(shape) >= 1, op, f"input of shape {shape}", "a channel axis in front")
    for name in (op.weight, op.bias, op.mean, op.variance):
        _demand_shape(op, name, tensors, shape[:1])
    return shape


@SHAPES.rule(ops.Affine)
def _affine(op: ops.Affine, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    _demand_constant(op, op.gain, tensors, shape)
    _demand_constant(op, op.offset, tensors, shape)
    return shape


@SHAPES.rule(ops.Scale)
def _scale(op: ops.Scale, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    _demand_constant(op, op.factor, tensors, shape)
    return shape


@SHAPES.rule(ops.AxisMap)
def _axis_map(op: ops.AxisMap, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    _demand_axes(op, (op.axis,), shape)
    _demand(op.denominator >= 1, op, f"denominator {op.denominator}", "at least 1")
    matrix = _tensor_shape(op, op.matrix, tensors)
    fits = len(matrix) == 2 and matrix[1] == shape[op.axis]
    _demand(fits, op, f"matrix of shape {matrix} on axis {op.axis} of {shape}", "[out, size of the axis]")
    return *shape[: op.axis], matrix[0], *shape[op.axis + 1 :]


# ---------------------------------------------------------------- linear, without weights
@SHAPES.rule(ops.Add)
def _add(op: ops.Add, shapes: Shapes, tensors: Tensors) -> Shape:
    fits = len(op.signs) == len(shapes) and all(sign in (-1, 1) for sign in op.signs)
    _demand(fits, op, f"signs {op.signs} for {len(shapes)} input(s)", "one +1 or -1 for each input")
    return _together(op, shapes)


@SHAPES.rule(ops.Mul)
def _mul(op: ops.Mul, shapes: Shapes, tensors: Tensors) -> Shape:
    return _together(op, shapes)


def _together(op: ops.Op, shapes: Shapes) -> Shape:
    shape = broadcast(shapes)
    got = f"shapes {' and '.join(map(str, shapes))}"
    _demand(shape is not None, op, got, "sizes equal or 1, axes aligned at the end")
    assert shape is not None
    return shape


@SHAPES.rule(ops.Concat)
def _concat(op: ops.Concat, shapes: Shapes, tensors: Tensors) -> Shape:
    first = shapes[0]
    _demand_axes(op, (op.axis,), first)
    same = {(len(shape), shape[: op.axis], shape[op.axis + 1 :]) for shape in shapes}
    got = f"shapes {' and '.join(map(str, shapes))} along axis {op.axis}"
    _demand(len(same) == 1, op, got, "the same size along every other axis")
    return *first[: op.axis], sum(shape[op.axis] for shape in shapes), *first[op.axis + 1 :]


@SHAPES.rule(ops.Reshape)
def _reshape(op: ops.Reshape, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    fits = all(size >= 1 for size in op.shape) and math.prod(op.shape) == math.prod(shape)
    _demand(fits, op, f"{shape} to {op.shape}", f"positive sizes that multiply to {math.prod(shape)}")
    return op.shape


@SHAPES.rule(ops.Permute)
def _permute(op: ops.Permute, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    _demand_axes(op, op.axes, shape)
    _demand(len(op.axes) == len(shape), op, f"axes {op.axes} of shape {shape}", "every axis once")
    return tuple(shape[axis] for axis in op.axes)


@SHAPES.rule(ops.Slice)
def _slice(op: ops.Slice, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    _demand_axes(op, (op.axis,), shape)
    fits = 0 <= op.start < op.stop <= shape[op.axis] and op.step >= 1
    got = f"[{op.start}:{op.stop}:{op.step}] along axis {op.axis} of {shape}"
    _demand(fits, op, got, "0 <= start < stop <= size, step >= 1")
    return *shape[: op.axis], -(-(op.stop - op.start) // op.step), *shape[op.axis + 1 :]


@SHAPES.rule(ops.Expand)
def _expand(op: ops.Expand, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    fits = broadcast((shape, op.shape)) == op.shape
    _demand(fits, op, f"{shape} to {op.shape}", "sizes equal, or 1 before")
    return op.shape


@SHAPES.rule(ops.Pad)
def _pad(op: ops.Pad, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    fits = len(op.pads) == 2 * len(shape) and all(size >= 0 for size in op.pads)
    _demand(fits, op, f"pads {op.pads} for shape {shape}", "before and after for every axis, none negative")
    pairs = zip(op.pads[::2], op.pads[1::2], strict=True)
    return tuple(size + before + after for size, (before, after) in zip(shape, pairs, strict=True))


# ---------------------------------------------------------------- windows
@SHAPES.rule(ops.AvgPool)
def _avg_pool(op: ops.AvgPool, shapes: Shapes, tensors: Tensors) -> Shape:
    fits = op.divisor is None or (op.divisor >= 1 and len(op.kernel) == 2)
    _demand(fits, op, f"divisor {op.divisor}, kernel {op.kernel}", "a divisor of at least 1, for 2 axes only")
    return _pooled(op, shapes[0], (1,) * len(op.kernel))


@SHAPES.rule(ops.MaxPool)
def _max_pool(op: ops.MaxPool, shapes: Shapes, tensors: Tensors) -> Shape:
    # Otherwise a window may hold nothing but padding, whose maximum is no number.
    for size, p, d in zip(shapes[0][-len(op.kernel) :], op.padding, op.dilation, strict=False):
        got = f"padding {op.padding}, dilation {op.dilation} on shape {shapes[0]}"
        _demand(p == 0 or d <= size, op, got, "a padded axis is at least as long as the dilation")
    return _pooled(op, shapes[0], op.dilation)


def _pooled(op: ops.AvgPool | ops.MaxPool, shape: Shape, dilation: Shape) -> Shape:
    sizes = {"kernel": op.kernel, "stride": op.stride, "padding": op.padding, "dilation": dilation}
    spatial = _demand_windows(op, shape, sizes, {"padding": 0})
    for k, p in zip(op.kernel, op.padding, strict=True):
        got = f"padding {op.padding}, kernel {op.kernel}"
        _demand(p <= k // 2, op, got, "padding at most half of the kernel")
    axes = zip(shape[-spatial:], op.kernel, op.stride, op.padding, dilation, strict=True)
    return *shape[:-spatial], *(window_count(n, k, s, p, d, ceil=op.ceil) for n, k, s, p, d in axes)


@SHAPES.rule(ops.AdaptiveAvgPool)
def _adaptive(op: ops.AdaptiveAvgPool, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    spatial = _demand_windows(op, shape, {"size": op.size}, {})
    return *shape[:-spatial], *op.size


@SHAPES.rule(ops.Upsample)
def _upsample(op: ops.Upsample, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    spatial = _demand_windows(op, shape, {"size": op.size}, {})
    _demand(op.mode in ("nearest", "linear"), op, f"mode {op.mode!r}", "nearest, linear")
    _demand(op.mode == "linear" or not op.align_corners, op, "align_corners, mode nearest", "only for linear")
    fits = len(op.scales) in (0, spatial) and all(scale is None or scale > 0 for scale in op.scales)
    _demand(fits, op, f"scales {op.scales} for size {op.size}", "none, or one (positive or None) an axis")
    return *shape[:-spatial], *op.size


# ---------------------------------------------------------------- along axes
@SHAPES.rule(ops.Mean, ops.AMax)
def _reduce(op: ops.Mean | ops.AMax, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    _demand(len(op.axes) >= 1, op, "no axes", "at least one")
    _demand_axes(op, op.axes, shape)
    return _without(shape, op.axes, keepdim=op.keepdim)


@SHAPES.rule(ops.Argmax)
def _argmax(op: ops.Argmax, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    if op.axis is None:
        _demand(not op.keepdim, op, "keepdim without an axis", "keepdim only along one axis")
        return ()
    _demand_axes(op, (op.axis,), shape)
    return _without(shape, (op.axis,), keepdim=op.keepdim)


def _without(shape: Shape, axes: Shape, *, keepdim: bool) -> Shape:
    if keepdim:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


@SHAPES.rule(ops.Softmax)
def _softmax(op: ops.Softmax, shapes: Shapes, tensors: Tensors) -> Shape:
    _demand_axes(op, (op.axis,), shapes[0])
    return shapes[0]


# ---------------------------------------------------------------- number by number
@SHAPES.rule(ops.Elementwise, ops.HostFunction)
def _elementwise(op: ops.Elementwise | ops.HostFunction, shapes: Shapes, tensors: Tensors) -> Shape:
    return shapes[0]


@SHAPES.rule(ops.Quantiser)
def _quantiser(op: ops.Quantiser, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    _demand(op.lo <= op.hi, op, f"counts {op.lo}..{op.hi}", "lo <= hi")
    for link in op.chain:
        if isinstance(link, ops.Affine):
            _demand_constant(op, link.gain, tensors, shape)
            _demand_constant(op, link.offset, tensors, shape)
    return shape


@SHAPES.rule(ops.Neuron)
def _neuron(op: ops.Neuron, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    _demand(op.lo <= op.hi, op, f"counts {op.lo}..{op.hi}", "lo <= hi")
    _demand_constant(op, op.bias, tensors, shape)
    breakpoints = _tensor_shape(op, op.breakpoints, tensors)
    fits = len(breakpoints) >= 1 and broadcast((breakpoints[:-1], shape)) == shape
    known = f"[*group, n], group broadcasts to {shape}"
    _demand(fits, op, f"breakpoints of shape {breakpoints}", known)
    if op.values is None:
        got = f"{breakpoints[-1]} breakpoints for counts {op.lo}..{op.hi} without values"
        _demand(breakpoints[-1] == op.hi - op.lo, op, got, f"{op.hi - op.lo} breakpoints, one a count")
    else:
        _demand_shape(op, op.values, tensors, (*breakpoints[:-1], breakpoints[-1] + 1))
    return shape


@SHAPES.rule(ops.Recurrence)
def _recurrence(op: ops.Recurrence, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    _demand(len(shape) == 2, op, f"input of shape {shape}", "(elements, units)")
    _demand_shape(op, op.weight, tensors, (shape[1], shape[1]))
    return infer(op.cell, shapes, tensors)


@SHAPES.rule(ops.Readout, ops.IntegrateFire)
def _with_constants(op: ops.Readout | ops.IntegrateFire, shapes: Shapes, tensors: Tensors) -> Shape:
    (shape,) = shapes
    for name in (getattr(op, part, None) for part in ("scale", "bias", "offset", "threshold", "first")):
        _demand_constant(op, name, tensors, shape)
    return shape
