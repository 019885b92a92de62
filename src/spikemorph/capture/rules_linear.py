"""Convolutions, matrix products and batch norm."""

from __future__ import annotations

from torch import Tensor

from spikemorph.capture.context import RULES, Call, Context, fixed, layout_refused
from spikemorph.capture.frames import channels_first, emit_channels_first
from spikemorph.capture.values import BATCH_FIRST, Act, Const, Folded, Ints, Parts, Poisoned, Refused, Value
from spikemorph.ir import ops


@RULES.anywhere("conv1d", "conv2d")
def _conv(ctx: Context, call: Call) -> Value:
    return _plain_conv(ctx, call, transposed=False)


@RULES.anywhere("conv_transpose1d", "conv_transpose2d")
def _conv_transpose(ctx: Context, call: Call) -> Value:
    return _plain_conv(ctx, call, transposed=True)


@RULES.anywhere("convolution")
def _convolution(ctx: Context, call: Call) -> Value:
    return _plain_conv(ctx, call, transposed=bool(call.args["transposed"]))


def _plain_conv(ctx: Context, call: Call, *, transposed: bool) -> Value:
    x, weight = _channelled(call), call.const("weight")
    assert weight is not None
    kernel = fixed(weight)
    spatial, frames = kernel.dim() - 2, int(isinstance(x.layout, Folded))
    if spatial not in (1, 2) or len(x.shape) != frames + 1 + spatial:
        raise Refused(
            f"over {spatial} axes of a sample of {len(x.shape) - frames} axes",
            "Conv1d on [batch, channels, length], Conv2d on [batch, channels, height, width]",
            "rebuild 3-d convolutions from 2-d ones; give the input a batch and a channel axis",
        )
    x = channels_first(ctx, call, x)
    dilation = call.ints("dilation", spatial)
    if isinstance(call.args["padding"], str):
        x, padding = _named_padding(ctx, call, x, kernel, dilation)
    else:
        padding = call.ints("padding", spatial)
    bias = call.const("bias")
    op = ops.Conv(
        weight=ctx.tensor(call, kernel.unsqueeze(2)) if frames else ctx.weight(call, weight),
        bias=None if bias is None else ctx.weight(call, bias),
        stride=(1,) * frames + call.ints("stride", spatial),
        padding=(0,) * frames + padding,
        dilation=(1,) * frames + dilation,
        groups=int(call.args["groups"]),
        transposed=transposed,
        output_padding=(0,) * frames + call.ints("output_padding", spatial) if transposed else (),
    )
    return emit_channels_first(ctx, call, op, x, call.shape)


def _channelled(call: Call) -> Act:
    """The input, which must have its channels on axis 1 in torch."""
    x = call.act("input")
    if x.layout != BATCH_FIRST and not isinstance(x.layout, Folded):
        raise layout_refused(x.layout)
    return x


def _named_padding(ctx: Context, call: Call, x: Act, weight: Tensor, dilation: Ints) -> tuple[Act, Ints]:
    """Padding "valid" or "same" in numbers; an odd total leaves one more zero behind, padded before."""
    if call.args["padding"] == "valid":
        return x, (0,) * len(dilation)
    totals = [gap * (size - 1) for gap, size in zip(dilation, weight.shape[2:], strict=True)]
    extra = [total % 2 for total in totals]
    if any(extra):
        kept = len(x.shape) - len(extra)
        grown = (size + more for size, more in zip(x.shape[kept:], extra, strict=True))
        shape = (*x.shape[:kept], *grown)
        pads = (*(0, 0) * kept, *(n for more in extra for n in (0, more)))
        x = ctx.emit(call, ops.Pad(pads), x, shape=shape, part="pad")
    return x, tuple(total // 2 for total in totals)


@RULES.anywhere("linear")
def _linear(ctx: Context, call: Call) -> Value:
    x, weight, bias = call.act("input"), call.const("weight"), call.const("bias")
    assert weight is not None
    return _emit_linear(ctx, call, x, ctx.weight(call, weight), bias)


def _emit_linear(ctx: Context, call: Call, x: Act, weight: str, bias: Const | None) -> Act:
    name = None if bias is None else ctx.weight(call, bias)
    return ctx.emit(call, ops.Linear(weight, name), x)


@RULES.anywhere("addmm")
def _addmm(ctx: Context, call: Call) -> Value:
    x, matrix, bias = call.act("mat1"), call.const("mat2"), call.const("self")
    assert matrix is not None and bias is not None
    if call.args["beta"] != 1 or call.args["alpha"] != 1 or bias.two.dim() != 1:
        raise Refused(
            "with alpha, beta or a bias matrix",
            "addmm as torch.nn.Linear uses it",
            "write it as torch.nn.functional.linear",
        )
    return _emit_linear(ctx, call, x, ctx.tensor(call, fixed(matrix).t()), bias)


@RULES.anywhere("mm", "bmm", "matmul")
def _matmul(ctx: Context, call: Call) -> Value:
    left, right = list(call.args.values())[:2]
    if isinstance(left, Act) and isinstance(right, Const):
        return _from_right(ctx, call, left, _matrix(right))
    if isinstance(left, Const) and isinstance(right, Act):
        return _from_left(ctx, call, _matrix(left), right)
    if isinstance(left, Act) and isinstance(right, Act):
        raise Refused(
            "of two activations",
            "matrix products with a constant matrix; elementwise products of two activations",
            "attention is not converted yet: replace it by convolutions, linear layers or gates (x * g)",
        )
    raise Poisoned


def _matrix(value: Const) -> Tensor:
    matrix = fixed(value)
    if matrix.dim() != 2:
        raise Refused(
            f"with a constant of shape {list(matrix.shape)}",
            "constant matrices of two axes",
            "use one torch.nn.functional.linear for each matrix",
        )
    return matrix


def _from_right(ctx: Context, call: Call, x: Act, matrix: Tensor) -> Act:
    return ctx.emit(call, ops.Linear(ctx.tensor(call, matrix.t()), None), x)


def _from_left(ctx: Context, call: Call, matrix: Tensor, x: Act) -> Act:
    """matrix @ x mixes the axis before the last: turn it last, apply, turn it back."""
    rank = len(x.shape)
    if rank < 2 or x.layout != BATCH_FIRST:
        raise Refused(
            "with the batch as a matrix axis",
            "x @ constant, or constant @ x where x has two axes besides the batch",
            "write it as torch.nn.functional.linear(x, weight)",
        )
    swap = (*range(rank - 2), rank - 1, rank - 2)
    turned_shape = (*x.shape[:-2], x.shape[-1], x.shape[-2])
    turned = ctx.emit(call, ops.Permute(swap), x, shape=turned_shape, part="turn")
    mixed = ctx.emit(
        call,
        ops.Linear(ctx.tensor(call, matrix), None),
        turned,
        shape=(*turned_shape[:-1], matrix.shape[0]),
        part="linear",
    )
    return ctx.emit(call, ops.Permute(swap), mixed)


@RULES.anywhere("_native_batch_norm_legit_no_training")
def _batch_norm_at_rest(ctx: Context, call: Call) -> Value:
    return Parts((_emit_batch_norm(ctx, call, call.part_shape(0)), None, None))


@RULES.anywhere("batch_norm")
def _batch_norm(ctx: Context, call: Call) -> Value:
    if call.args["training"]:
        raise Refused(
            "with the statistics of the batch",
            "batch norm with stored statistics",
            "call model.eval(), and build the layer with track_running_stats=True",
        )
    return _emit_batch_norm(ctx, call, call.shape)


def _emit_batch_norm(ctx: Context, call: Call, shape: Ints) -> Act:
    x = channels_first(ctx, call, _channelled(call))
    mean, variance = call.const("running_mean"), call.const("running_var")
    assert mean is not None and variance is not None
    weight, bias = call.const("weight"), call.const("bias")
    op = ops.BatchNorm(
        weight=None if weight is None else ctx.weight(call, weight),
        bias=None if bias is None else ctx.weight(call, bias),
        mean=ctx.weight(call, mean),
        variance=ctx.weight(call, variance),
        eps=float(call.args["eps"]),
    )
    return emit_channels_first(ctx, call, op, x, shape)
