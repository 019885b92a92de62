"""Cat and stack."""

from __future__ import annotations

import torch

from spikemorph.capture.context import RULES, Call, Context, per_sample
from spikemorph.capture.values import Act, Const, Opaque, Poisoned, Value
from spikemorph.ir import ops


@RULES.anywhere("cat", "concat", "concatenate")
def _cat(ctx: Context, call: Call) -> Value:
    axis = call.axis(call.args["dim"], call.form)
    return _join(ctx, call, list(call.args["tensors"]), axis)


@RULES.anywhere("stack")
def _stack(ctx: Context, call: Call) -> Value:
    axis, place = call.axis(call.args["dim"], call.form), int(call.args["dim"]) % call.form.rank
    lifted: list[Value] = []
    for x in call.args["tensors"]:
        if isinstance(x, Act):
            shape = (*x.shape[:axis], 1, *x.shape[axis:])
            lifted.append(ctx.emit(call, ops.Reshape(shape), x, shape=shape, part="unsqueeze"))
        elif isinstance(x, Const):
            lifted.append(Const(x.two.unsqueeze(place), x.three.unsqueeze(place)))
        else:
            raise Poisoned
    return _join(ctx, call, lifted, axis)


def _join(ctx: Context, call: Call, items: list[Value], axis: int) -> Act:
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
            constant = per_sample(each, call.form)
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
