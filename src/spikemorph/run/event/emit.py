"""Kernels that let a stage send: what it tracks, what fires, what is still pending."""

from __future__ import annotations

from spikemorph.run.event.compiled import compiled
from spikemorph.run.event.program import Kind
from spikemorph.run.event.tables import Array, S, Space, T
from spikemorph.run.event.vector import lowest, pool_block, step_block

POSITIONS, PADDED, CHANNELS = int(S.POSITIONS), int(S.PADDED), int(S.CHANNELS)
SUMS, SUM_SIZE, COUNTS = int(S.SUMS), int(S.SUM_SIZE), int(S.COUNTS)
SUM_POSITIONS, SUM_PADDED, LARGEST, LO = int(S.SUM_POSITIONS), int(S.SUM_PADDED), int(S.LARGEST), int(S.LO)
BREAKS, BREAK_COUNT, VALUES, GROUP = int(S.BREAKS), int(S.BREAK_COUNT), int(S.VALUES), int(S.GROUP)
WINDOWS, TAPS, BACK, BACK_ITEMS = int(S.WINDOWS), int(S.TAPS), int(S.BACK), int(S.BACK_ITEMS)
TARGET, HOLD, KIND = int(S.TARGET), int(S.HOLD), int(S.KIND)
TOP, SIZE, EVENTS, PENDING = int(T.TOP), int(T.SIZE), int(T.EVENTS), int(T.PENDING)
NEURON, STEPS, POOL, WINDOWED = int(Kind.NEURON), int(Kind.STEPS), int(Kind.POOL), int(Kind.WINDOWS)
LANES = 32
FIRED = (1 << LANES) - 1


@compiled
def put(space: Space, place: int, size: int) -> None:
    """One spike."""
    top = space.totals[TOP]
    space.place[top] = place
    space.value[top] = size
    space.totals[TOP] = top + 1
    space.totals[SIZE] += abs(size)
    space.totals[EVENTS] += 1


@compiled
def full(space: Space, most: int) -> bool:
    """Whether another row may not find room."""
    return bool(space.totals[TOP] + most > len(space.place))


@compiled
def reach_windows(stage: Array, table: Array, space: Space) -> None:
    """From the sums that changed to the windows over them."""
    for q in range(stage[SUM_POSITIONS]):
        if space.touched[q]:
            space.touched[q] = 0
            for j in range(table[stage[BACK] + q], table[stage[BACK] + q + 1]):
                space.mark[table[stage[BACK_ITEMS] + j]] = 1


@compiled
def emit_blocks(
    acc: Array, stage: Array, table: Array, lanes: Array, space: Space, train: int, everything: bool
) -> bool:
    """Neurons and pools 32 channels at once, where something arrived or was pending; False: no room."""
    pool = stage[KIND] == POOL
    changed = space.mark if pool else space.touched
    if pool:
        reach_windows(stage, table, space)
    padded, positions, largest, sent = stage[PADDED], stage[POSITIONS], stage[LARGEST], space.sent
    sums, counts, taps, windows = stage[SUMS], stage[COUNTS], stage[TAPS], stage[WINDOWS]
    breaks, n, lo = stage[BREAKS], stage[BREAK_COUNT], stage[LO]
    place, value, waiting, starts = space.place, space.value, space.pending, space.train
    first_spike = top = space.totals[TOP]
    room, size, any_pending = len(place) - padded, 0, 0
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
                bits = pool_block(
                    acc, sums + lane, padded, counts + own, table, windows + p * taps, taps, largest, sent
                )
            else:
                bits = step_block(
                    acc, sums + own, counts + own, lanes, breaks + lane, padded, n, lo, largest, sent
                )
            pending |= bits >> LANES
            fired = bits & FIRED
            while fired != 0:
                c = lowest(fired)
                fired &= fired - 1
                place[top] = own + c
                value[top] = sent[c]
                size += abs(sent[c])
                top += 1
        waiting[p] = pending != 0
        any_pending |= pending
    starts[train + positions] = top
    space.totals[TOP] = top
    space.totals[SIZE] += size
    space.totals[EVENTS] += top - first_spike
    space.totals[PENDING] = any_pending != 0
    return True


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
    kind, padded = stage[KIND], stage[PADDED]
    if kind in {POOL, WINDOWED}:
        for q in range(stage[SUM_POSITIONS]):
            everything |= space.touched[q] != 0
            space.touched[q] = 0
    hold = len(held[0]) > 0 and stage[HOLD] >= 0
    any_pending = False
    for p in range(stage[POSITIONS]):
        space.train[train + p] = space.totals[TOP]
        if not (everything or space.touched[p] or space.pending[p]):
            continue
        if full(space, padded):
            return False
        space.touched[p] = 0
        pending = False
        for c in range(stage[CHANNELS]):
            place = p * padded + c
            target = tracked(acc, stage, table, lanes, place)
            if hold and held[0][stage[HOLD] + place] == 0:
                target = held[1][stage[HOLD] + place]
            pending |= toward(acc, stage, space, place, target)
        space.pending[p] = pending
        any_pending |= pending
    space.train[train + stage[POSITIONS]] = space.totals[TOP]
    space.totals[PENDING] = any_pending
    return True


@compiled
def toward(acc: Array, stage: Array, space: Space, place: int, target: int) -> bool:
    """One spike towards the target; whether the count has still to go on."""
    most, at = stage[LARGEST], stage[COUNTS] + place
    size = min(max(target - acc[at], -most), most)
    if size != 0:
        acc[at] += size
        put(space, place, size)
    return bool(acc[at] != target)


@compiled
def send_input(acc: Array, stage: Array, targets: Array, space: Space, train: int, coded: bool) -> bool:
    """Given targets: as spikes, or their whole change at once; False: no room."""
    padded, pending = stage[PADDED], False
    for p in range(stage[POSITIONS]):
        space.train[train + p] = space.totals[TOP]
        if full(space, padded):
            return False
        for c in range(stage[CHANNELS]):
            place = p * padded + c
            target = targets[stage[TARGET] + place]
            if coded:
                pending |= toward(acc, stage, space, place, target)
                continue
            change = target - acc[stage[COUNTS] + place]
            if change != 0:
                acc[stage[COUNTS] + place] = target
                put(space, place, change)
    space.train[train + stage[POSITIONS]] = space.totals[TOP]
    space.totals[PENDING] = pending
    return True


@compiled
def send_on(acc: Array, stage: Array, space: Space, train: int, product: bool) -> bool:
    """Relays and products: what the step changed; False: no room."""
    padded, size = stage[PADDED], stage[SUM_SIZE]
    for p in range(stage[POSITIONS]):
        space.train[train + p] = space.totals[TOP]
        if not space.touched[p]:
            continue
        if full(space, padded):
            return False
        space.touched[p] = 0
        for c in range(stage[CHANNELS]):
            place = p * padded + c
            at = stage[SUMS] + place
            if product:
                now = acc[at] * acc[at + size]
                change = now - acc[at + 2 * size]
                acc[at + 2 * size] = now
            else:
                change = acc[at]
                acc[at] = 0
            if change != 0:
                put(space, place, change)
    space.train[train + stage[POSITIONS]] = space.totals[TOP]
    space.totals[PENDING] = False
    return True
