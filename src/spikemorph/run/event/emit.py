"""Kernels that let a stage send: what it tracks, what fires, what is still pending."""

from __future__ import annotations

from spikemorph.run.event.compiled import compiled
from spikemorph.run.event.program import Kind
from spikemorph.run.event.tables import Array, S, Space, T
from spikemorph.run.event.vector import (
    HALF,
    append,
    goal_block,
    jump_block,
    line_block,
    ones,
    pool_block,
    relay_block,
    step_block,
)

POSITIONS, PADDED, CHANNELS = int(S.POSITIONS), int(S.PADDED), int(S.CHANNELS)
SUMS, SUM_SIZE, COUNTS = int(S.SUMS), int(S.SUM_SIZE), int(S.COUNTS)
SUM_POSITIONS, SUM_PADDED, LARGEST, LO = int(S.SUM_POSITIONS), int(S.SUM_PADDED), int(S.LARGEST), int(S.LO)
BREAKS, BREAK_COUNT, VALUES, GROUP = int(S.BREAKS), int(S.BREAK_COUNT), int(S.VALUES), int(S.GROUP)
WINDOWS, TAPS, BACK, BACK_ITEMS = int(S.WINDOWS), int(S.TAPS), int(S.BACK), int(S.BACK_ITEMS)
TARGET, HOLD, KIND, LINE = int(S.TARGET), int(S.HOLD), int(S.KIND), int(S.LINE)
TOP, SIZE, EVENTS, PENDING = int(T.TOP), int(T.SIZE), int(T.EVENTS), int(T.PENDING)
NEURON, STEPS, POOL, WINDOWED = int(Kind.NEURON), int(Kind.STEPS), int(Kind.POOL), int(Kind.WINDOWS)
RELAY, CODED = int(Kind.RELAY), int(Kind.CODED)
LANES = 32
FIRED = (1 << LANES) - 1


@compiled
def reach_windows(stage: Array, table: Array, space: Space) -> None:
    """From the sums that changed to the windows over them."""
    for q in range(stage[SUM_POSITIONS]):
        if space.touched[q]:
            space.touched[q] = 0
            for j in range(table[stage[BACK] + q], table[stage[BACK] + q + 1]):
                space.mark[table[stage[BACK_ITEMS] + j]] = 1


@compiled
def emit_silent(
    acc: Array, stage: Array, pool: Array, table: Array, lanes: Array, space: Space, everything: bool
) -> None:
    """Neurons that a pool alone reads: nothing is listed, the windows that changed are marked."""
    padded, sums, counts, positions = stage[PADDED], stage[SUMS], stage[COUNTS], stage[POSITIONS]
    breaks, n, lo, most = stage[BREAKS], stage[BREAK_COUNT], stage[LO], stage[LARGEST]
    changed, waiting, sent, mark = space.touched, space.pending, space.sent, space.mark
    back, items, line = pool[BACK], pool[BACK_ITEMS], stage[LINE]
    events, any_pending = 0, 0
    for p in range(positions):
        if not (everything or changed[p] or waiting[p]):
            continue
        changed[p] = 0
        pending = fired = 0
        for own in range(p * padded, (p + 1) * padded, LANES):
            lane = own - p * padded
            if line >= 0:
                slope = line + 2 * lane
                bits = line_block(acc, sums + own, counts + own, table, slope, padded, n, lo, most, sent)
            else:
                first = breaks + lane
                bits = step_block(acc, sums + own, counts + own, lanes, first, padded, n, lo, most, sent)
            pending |= bits >> LANES
            fired |= bits & FIRED
            events += ones(bits & FIRED)
        if fired != 0:
            for j in range(table[back + p], table[back + p + 1]):
                mark[table[items + j]] = 1
        waiting[p] = pending != 0
        any_pending |= pending
    close(space.totals, space.totals[TOP], events, events, any_pending != 0)


@compiled
def emit_tracking(
    acc: Array,
    stage: Array,
    table: Array,
    lanes: Array,
    space: Space,
    waiting: Array,
    train: int,
    everything: bool,
) -> bool:
    """Neurons and pools, 32 channels at once, where something arrived or was pending; False: no room.

    Arrays go into vector instructions alone: numba counts references at every call of a function.
    """
    pool, padded, sums, counts = stage[KIND] == POOL, stage[PADDED], stage[SUMS], stage[COUNTS]
    breaks, n, lo, most = stage[BREAKS], stage[BREAK_COUNT], stage[LO], stage[LARGEST]
    windows, taps, positions, line = stage[WINDOWS], stage[TAPS], stage[POSITIONS], stage[LINE]
    changed = space.mark if pool else space.touched
    place, value, starts, sent = space.place, space.value, space.train, space.sent
    first_spike = top = space.totals[TOP]
    room, any_pending = len(place) - padded - HALF, 0
    for p in range(positions):
        starts[train + p] = top
        if not (everything or changed[p] or waiting[p]):
            continue
        if top > room:
            return False
        changed[p] = 0
        pending = 0
        for lane in range(0, padded, LANES):
            own = p * padded + lane
            if pool:
                first = windows + p * taps
                bits = pool_block(acc, sums + lane, padded, counts + own, table, first, taps, most, sent)
            elif line >= 0:
                slope = line + 2 * lane
                bits = line_block(acc, sums + own, counts + own, table, slope, padded, n, lo, most, sent)
            else:
                bits = step_block(
                    acc, sums + own, counts + own, lanes, breaks + lane, padded, n, lo, most, sent
                )
            pending |= bits >> LANES
            fired = bits & FIRED
            if fired != 0:
                top = append(place, value, top, own, sent, fired)
        waiting[p] = pending != 0
        any_pending |= pending
    starts[train + positions] = top
    size = top - first_spike
    if most != 1:
        size = 0
        for j in range(first_spike, top):
            size += abs(value[j])
    close(space.totals, top, size, top - first_spike, any_pending != 0)
    return True


@compiled
def emit_given(acc: Array, stage: Array, targets: Array, space: Space, train: int, everything: bool) -> bool:
    """Inputs and relays, 32 channels at once: towards given targets, or what arrived; False: no room."""
    kind, padded, sums, counts = stage[KIND], stage[PADDED], stage[SUMS], stage[COUNTS]
    target, most, positions = stage[TARGET], stage[LARGEST], stage[POSITIONS]
    changed, waiting, starts, sent = space.touched, space.pending, space.train, space.sent
    place, value = space.place, space.value
    first_spike = top = space.totals[TOP]
    room, any_pending = len(place) - padded - HALF, 0
    for p in range(positions):
        starts[train + p] = top
        if not (everything or changed[p] or waiting[p]):
            continue
        if top > room:
            return False
        changed[p] = 0
        pending = 0
        for own in range(p * padded, (p + 1) * padded, LANES):
            if kind == RELAY:
                bits = relay_block(acc, sums + own, sent)
            elif kind == CODED:
                bits = goal_block(acc, counts + own, targets, target + own, most, sent)
            else:
                bits = jump_block(acc, counts + own, targets, target + own, sent)
            pending |= bits >> LANES
            fired = bits & FIRED
            if fired != 0:
                top = append(place, value, top, own, sent, fired)
        waiting[p] = pending != 0
        any_pending |= pending
    starts[train + positions] = top
    size = top - first_spike
    if most != 1:
        size = 0
        for j in range(first_spike, top):
            size += abs(value[j])
    close(space.totals, top, size, top - first_spike, any_pending != 0)
    return True


@compiled
def close(totals: Array, top: int, size: int, events: int, pending: bool) -> None:
    """Running numbers after a step."""
    totals[TOP] = top
    totals[SIZE] += size
    totals[EVENTS] += events
    totals[PENDING] = pending


@compiled
def tracked(acc: Array, stage: Array, table: Array, lanes: Array, place: int) -> int:
    """What the count at a place should be; 0 for places without a number."""
    kind = stage[KIND]
    if kind == NEURON:
        total = acc[stage[SUMS] + place]
        found, lane = stage[LO], place % stage[PADDED]
        for k in range(stage[BREAK_COUNT]):
            found += total >= lanes[stage[BREAKS] + k * stage[PADDED] + lane]
        return int(found)
    if kind == STEPS:
        return stepped(acc[stage[SUMS] + place], stage, table, table[stage[GROUP] + place])
    best, found = 0, False
    row = stage[WINDOWS] + (place if kind == WINDOWED else place // stage[PADDED]) * stage[TAPS]
    for k in range(stage[TAPS]):
        at = table[row + k]
        if at >= 0:
            if kind == POOL:
                at = at * stage[SUM_PADDED] + place % stage[PADDED]
            value = acc[stage[SUMS] + at]
            best = value if not found else max(best, value)
            found = True
    return int(best)


@compiled
def stepped(total: int, stage: Array, table: Array, group: int) -> int:
    """The value behind the last breakpoint that is not above the sum."""
    if group < 0:
        return 0
    n = stage[BREAK_COUNT]
    first = stage[BREAKS] + group * n
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if table[first + middle] <= total:
            low = middle + 1
        else:
            high = middle
    return int(table[stage[VALUES] + group * (n + 1) + low])


@compiled
def emit_singly(
    acc: Array,
    stage: Array,
    table: Array,
    lanes: Array,
    space: Space,
    train: int,
    everything: bool,
    held: tuple[Array, Array],
) -> bool:
    """Any neuron or pool, one after the other; False: no room.

    Args:
        held: of each place whether it takes part, and the count that it keeps if not; empty: all do.
    """
    kind, padded, positions, most = stage[KIND], stage[PADDED], stage[POSITIONS], stage[LARGEST]
    touched, waiting, place, value = space.touched, space.pending, space.place, space.value
    if kind in (POOL, WINDOWED):
        for q in range(stage[SUM_POSITIONS]):
            everything |= touched[q] != 0
            touched[q] = 0
    hold = len(held[0]) > 0 and stage[HOLD] >= 0
    first_spike = top = space.totals[TOP]
    size, any_pending = 0, False
    for p in range(positions):
        space.train[train + p] = top
        if not (everything or touched[p] or waiting[p]):
            continue
        if top > len(place) - padded - HALF:
            return False
        touched[p] = 0
        pending = False
        for own in range(p * padded, p * padded + stage[CHANNELS]):
            target = tracked(acc, stage, table, lanes, own)
            if hold and held[0][stage[HOLD] + own] == 0:
                target = held[1][stage[HOLD] + own]
            at = stage[COUNTS] + own
            spike = min(max(target - acc[at], -most), most)
            if spike != 0:
                acc[at] += spike
                place[top], value[top] = 2 * own + (spike < 0), spike
                size += abs(spike)
                top += 1
            pending |= acc[at] != target
        waiting[p] = pending
        any_pending |= pending
    space.train[train + positions] = top
    close(space.totals, top, size, top - first_spike, any_pending)
    return True


@compiled
def send_product(acc: Array, stage: Array, space: Space, train: int) -> bool:
    """What a step changed of a product; False: no room."""
    padded, part, positions = stage[PADDED], stage[SUM_SIZE], stage[POSITIONS]
    touched, place, value = space.touched, space.place, space.value
    first_spike = top = space.totals[TOP]
    size = 0
    for p in range(positions):
        space.train[train + p] = top
        if not touched[p]:
            continue
        if top > len(place) - padded - HALF:
            return False
        touched[p] = 0
        for own in range(p * padded, p * padded + stage[CHANNELS]):
            at = stage[SUMS] + own
            now = acc[at] * acc[at + part]
            change = now - acc[at + 2 * part]
            if change != 0:
                acc[at + 2 * part] = now
                place[top], value[top] = 2 * own + (change < 0), change
                size += abs(change)
                top += 1
    space.train[train + positions] = top
    close(space.totals, top, size, top - first_spike, False)
    return True
