"""Moving numbers: views, permutations, slices, pads, index maps."""

from __future__ import annotations

import math

import torch

from spikemorph.capture.context import RULES, Call, Context, batch_refused, fixed, per_sample
from spikemorph.capture.values import Act, Const, Ints, Opaque, Parts, Poisoned, Refused, Value
from spikemorph.ir import ops


@RULES(
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
    """The walk has checked that axis 0 is the batch before and after: only the sample changes shape."""
    x = call.act()
    return x if x.shape == call.shape else ctx.emit(call, ops.Reshape(call.shape), x)


@RULES("permute")
def _permute(ctx: Context, call: Call) -> Value:
    x = call.act()
    rank = len(x.shape) + 1
    dims = [int(call.number(each)) % rank for each in call.args["dims"]]
    return _emit_permute(ctx, call, x, dims)


@RULES("transpose", "swapaxes", "swapdims")
def _transpose(ctx: Context, call: Call) -> Value:
    x = call.act()
    rank = len(x.shape) + 1
    first, second = (int(each) % rank for each in list(call.args.values())[1:3])
    dims = list(range(rank))
    dims[first], dims[second] = second, first
    return _emit_permute(ctx, call, x, dims)


@RULES("t", "mT", "numpy_T")
def _turn(ctx: Context, call: Call) -> Value:
    raise batch_refused()


def _emit_permute(ctx: Context, call: Call, x: Act, dims: list[int]) -> Act:
    if dims[0] != 0:
        raise batch_refused()
    axes = tuple(each - 1 for each in dims[1:])
    return x if axes == tuple(range(len(axes))) else ctx.emit(call, ops.Permute(axes), x)


@RULES("expand", "expand_as", "broadcast_to")
def _expand(ctx: Context, call: Call) -> Value:
    x = call.act()
    return x if x.shape == call.shape else ctx.emit(call, ops.Expand(call.shape), x)


@RULES("repeat")
def _repeat(ctx: Context, call: Call) -> Value:
    """Copies along an axis are the input joined to itself."""
    x = call.act()
    repeats = [int(call.number(each)) for each in call.args["repeats"]]
    if repeats[0] != 1 or len(repeats) != len(x.shape) + 1:
        raise batch_refused()
    for axis, count in enumerate(repeats[1:]):
        if count != 1:
            shape = (*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :])
            x = ctx.emit(call, ops.Concat(axis), *(x,) * count, shape=shape, part=_last(shape, call))
    return x


def _last(shape: Ints, call: Call) -> str:
    return "" if shape == call.shape else "step"


@RULES("repeat_interleave.self_int")
def _repeat_interleave(ctx: Context, call: Call) -> Value:
    x = call.act()
    axis, count = call.axis(call.args["dim"] or 0, len(x.shape)), int(call.number(call.args["repeats"]))
    return _gather(ctx, call, x, axis, [i // count for i in range(x.shape[axis] * count)])


@RULES("flip")
def _flip(ctx: Context, call: Call) -> Value:
    x = call.act()
    axes = call.axes(call.args["dims"], len(x.shape))
    for axis in axes:
        x = _gather(ctx, call, x, axis, list(reversed(range(x.shape[axis]))), last=axis == axes[-1])
    return x


@RULES("roll")
def _roll(ctx: Context, call: Call) -> Value:
    x = call.act()
    axes = [call.axis(each, len(x.shape)) for each in call.args["dims"]]
    if not axes:
        raise batch_refused()
    for number, (axis, shift) in enumerate(zip(axes, call.args["shifts"], strict=True)):
        size = x.shape[axis]
        source = [(i - int(call.number(shift))) % size for i in range(size)]
        x = _gather(ctx, call, x, axis, source, last=number == len(axes) - 1)
    return x


@RULES("index_select")
def _index_select(ctx: Context, call: Call) -> Value:
    x, index = call.act(), call.const("index")
    assert index is not None
    axis = call.axis(call.args["dim"], len(x.shape))
    return _gather(ctx, call, x, axis, [int(each) for each in fixed(index).flatten()])


@RULES("index")
def _index(ctx: Context, call: Call) -> Value:
    x = call.act()
    places = [(i, each) for i, each in enumerate(call.args["indices"]) if each is not None]
    if len(places) == 1 and isinstance(places[0][1], Const):
        index = fixed(places[0][1])
        axis = call.axis(places[0][0], len(x.shape))
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


@RULES("slice")
def _slice(ctx: Context, call: Call) -> Value:
    x = call.act()
    if int(call.args["dim"]) % (len(x.shape) + 1) == 0:
        return x  # of the whole batch: anything less has another size on axis 0, which the walk refuses
    axis, step = call.axis(call.args["dim"], len(x.shape)), int(call.number(call.args["step"]))
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
    length = math.ceil((op.stop - op.start) / op.step)
    shape = (*x.shape[: op.axis], length, *x.shape[op.axis + 1 :])
    return ctx.emit(call, op, x, shape=shape, part=part)


@RULES("select")
def _select(ctx: Context, call: Call) -> Value:
    x = call.act()
    axis, index = call.axis(call.args["dim"], len(x.shape)), int(call.number(call.args["index"]))
    return _pick(ctx, call, x, axis, index % x.shape[axis])


def _pick(ctx: Context, call: Call, x: Act, axis: int, index: int) -> Act:
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    row = _emit_slice(ctx, call, x, ops.Slice(axis, index, index + 1), part="slice")
    return ctx.emit(call, ops.Reshape(shape), row, shape=shape)


@RULES("narrow")
def _narrow(ctx: Context, call: Call) -> Value:
    x = call.act()
    axis = call.axis(call.args["dim"], len(x.shape))
    start = int(call.number(call.args["start"])) % x.shape[axis]
    return _emit_slice(ctx, call, x, ops.Slice(axis, start, start + int(call.number(call.args["length"]))))


@RULES("split", "chunk", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_chunk")
def _split(ctx: Context, call: Call) -> Value:
    """The exported program knows the sizes of all parts."""
    x = call.act()
    axis = call.axis(call.args["dim"], len(x.shape))
    parts: list[Value | None] = []
    start = 0
    for number, shape in enumerate(call.parts):
        assert shape is not None
        stop = start + shape[axis]
        used = number in call.used
        parts.append(_emit_slice(ctx, call, x, ops.Slice(axis, start, stop)) if used else None)
        start = stop
    return Parts(tuple(parts))


@RULES("unbind")
def _unbind(ctx: Context, call: Call) -> Value:
    x = call.act()
    axis = call.axis(call.args["dim"], len(x.shape))
    indices = range(x.shape[axis])
    return Parts(tuple(_pick(ctx, call, x, axis, i) if i in call.used else None for i in indices))


@RULES("pad", "constant_pad_nd")
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
    if len(pairs) > len(x.shape):
        if pairs[0] != (0, 0):
            raise batch_refused()
        pairs = pairs[1:]
    pairs = [(0, 0)] * (len(x.shape) - len(pairs)) + pairs
    for axis, (before, after) in enumerate(pairs):
        cut = ops.Slice(axis, max(-before, 0), x.shape[axis] - max(-after, 0))
        x = _emit_slice(ctx, call, x, cut, part="cut")
    grown = tuple(max(each, 0) for pair in pairs for each in pair)
    return ctx.emit(call, ops.Pad(grown, value), x) if any(grown) else x


@RULES("cat", "concat", "concatenate")
def _cat(ctx: Context, call: Call) -> Value:
    rank = len(call.shape)
    axis = call.axis(call.args["dim"], rank)
    return _join(ctx, call, list(call.args["tensors"]), axis, rank)


@RULES("stack")
def _stack(ctx: Context, call: Call) -> Value:
    rank = len(call.shape)
    axis = call.axis(call.args["dim"], rank)
    lifted: list[Value] = []
    for x in call.args["tensors"]:
        if isinstance(x, Act):
            shape = (*x.shape[:axis], 1, *x.shape[axis:])
            lifted.append(ctx.emit(call, ops.Reshape(shape), x, shape=shape, part="unsqueeze"))
        elif isinstance(x, Const):
            lifted.append(Const(x.two.unsqueeze(axis + 1), x.three.unsqueeze(axis + 1)))
        else:
            raise Poisoned
    return _join(ctx, call, lifted, axis, rank)


def _join(ctx: Context, call: Call, items: list[Value], axis: int, rank: int) -> Act:
    """Concat of the activations; constant pieces become zeros padded in, and an offset."""
    if any(isinstance(each, Opaque) for each in items):
        raise Poisoned
    acts = [each for each in items if isinstance(each, Act)]
    if len(acts) == len(items):
        return ctx.emit(call, ops.Concat(axis), *acts)
    offset = torch.zeros(call.shape)
    pieces: list[Act] = []
    position = waiting = 0
    for each in items:
        if isinstance(each, Act):
            pieces.append(_padded(ctx, call, each, axis, before=waiting, after=0))
            waiting, size = 0, each.shape[axis]
        else:
            assert isinstance(each, Const)
            constant = per_sample(each, rank)
            size = constant.shape[axis]
            offset.narrow(axis, position, size).copy_(constant)
            if pieces:
                pieces[-1] = _padded(ctx, call, pieces[-1], axis, before=0, after=size)
            else:
                waiting += size
        position += size
    joined = pieces[0]
    if len(pieces) > 1:
        joined = ctx.emit(call, ops.Concat(axis), *pieces, part="cat" if offset.any() else "")
    return ctx.emit(call, ops.Affine(None, ctx.tensor(call, offset)), joined) if offset.any() else joined


def _padded(ctx: Context, call: Call, x: Act, axis: int, *, before: int, after: int) -> Act:
    if not before and not after:
        return x
    pads = [0] * (2 * len(x.shape))
    pads[2 * axis], pads[2 * axis + 1] = before, after
    shape = (*x.shape[:axis], x.shape[axis] + before + after, *x.shape[axis + 1 :])
    return ctx.emit(call, ops.Pad(tuple(pads)), x, shape=shape, part="pad")


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
