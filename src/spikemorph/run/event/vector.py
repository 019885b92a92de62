"""Vector instructions as LLVM builds them: step functions, firing, maxima, lists of spikes, 32 lanes at once.

LLVM cuts the vectors to what the processor has.
Arithmetic is modulo the width of the accumulator, so an intermediate overflow is harmless: the static bound
holds for the sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils as _cgutils
from numba.core import types
from numba.extending import intrinsic

cgutils: Any = _cgutils
I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
STEP_LANES = 32
HALF = 16
"""Numbers that are put side by side at once."""


def instruction(function: Callable[..., Any]) -> Any:
    """A function of numba that is written in LLVM."""
    return intrinsic(function)


def data(context: Any, builder: Any, kind: Any, value: Any, offset: Any, vector: Any) -> Any:
    """The address of a vector that starts at an element of an array."""
    array = context.make_array(kind)(context, builder, value)
    return builder.bitcast(builder.gep(array.data, [offset]), vector.as_pointer())


def load(builder: Any, pointer: Any) -> Any:
    """A vector from any address."""
    loaded = builder.load(pointer)
    loaded.align = 1
    return loaded


def store(builder: Any, value: Any, pointer: Any) -> None:
    """A vector to any address."""
    builder.store(value, pointer).align = 1


def splat(builder: Any, scalar: Any, vector: Any) -> Any:
    """A vector of the same number."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def resize(builder: Any, value: Any, kind: Any) -> Any:
    """A signed integer, or a vector of them, in another width."""
    now = value.type.element.width if isinstance(value.type, ir.VectorType) else value.type.width
    want = kind.element.width if isinstance(kind, ir.VectorType) else kind.width
    if now == want:
        return value
    return builder.sext(value, kind) if now < want else builder.trunc(value, kind)


def _track(context: Any, builder: Any, target: Any, own: Any, largest: Any, sent: Any) -> Any:
    """S += clip(target - S, -m, m); which fired in the low half, which are still pending in the high half."""
    sums = target.type
    most = splat(builder, resize(builder, largest, sums.element), sums)
    count = load(builder, own)
    gap = builder.sub(target, count)
    up = builder.select(builder.icmp_signed("<", gap, most), gap, most)
    least = builder.neg(most)
    spike = builder.select(builder.icmp_signed(">", up, least), up, least)
    after = builder.add(count, spike)
    store(builder, after, own)
    store(builder, resize(builder, spike, ir.VectorType(I32, sums.count)), sent)
    fired = _mask(builder, builder.icmp_signed("!=", spike, ir.Constant(sums, None)))
    pending = _mask(builder, builder.icmp_signed("!=", after, target))
    return builder.or_(fired, builder.shl(pending, I64(STEP_LANES)))


def _mask(builder: Any, truth: Any) -> Any:
    return builder.zext(builder.bitcast(truth, ir.IntType(STEP_LANES)), I64)


@instruction
def step_block(
    typing: Any,
    acc: Any,
    at: Any,
    own: Any,
    thr: Any,
    first: Any,
    width: Any,
    n: Any,
    lo: Any,
    m: Any,
    sent: Any,
) -> Any:
    """32 neurons at acc[at], counts at acc[own]: track lo + the number of breakpoints <= sum.

    Breakpoint k of a lane is thr[first + k * width + lane]. Spikes go to sent[0:32] (int32).
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        sums = ir.VectorType(ir.IntType(kinds[0].dtype.bitwidth), STEP_LANES)
        total = load(builder, data(context, builder, kinds[0], args[0], args[1], sums))
        lo = splat(builder, resize(builder, args[7], sums.element), sums)
        target = cgutils.alloca_once_value(builder, lo)
        with cgutils.for_range(builder, args[6]) as loop:
            start = builder.add(args[4], builder.mul(loop.index, args[5]))
            edge = load(builder, data(context, builder, kinds[3], args[3], start, sums))
            over = builder.icmp_signed(">=", total, edge)
            builder.store(builder.sub(builder.load(target), builder.sext(over, sums)), target)
        counts = data(context, builder, kinds[0], args[0], args[2], sums)
        spikes = data(context, builder, kinds[9], args[9], I64(0), ir.VectorType(I32, STEP_LANES))
        return _track(context, builder, builder.load(target), counts, args[8], spikes)

    index = [types.int64] * 2
    return types.int64(acc, *index, thr, *index, *index, types.int64, sent), codegen


@instruction
def line_block(
    typing: Any,
    acc: Any,
    at: Any,
    own: Any,
    table: Any,
    first: Any,
    width: Any,
    n: Any,
    lo: Any,
    m: Any,
    sent: Any,
) -> Any:
    """32 neurons at acc[at], counts at acc[own]: track lo + clip(floor(slope * sum + offset), 0, n).

    Slopes are float64 in the bytes of table[first ...], offsets width * 2 entries behind them.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        sums = ir.VectorType(ir.IntType(kinds[0].dtype.bitwidth), STEP_LANES)
        wide, real = ir.VectorType(I32, STEP_LANES), ir.VectorType(ir.DoubleType(), STEP_LANES)
        total = load(builder, data(context, builder, kinds[0], args[0], args[1], sums))
        behind = builder.add(args[4], builder.shl(args[5], I64(1)))
        slope, offset = (
            load(builder, data(context, builder, kinds[3], args[3], start, real))
            for start in (args[4], behind)
        )
        value = builder.fadd(builder.fmul(builder.sitofp(resize(builder, total, wide), real), slope), offset)
        most = splat(builder, builder.sitofp(args[6], ir.DoubleType()), real)
        zero = ir.Constant(real, None)
        value = builder.select(builder.fcmp_ordered("<", value, most), value, most)
        value = builder.select(builder.fcmp_ordered(">", value, zero), value, zero)
        lo = splat(builder, resize(builder, args[7], sums.element), sums)
        target = builder.add(resize(builder, builder.fptosi(value, wide), sums), lo)
        counts = data(context, builder, kinds[0], args[0], args[2], sums)
        spikes = data(context, builder, kinds[9], args[9], I64(0), wide)
        return _track(context, builder, target, counts, args[8], spikes)

    index = [types.int64] * 2
    return types.int64(acc, *index, table, *index, *index, types.int64, sent), codegen


@instruction
def fire_block(
    typing: Any,
    acc: Any,
    at: Any,
    own: Any,
    thr: Any,
    first: Any,
    width: Any,
    ends: Any,
    sizes: Any,
    sent: Any,
) -> Any:
    """32 membranes at acc[at], counts at acc[own]: fire where they are due, and lose a threshold for each.

    thr[first + lane] is the first threshold, thr[first + width + lane] how far the others are apart. Spikes
    within sizes and counts within ends go to sent[0:32] (int32); which fired.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        sums = ir.VectorType(ir.IntType(kinds[0].dtype.bitwidth), STEP_LANES)
        wide = ir.VectorType(I32, STEP_LANES)
        place = data(context, builder, kinds[0], args[0], args[1], sums)
        counts = data(context, builder, kinds[0], args[0], args[2], sums)
        due = load(builder, data(context, builder, kinds[3], args[3], args[4], sums))
        apart = load(builder, data(context, builder, kinds[3], args[3], builder.add(args[4], args[5]), sums))
        total, count = load(builder, place), load(builder, counts)
        ends, sizes = (cgutils.unpack_tuple(builder, each, 2) for each in (args[6], args[7]))
        spike = cgutils.alloca_once_value(builder, ir.Constant(sums, None))
        up, down = (cgutils.alloca_once_value(builder, due) for _ in range(2))
        with cgutils.for_range(builder, sizes[1]):
            over = builder.icmp_signed(">=", total, builder.load(up))
            builder.store(builder.sub(builder.load(spike), builder.sext(over, sums)), spike)
            builder.store(builder.add(builder.load(up), apart), up)
        with cgutils.for_range(builder, builder.neg(sizes[0])):
            builder.store(builder.sub(builder.load(down), apart), down)
            under = builder.icmp_signed("<", total, builder.load(down))
            builder.store(builder.add(builder.load(spike), builder.sext(under, sums)), spike)
        found = builder.load(spike)
        for end, sign in ((ends[1], "<"), (ends[0], ">")):
            room = builder.sub(splat(builder, resize(builder, end, sums.element), sums), count)
            found = builder.select(builder.icmp_signed(sign, found, room), found, room)
        store(builder, builder.sub(total, builder.mul(found, apart)), place)
        store(builder, builder.add(count, found), counts)
        store(
            builder,
            resize(builder, found, wide),
            data(context, builder, kinds[8], args[8], I64(0), wide),
        )
        return _mask(builder, builder.icmp_signed("!=", found, ir.Constant(sums, None)))

    pair = types.UniTuple(types.int64, 2)  # type: ignore[no-untyped-call]
    index = [types.int64] * 2
    return types.int64(acc, *index, thr, *index, pair, pair, sent), codegen


@instruction
def pool_block(
    typing: Any,
    acc: Any,
    base: Any,
    stride: Any,
    own: Any,
    table: Any,
    first: Any,
    taps: Any,
    m: Any,
    sent: Any,
) -> Any:
    """32 channels of a pool: track the maximum of acc[base + table[first + k] * stride ...] over taps."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        width = kinds[0].dtype.bitwidth
        sums = ir.VectorType(ir.IntType(width), STEP_LANES)
        least = ir.Constant(sums, [-(2 ** (width - 1))] * STEP_LANES)
        target = cgutils.alloca_once_value(builder, least)
        places = context.make_array(kinds[4])(context, builder, args[4]).data
        with cgutils.for_range(builder, args[6]) as loop:
            place = builder.load(builder.gep(places, [builder.add(args[5], loop.index)]))
            with builder.if_then(builder.icmp_signed(">=", place, place.type(0))):
                start = builder.add(args[1], builder.mul(builder.sext(place, I64), args[2]))
                found = load(builder, data(context, builder, kinds[0], args[0], start, sums))
                best = builder.load(target)
                over = builder.icmp_signed(">", found, best)
                builder.store(builder.select(over, found, best), target)
        counts = data(context, builder, kinds[0], args[0], args[3], sums)
        spikes = data(context, builder, kinds[8], args[8], I64(0), ir.VectorType(I32, STEP_LANES))
        return _track(context, builder, builder.load(target), counts, args[7], spikes)

    index = [types.int64] * 3
    return types.int64(acc, *index, table, *index, sent), codegen


@instruction
def goal_block(typing: Any, acc: Any, own: Any, targets: Any, first: Any, m: Any, sent: Any) -> Any:
    """32 counts at acc[own] towards targets[first ...], by one spike."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        sums = ir.VectorType(ir.IntType(kinds[0].dtype.bitwidth), STEP_LANES)
        wide = ir.VectorType(I32, STEP_LANES)
        target = load(builder, data(context, builder, kinds[2], args[2], args[3], wide))
        counts = data(context, builder, kinds[0], args[0], args[1], sums)
        spikes = data(context, builder, kinds[5], args[5], I64(0), wide)
        return _track(context, builder, resize(builder, target, sums), counts, args[4], spikes)

    return types.int64(acc, types.int64, targets, types.int64, types.int64, sent), codegen


@instruction
def jump_block(typing: Any, acc: Any, own: Any, targets: Any, first: Any, sent: Any) -> Any:
    """32 counts at acc[own] to targets[first ...] at once; which changed."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        sums = ir.VectorType(ir.IntType(kinds[0].dtype.bitwidth), STEP_LANES)
        wide = ir.VectorType(I32, STEP_LANES)
        target = load(builder, data(context, builder, kinds[2], args[2], args[3], wide))
        counts = data(context, builder, kinds[0], args[0], args[1], sums)
        change = builder.sub(target, resize(builder, load(builder, counts), wide))
        store(builder, resize(builder, target, sums), counts)
        store(builder, change, data(context, builder, kinds[4], args[4], I64(0), wide))
        return _mask(builder, builder.icmp_signed("!=", change, ir.Constant(wide, None)))

    return types.int64(acc, types.int64, targets, types.int64, sent), codegen


@instruction
def relay_block(typing: Any, acc: Any, at: Any, sent: Any) -> Any:
    """32 sums at acc[at] go out and become zero; which were not zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        sums = ir.VectorType(ir.IntType(kinds[0].dtype.bitwidth), STEP_LANES)
        wide = ir.VectorType(I32, STEP_LANES)
        own = data(context, builder, kinds[0], args[0], args[1], sums)
        total = load(builder, own)
        store(builder, ir.Constant(sums, None), own)
        store(builder, resize(builder, total, wide), data(context, builder, kinds[2], args[2], I64(0), wide))
        return _mask(builder, builder.icmp_signed("!=", total, ir.Constant(sums, None)))

    return types.int64(acc, types.int64, sent), codegen


@instruction
def append(typing: Any, place: Any, value: Any, top: Any, own: Any, sent: Any, fired: Any) -> Any:
    """Spikes sent[i] of places own + i for all set bits i < 32, written from place[top] and value[top] on.

    Up to 32 numbers behind `top` are overwritten.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        half = ir.VectorType(I32, HALF)
        bits = builder.trunc(args[5], I32)
        top = args[2]
        for i in range(0, STEP_LANES, HALF):
            part = builder.trunc(builder.lshr(bits, I32(i)), ir.IntType(HALF))
            mask = builder.bitcast(part, ir.VectorType(I1, HALF))
            lanes = ir.Constant(half, list(range(i, i + HALF)))
            places = builder.add(splat(builder, builder.trunc(args[3], I32), half), lanes)
            values = load(builder, data(context, builder, kinds[4], args[4], I64(i), half))
            negative = builder.lshr(values, ir.Constant(half, [31] * HALF))
            places = builder.or_(builder.shl(places, ir.Constant(half, [1] * HALF)), negative)
            for array, numbers in ((0, places), (1, values)):
                dense = _compress(builder, numbers, mask)
                store(builder, dense, data(context, builder, kinds[array], args[array], top, half))
            top = builder.add(top, builder.zext(builder.ctpop(part), I64))
        return top

    return types.int64(place, value, types.int64, types.int64, sent, types.int64), codegen


def _compress(builder: Any, numbers: Any, mask: Any) -> Any:
    """The numbers whose bit is set, side by side."""
    kind = numbers.type
    name = f"llvm.experimental.vector.compress.v{kind.count}i{kind.element.width}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind, mask.type, kind]), name
    )
    return builder.call(function, [numbers, mask, ir.Constant(kind, ir.Undefined)])


@instruction
def ones(typing: Any, bits: Any) -> Any:
    """How many bits are set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), codegen


@instruction
def copy_part(typing: Any, target: Any, source: Any, first: Any, count: Any) -> Any:
    """target[first : first + count] = source[...]; nothing where the two have different types."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        if kinds[0].dtype == kinds[1].dtype:
            ends = [
                builder.gep(context.make_array(kinds[i])(context, builder, args[i]).data, [args[2]])
                for i in range(2)
            ]
            cgutils.raw_memcpy(builder, *ends, args[3], kinds[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(target, source, types.int64, types.int64), codegen
