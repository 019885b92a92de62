"""Rows of weights added to sums that stay in registers, 32, 64 or 128 lanes, as LLVM builds them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from spikemorph.run.event.vector import HALF, I32, I64, cgutils, data, instruction, load, resize, splat, store

AT_ONCE = 4
"""Rows that are added in one go."""


def _run(builder: Any, items: Any, run: Any, train: Any, t: Any) -> tuple[Any, Any, Any]:
    """What to add to the places of a run for their rows, its first spike and the one behind its last."""
    shift, q, stop = (
        builder.sext(builder.load(builder.gep(items, [builder.add(run, I64(i))])), I64) for i in range(3)
    )
    a, b = (builder.load(builder.gep(train, [builder.add(t, each)])) for each in (q, stop))
    return shift, a, b


def _adding(lanes: int) -> Any:
    """acc[at : at + lanes] += the rows of all spikes of some runs; how many spikes there were.

    Run r takes the spikes train[t + table[r + 1]]..train[t + table[r + 2]]; spike k of it adds
    val[k] * weight[first + (table[r] + place[k] // 2) * width ...]. Runs lie three numbers apart.
    """

    @instruction
    def add_runs(
        typing: Any,
        acc: Any,
        at: Any,
        weight: Any,
        first: Any,
        width: Any,
        spikes: Any,
        t: Any,
        table: Any,
        r: Any,
        end: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            sums = ir.VectorType(ir.IntType(kinds[0].dtype.bitwidth), lanes)
            rows = ir.VectorType(ir.IntType(kinds[2].dtype.bitwidth), lanes)
            own = data(context, builder, kinds[0], args[0], args[1], sums)
            total = cgutils.alloca_once_value(builder, load(builder, own))
            count = cgutils.alloca_once_value(builder, I64(0))
            place, value, train = (
                context.make_array(kinds[5][i])(context, builder, builder.extract_value(args[5], i)).data
                for i in range(3)
            )
            items = context.make_array(kinds[7])(context, builder, args[7]).data
            with cgutils.for_range_slice(builder, args[8], args[9], I64(3)) as (run, _):
                shift, a, b = _run(builder, items, run, train, args[6])
                base = builder.add(args[3], builder.mul(shift, args[4]))
                builder.store(builder.add(builder.load(count), builder.sub(b, a)), count)

                def row(k: Any, base: Any = base) -> Any:
                    at = builder.ashr(builder.sext(builder.load(builder.gep(place, [k])), I64), I64(1))
                    start = builder.add(base, builder.mul(at, args[4]))
                    found = load(builder, data(context, builder, kinds[2], args[2], start, rows))
                    size = resize(builder, builder.load(builder.gep(value, [k])), sums.element)
                    return builder.mul(resize(builder, found, sums), splat(builder, size, sums))

                odd = builder.and_(builder.sub(b, a), I64(1))
                even = builder.sub(b, odd)
                with cgutils.for_range_slice(builder, a, even, I64(2)) as (k, _):
                    both = builder.add(row(k), row(builder.add(k, I64(1))))
                    builder.store(builder.add(builder.load(total), both), total)
                with builder.if_then(builder.icmp_signed("!=", odd, I64(0))):
                    builder.store(builder.add(builder.load(total), row(even)), total)
            store(builder, builder.load(total), own)
            return builder.load(count)

        counts = [types.int64] * 2
        return types.int64(acc, types.int64, weight, *counts, spikes, types.int64, table, *counts), codegen

    return add_runs


add_runs32, add_runs64, add_runs128 = (_adding(lanes) for lanes in (32, 64, 128))


@instruction
def list_rows(
    typing: Any,
    rows: Any,
    first: Any,
    width: Any,
    zero: Any,
    place: Any,
    train: Any,
    t: Any,
    table: Any,
    r: Any,
    end: Any,
) -> Any:
    """Where the rows of all spikes of some runs start, into rows[0 ...]; how many.

    Runs as for `add_runs32`; a row is first + (table[r] + place[k]) * width. Behind the last one HALF times
    `zero` is written.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        half = ir.VectorType(I32, HALF)
        count = cgutils.alloca_once_value(builder, I64(0))
        trains, items = (context.make_array(kinds[i])(context, builder, args[i]).data for i in (5, 7))
        wide = splat(builder, builder.trunc(args[2], I32), half)
        with cgutils.for_range_slice(builder, args[8], args[9], I64(3)) as (run, _):
            shift, a, b = _run(builder, items, run, trains, args[6])
            base = builder.add(args[1], builder.mul(shift, args[2]))
            base = splat(builder, builder.trunc(base, I32), half)
            to = builder.sub(builder.load(count), a)
            builder.store(builder.add(to, b), count)
            with cgutils.for_range_slice(builder, a, b, I64(HALF)) as (k, _):
                found = load(builder, data(context, builder, kinds[4], args[4], k, half))
                starts = builder.add(builder.mul(found, wide), base)
                store(builder, starts, data(context, builder, kinds[0], args[0], builder.add(to, k), half))
        total = builder.load(count)
        nothing = splat(builder, builder.trunc(args[3], I32), half)
        store(builder, nothing, data(context, builder, kinds[0], args[0], total, half))
        return total

    index = [types.int64] * 3
    return types.int64(rows, *index, place, train, types.int64, table, *index[:2]), codegen


def _adding_rows(lanes: int) -> Any:
    """acc[at : at + lanes] += the listed rows of bytes, each from its lane `first` on, AT_ONCE at a time.

    Where `small` is 1, so many weights add up within a byte.
    """

    @instruction
    def add_rows(
        typing: Any, acc: Any, at: Any, weight: Any, first: Any, rows: Any, count: Any, small: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            sums = ir.VectorType(ir.IntType(kinds[0].dtype.bitwidth), lanes)
            bytes_ = ir.VectorType(ir.IntType(8), lanes)
            own = data(context, builder, kinds[0], args[0], args[1], sums)
            total = cgutils.alloca_once_value(builder, load(builder, own))
            starts = context.make_array(kinds[4])(context, builder, args[4]).data

            def gather(inner: Any) -> None:
                with cgutils.for_range_slice(builder, I64(0), args[5], I64(AT_ONCE)) as (k, _):
                    part = None
                    for ahead in range(AT_ONCE):
                        start = builder.load(builder.gep(starts, [builder.add(k, I64(ahead))]))
                        place = builder.add(builder.sext(start, I64), args[3])
                        row = load(builder, data(context, builder, kinds[2], args[2], place, bytes_))
                        row = resize(builder, row, inner)
                        part = row if part is None else builder.add(part, row)
                    builder.store(builder.add(builder.load(total), resize(builder, part, sums)), total)

            with builder.if_else(builder.icmp_signed("==", args[6], I64(1))) as (narrow, wide):
                with narrow:
                    gather(bytes_)
                with wide:
                    gather(sums)
            store(builder, builder.load(total), own)
            return context.get_dummy_value()

        index = types.int64
        return types.void(acc, index, weight, index, rows, index, index), codegen

    return add_rows


add_rows32, add_rows64, add_rows128 = (_adding_rows(lanes) for lanes in (32, 64, 128))
