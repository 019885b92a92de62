"""Frames folded into the batch: convolutions see them as one more window axis."""

from __future__ import annotations

from spikemorph.capture.context import Call, Context
from spikemorph.capture.values import Act, Folded, Ints
from spikemorph.ir import ops


def _turned(items: Ints) -> Ints:
    """The first two of them exchanged."""
    return (items[1], items[0], *items[2:])


def _turn(shape: Ints) -> Ints:
    return _turned(tuple(range(len(shape))))


def channels_first(ctx: Context, call: Call, x: Act) -> Act:
    """Folded [frames, channels, ...] as [channels, frames, ...]; other values as they are."""
    if not isinstance(x.layout, Folded):
        return x
    return ctx.permute(call, x, _turn(x.shape), part="channels")


def emit_channels_first(ctx: Context, call: Call, op: ops.Op, x: Act, shape: Ints) -> Act:
    """The result, of that shape, of an op with channels on axis 0 of x, which came from `channels_first`."""
    if not isinstance(call.act("input").layout, Folded):
        return ctx.emit(call, op, x, shape=shape)
    y = ctx.emit(call, op, x, shape=_turned(shape))
    return ctx.permute(call, y, _turn(shape), part="frames")


def emit_framewise(ctx: Context, call: Call, op: ops.Op, *inputs: Act, shape: Ints) -> Act:
    """The result of an op that leaves the first two axes of folded frames alone.

    It goes in front of the permutations behind convolutions, so that they cancel with those of the next one.
    """
    sources = [_before_turn(ctx, x) for x in inputs]
    if all(sources) and len({x.shape for x in inputs}) == 1:
        y = ctx.emit(call, op, *(each for each in sources if each), shape=_turned(shape))
        return ctx.permute(call, y, _turn(shape), part="frames")
    return ctx.emit(call, op, *inputs, shape=shape)


def _before_turn(ctx: Context, x: Act) -> Act | None:
    """What stands in front of the permutation that brings folded frames first, None where there is none."""
    if isinstance(x.layout, Folded):
        match ctx.source(x):
            case ops.Permute(axes), (source,) if axes == _turn(x.shape):
                return source
    return None
