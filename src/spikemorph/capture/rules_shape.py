"""Moving numbers: views, permutations, slices, pads, index maps."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from spikemorph.capture.context import RULES, Call, Context, batch_refused, fixed, fold_refused
from spikemorph.capture.values import Act, BatchAt, Const, Folded, Ints, Parts, Refused, Value
from spikemorph.ir import ops


@RULES.anywhere(
    "view",
    "_unsafe_view",
    "reshape",
    "view_as",
    "reshape_as",
    "flatten",
    "unflatten",
    "squeeze",
    "unsqueeze",
    "_reshape_copy",
)
def _reshape(ctx: Context, call: Call) -> Value:
    """Only the sample changes shape, where as many numbers stand in front of the batch as before."""
    x = call.act()
    if x.form.ahead != call.form.ahead:
        raise fold_refused() if Folded() in (x.layout, call.form.layout) else batch_refused()
    return x if x.shape == call.shape else ctx.emit(call, ops.Reshape(call.shape), x)


@RULES.anywhere("permute")
def _permute(ctx: Context, call: Call) -> Value:
    x = call.act()
    return _emit_permute(ctx, call, x, [int(call.number(each)) % x.form.rank for each in call.args["dims"]])


@RULES.anywhere("transpose", "swapaxes", "swapdims")
def _transpose(ctx: Context, call: Call) -> Value:
    x = call.act()
    first, second = (int(each) % x.form.rank for each in list(call.args.values())[1:3])
    return _exchange(ctx, call, x, first, second)


@RULES.anywhere("t", "mT")
def _turn(ctx: Context, call: Call) -> Value:
    x = call.act()
    return x if x.form.rank < 2 else _exchange(ctx, call, x, x.form.rank - 2, x.form.rank - 1)


@RULES.anywhere("numpy_T")
def _reverse(ctx: Context, call: Call) -> Value:
    x = call.act()
    return _emit_permute(ctx, call, x, list(reversed(range(x.form.rank))))


def _exchange(ctx: Context, call: Call, x: Act, first: int, second: int) -> Act:
    dims = list(range(x.form.rank))
    dims[first], dims[second] = second, first
    return _emit_permute(ctx, call, x, dims)


def _emit_permute(ctx: Context, call: Call, x: Act, dims: list[int]) -> Act:
    return ctx.permute(call, x, x.form.order(dims))


@RULES.anywhere("expand", "expand_as", "broadcast_to")
def _expand(ctx: Context, call: Call) -> Value:
    x = call.act()
    if not x.form.broadcasts_to(call.form):
        raise batch_refused()
    return x if x.shape == call.shape else ctx.emit(call, ops.Expand(call.shape), x)


@RULES.anywhere("repeat")
def _repeat(ctx: Context, call: Call) -> Value:
    """Copies along an axis are the input joined to itself."""
    x = call.act()
    repeats = [int(call.number(each)) for each in call.args["repeats"]]
    if len(repeats) != x.form.rank:
        raise batch_refused()
    counts = [(call.axis(place, x.form), count) for place, count in enumerate(repeats) if count != 1]
    for axis, count in counts:
        shape = (*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :])
        x = ctx.emit(call, ops.Concat(axis), *(x,) * count, shape=shape, part=_last(shape, call))
    return x


def _last(shape: Ints, call: Call) -> str:
    return "" if shape == call.shape else "step"


@RULES.anywhere("repeat_interleave.self_int")
def _repeat_interleave(ctx: Context, call: Call) -> Value:
    x = call.act()
    axis, count = call.axis(call.args["dim"] or 0, x.form), int(call.number(call.args["repeats"]))
    return _gather(ctx, call, x, axis, [i // count for i in range(x.shape[axis] * count)])


@RULES.anywhere("flip")
def _flip(ctx: Context, call: Call) -> Value:
    x = call.act()
    axes = call.axes(call.args["dims"], x.form)
    for axis in axes:
        x = _gather(ctx, call, x, axis, list(reversed(range(x.shape[axis]))), last=axis == axes[-1])
    return x


@RULES.anywhere("roll")
def _roll(ctx: Context, call: Call) -> Value:
    x = call.act()
    axes = [call.axis(each, x.form) for each in call.args["dims"]]
    if not axes:
        raise batch_refused()
    for number, (axis, shift) in enumerate(zip(axes, call.args["shifts"], strict=True)):
        size = x.shape[axis]
        source = [(i - int(call.number(shift))) % size for i in range(size)]
        x = _gather(ctx, call, x, axis, source, last=number == len(axes) - 1)
    return x


@RULES.anywhere("index_select")
def _index_select(ctx: Context, call: Call) -> Value:
    x, index = call.act(), call.const("index")
    assert index is not None
    axis = call.axis(call.args["dim"], x.form)
    return _gather(ctx, call, x, axis, [int(each) for each in fixed(index).flatten()])


@RULES.anywhere("index")
def _index(ctx: Context, call: Call) -> Value:
    x = call.act()
    places = [(i, each) for i, each in enumerate(call.args["indices"]) if each is not None]
    if len(places) == 1 and isinstance(places[0][1], Const):
        index = fixed(places[0][1])
        axis = call.axis(places[0][0], x.form)
        if index.dim() == 1 and index.dtype == torch.int64:
            size = x.shape[axis]
            return _gather(ctx, call, x, axis, [int(each) % size for each in index])
    raise Refused(
        "by computed indices, masks or several axes at once",
        "x[:, indices] with one constant list of indices",
        "index one axis at a time with a constant list of integers",
    )


def _gather(ctx: Context, call: Call, x: Act, axis: int, source: list[int], *, last: bool = True) -> Act:
    """result[.., i, ..] = x[.., source[i], ..] as a matrix of zeros and ones."""
    matrix = torch.zeros(len(source), x.shape[axis])
    matrix[torch.arange(len(source)), torch.tensor(source, dtype=torch.int64)] = 1.0
    shape = (*x.shape[:axis], len(source), *x.shape[axis + 1 :])
    op = ops.AxisMap(axis, ctx.tensor(call, matrix))
    return ctx.emit(call, op, x, shape=shape, part="" if last else "step")


@RULES.anywhere("slice")
def _slice(ctx: Context, call: Call) -> Value:
    x = call.act()
    if x.form.axis(int(call.args["dim"])) is None and x.form == call.form:
        return x  # of the whole batch: anything less has another size there
    axis, step = call.axis(call.args["dim"], x.form), int(call.number(call.args["step"]))
    size = x.shape[axis]
    start, stop, _ = slice(
        *(None if each is None else int(call.number(each)) for each in (call.args["start"], call.args["end"]))
    ).indices(size)
    return _emit_slice(ctx, call, x, ops.Slice(axis, start, stop, step))


def _emit_slice(ctx: Context, call: Call, x: Act, op: ops.Slice, part: str = "") -> Act:
    if op.start >= op.stop:
        raise Refused("that leaves nothing", "slices with at least one element", "remove the empty slice")
    if (op.start, op.stop, op.step) == (0, x.shape[op.axis], 1):
        return x
    match ctx.source(x):
        case ops.Concat(axis), pieces if axis == op.axis:
            for start, piece in _starts(pieces, axis):
                if start <= op.start and op.stop <= start + piece.shape[axis]:
                    return _emit_slice(
                        ctx, call, piece, ops.Slice(axis, op.start - start, op.stop - start, op.step), part
                    )
    length = math.ceil((op.stop - op.start) / op.step)
    shape = (*x.shape[: op.axis], length, *x.shape[op.axis + 1 :])
    return ctx.emit(call, op, x, shape=shape, part=part)


def _starts(pieces: tuple[Act, ...], axis: int) -> Iterator[tuple[int, Act]]:
    """Pieces of a concatenation and where they begin."""
    start = 0
    for piece in pieces:
        yield start, piece
        start += piece.shape[axis]


@RULES.anywhere("select")
def _select(ctx: Context, call: Call) -> Value:
    x = call.act()
    axis, index = call.axis(call.args["dim"], x.form), int(call.number(call.args["index"]))
    return _pick(ctx, call, x, axis, index % x.shape[axis])


def _pick(ctx: Context, call: Call, x: Act, axis: int, index: int) -> Act:
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    row = _emit_slice(ctx, call, x, ops.Slice(axis, index, index + 1), part="slice")
    return ctx.emit(call, ops.Reshape(shape), row, shape=shape)


@RULES.anywhere("narrow")
def _narrow(ctx: Context, call: Call) -> Value:
    x = call.act()
    axis = call.axis(call.args["dim"], x.form)
    start = int(call.number(call.args["start"])) % x.shape[axis]
    return _emit_slice(ctx, call, x, ops.Slice(axis, start, start + int(call.number(call.args["length"]))))


@RULES.anywhere("split", "chunk", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_chunk")
def _split(ctx: Context, call: Call) -> Value:
    """The exported program knows the sizes of all parts."""
    x = call.act()
    axis = call.axis(call.args["dim"], x.form)
    parts: list[Value | None] = []
    start = 0
    for number in range(len(call.parts)):
        stop = start + call.part_shape(number)[axis]
        used = number in call.used
        parts.append(_emit_slice(ctx, call, x, ops.Slice(axis, start, stop)) if used else None)
        start = stop
    return Parts(tuple(parts))


@RULES.anywhere("unbind")
def _unbind(ctx: Context, call: Call) -> Value:
    x = call.act()
    axis = call.axis(call.args["dim"], x.form)
    indices = range(x.shape[axis])
    return Parts(tuple(_pick(ctx, call, x, axis, i) if i in call.used else None for i in indices))


@RULES.anywhere("pad", "constant_pad_nd")
def _pad(ctx: Context, call: Call) -> Value:
    x = call.act()
    mode = call.args.get("mode", "constant")
    if mode != "constant":
        raise Refused(
            f"in {mode} mode",
            "zero padding and constant padding",
            "use padding_mode='zeros' in the convolution, or torch.nn.functional.pad with a constant",
        )
    pads = [int(call.number(each)) for each in call.args["pad"]]
    return _emit_pad(ctx, call, x, pads, float(call.args["value"] or 0.0))


def _emit_pad(ctx: Context, call: Call, x: Act, pads: list[int], value: float) -> Act:
    """torch lists pads from the last axis on, and cuts where they are negative."""
    pairs = [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)][::-1]
    pairs = [(0, 0)] * (x.form.rank - len(pairs)) + pairs
    if pairs[x.form.batch_axis] != (0, 0):
        raise batch_refused()
    if isinstance(x.layout, BatchAt):
        del pairs[x.form.batch_axis]
    for axis, (before, after) in enumerate(pairs):
        cut = ops.Slice(axis, max(-before, 0), x.shape[axis] - max(-after, 0))
        x = _emit_slice(ctx, call, x, cut, part="cut")
    grown = tuple(max(each, 0) for pair in pairs for each in pair)
    return ctx.emit(call, ops.Pad(grown, value), x) if any(grown) else x


def _shuffle(ctx: Context, call: Call, wide: Ints, axes: Ints) -> Act:
    """Reshape, permute, reshape."""
    x = ctx.emit(call, ops.Reshape(wide), call.act(), shape=wide, part="split")
    turned = tuple(wide[axis] for axis in axes)
    x = ctx.emit(call, ops.Permute(axes), x, shape=turned, part="permute")
    return ctx.emit(call, ops.Reshape(call.shape), x)


@RULES("pixel_shuffle")
def _pixel_shuffle(ctx: Context, call: Call) -> Value:
    *outer, channels, height, width = call.act().shape
    r, n = int(call.args["upscale_factor"]), len(outer)
    wide = (*outer, channels // r**2, r, r, height, width)
    return _shuffle(ctx, call, wide, (*range(n), n, n + 3, n + 1, n + 4, n + 2))


@RULES("pixel_unshuffle")
def _pixel_unshuffle(ctx: Context, call: Call) -> Value:
    *outer, channels, height, width = call.act().shape
    r, n = int(call.args["downscale_factor"]), len(outer)
    wide = (*outer, channels, height // r, r, width // r, r)
    return _shuffle(ctx, call, wide, (*range(n), n, n + 2, n + 4, n + 1, n + 3))


@RULES("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(ctx: Context, call: Call) -> Value:
    channels, *rest = call.act().shape
    groups = int(call.args["groups"])
    wide = (groups, channels // groups, *rest)
    return _shuffle(ctx, call, wide, (1, 0, *range(2, len(wide))))
