"""Pools, reductions over axes, upsampling."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from spikemorph.capture.context import RULES, Call, Context, batch_refused
from spikemorph.capture.frames import emit_framewise
from spikemorph.capture.rules_arith import affine
from spikemorph.capture.values import Act, Ints, Parts, Refused, Value
from spikemorph.ir import ops


def _spatial(call: Call, name: str = "kernel_size") -> int:
    """1 or 2, from the name of the operation."""
    return 1 if "1d" in str(call.node.target) else 2


def _windows(call: Call) -> tuple[Ints, Ints, Ints]:
    """Kernel, stride (the kernel where left out) and padding."""
    n = _spatial(call)
    kernel = call.ints("kernel_size", n)
    stride = call.ints("stride", n) if call.args["stride"] else kernel
    return kernel, stride, call.ints("padding", n)


def _emit(ctx: Context, call: Call, op: ops.Op, x: Act, shape: Ints) -> Act:
    """The result of an op on windows of the trailing axes, which the batch and its frames must not be on."""
    free = x.form.rank - _spatial(call)
    if x.form.batch_axis >= free:
        raise batch_refused()
    if free == 1:
        return ctx.emit(call, op, x, shape=shape)
    return emit_framewise(ctx, call, op, x, shape=shape)


def _emit_max_pool(ctx: Context, call: Call, shape: Ints) -> Act:
    dilation = call.ints("dilation", _spatial(call))
    op = ops.MaxPool(*_windows(call), dilation, bool(call.args["ceil_mode"]))
    return _emit(ctx, call, op, call.act(), shape)


@RULES.anywhere("max_pool1d", "max_pool2d")
def _max_pool(ctx: Context, call: Call) -> Value:
    return _emit_max_pool(ctx, call, call.shape)


def _values_only(call: Call) -> None:
    if 1 in call.used:
        raise Refused(
            "with the indices of the maxima",
            "the values of a maximum, without return_indices",
            "set return_indices=False; use upsampling in place of max-unpooling",
        )


@RULES.anywhere("max_pool2d_with_indices", "max_pool1d_with_indices")
def _max_pool_with_indices(ctx: Context, call: Call) -> Value:
    _values_only(call)
    return Parts((_emit_max_pool(ctx, call, call.part_shape(0)), None))


@RULES.anywhere("avg_pool1d", "avg_pool2d")
def _avg_pool(ctx: Context, call: Call) -> Value:
    op = ops.AvgPool(
        *_windows(call),
        ceil=bool(call.args["ceil_mode"]),
        count_include_pad=bool(call.args["count_include_pad"]),
        divisor=call.args.get("divisor_override"),
    )
    return _emit(ctx, call, op, call.act(), call.shape)


@RULES.anywhere("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_avg_pool(ctx: Context, call: Call) -> Value:
    size = call.shape[len(call.shape) - _spatial(call) :]
    return _emit(ctx, call, ops.AdaptiveAvgPool(size), call.act(), call.shape)


@RULES.anywhere("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max_pool(ctx: Context, call: Call) -> Value:
    _values_only(call)
    x, shape = call.act(), call.part_shape(0)
    n = _spatial(call)
    axes = tuple(range(len(x.shape) - n, len(x.shape)))
    if all(shape[axis] == 1 for axis in axes):
        return Parts((_emit(ctx, call, ops.AMax(axes, keepdim=True), x, shape), None))
    windows = [_uniform_windows(x.shape[axis], shape[axis]) for axis in axes]
    op = ops.MaxPool(tuple(k for k, _ in windows), tuple(s for _, s in windows), (0,) * n, (1,) * n)
    return Parts((_emit(ctx, call, op, x, shape), None))


def _uniform_windows(size: int, out: int) -> tuple[int, int]:
    """Kernel and stride of torch's adaptive windows, where all are alike."""
    starts = [i * size // out for i in range(out)]
    lengths = {math.ceil((i + 1) * size / out) - start for i, start in enumerate(starts)}
    strides = {b - a for a, b in pairwise(starts)} or {1}
    if len(lengths) != 1 or len(strides) != 1 or 0 in strides:
        raise Refused(
            f"from {size} to {out} places in windows of different sizes",
            "adaptive max pools to 1, or with equal windows",
            f"choose a size that divides {size}, or use MaxPool",
        )
    return lengths.pop(), strides.pop()


@RULES.anywhere("mean.dim")
def _mean(ctx: Context, call: Call) -> Value:
    x = call.act()
    axes = call.axes(call.args["dim"], x.form)
    return ctx.emit(call, ops.Mean(axes, bool(call.args["keepdim"])), x)


@RULES.anywhere("sum.dim_IntList")
def _sum(ctx: Context, call: Call) -> Value:
    x = call.act()
    axes = call.axes(call.args["dim"], x.form)
    count = math.prod(x.shape[axis] for axis in axes)
    mean = ctx.emit(call, ops.Mean(axes, bool(call.args["keepdim"])), x, part="mean")
    return affine(ctx, call, mean, gain=torch.tensor(float(count), dtype=torch.float64))


@RULES.anywhere("amax")
def _amax(ctx: Context, call: Call) -> Value:
    x = call.act()
    axes = call.axes(call.args["dim"], x.form)
    return ctx.emit(call, ops.AMax(axes, bool(call.args["keepdim"])), x)


@RULES.anywhere("max.dim")
def _max(ctx: Context, call: Call) -> Value:
    """(values, indices): the indices, where they are read, are an argmax, which is checked as such."""
    x, keepdim = call.act(), bool(call.args["keepdim"])
    axis = call.axis(call.args["dim"], x.form)
    values = indices = None
    if 0 in call.used:
        values = ctx.emit(call, ops.AMax((axis,), keepdim), x, shape=call.part_shape(0))
    if 1 in call.used:
        indices = ctx.emit(call, ops.Argmax(axis, keepdim), x, shape=call.part_shape(1), part="argmax")
    return Parts((values, indices))


@RULES.anywhere("upsample_nearest1d", "upsample_nearest2d")
def _nearest(ctx: Context, call: Call) -> Value:
    size = call.shape[len(call.shape) - _spatial(call) :]
    op = ops.Upsample(size, "nearest", scales=_scales(call, len(size)))
    return _emit(ctx, call, op, call.act(_data(call)), call.shape)


@RULES.anywhere("upsample_linear1d", "upsample_bilinear2d")
def _linear(ctx: Context, call: Call) -> Value:
    size = call.shape[len(call.shape) - _spatial(call) :]
    align = bool(call.args["align_corners"])
    op = ops.Upsample(size, "linear", align, _scales(call, len(size)))
    return _emit(ctx, call, op, call.act(_data(call)), call.shape)


def _data(call: Call) -> str:
    return "input" if "input" in call.args else "self"


def _scales(call: Call, count: int) -> tuple[float | None, ...]:
    """Overload `vec` has a list of scales or none, the others one argument an axis."""
    if "scale_factors" in call.args:
        given = call.args["scale_factors"]
        return tuple(float(each) for each in given) if given else (None,) * count
    names = ("scales",) if count == 1 else ("scales_h", "scales_w")
    return tuple(None if call.args[name] is None else float(call.args[name]) for name in names)
