"""One sample through one program: stage after stage, each over all steps of its sources."""

from __future__ import annotations

from spikemorph.run.event.compiled import compiled, entry
from spikemorph.run.event.emit import (
    emit_given,
    emit_silent,
    emit_singly,
    emit_tracking,
    reach_windows,
    send_product,
)
from spikemorph.run.event.firing import (
    begin_drive,
    climb,
    emit_firing,
    end_drive,
    enter_again,
    enter_part,
)
from spikemorph.run.event.program import EdgeKind, Kind
from spikemorph.run.event.scatter import add_dense, add_grouped, add_links, add_straight, add_units
from spikemorph.run.event.tables import (
    DONE,
    MORE_SPIKES,
    MORE_STEPS,
    Array,
    E,
    How,
    Packed,
    S,
    Sizes,
    Space,
    T,
)
from spikemorph.run.event.vector import copy_part

KIND, WIDE, SUMS, SUM_SIZE, COUNTS = int(S.KIND), int(S.WIDE), int(S.SUMS), int(S.SUM_SIZE), int(S.COUNTS)
POSITIONS, PADDED = int(S.POSITIONS), int(S.PADDED)
EDGE, EDGE_END, TRAIN = int(S.EDGE), int(S.EDGE_END), int(S.TRAIN)
BOOK, HOLD, SNAP, HITS = int(S.BOOK), int(S.HOLD), int(S.SNAP), int(S.HITS)
POOLS, JOINED, POOLED = int(S.POOL), int(S.JOINED), int(T.POOLED)
EDGE_KIND, SOURCE, CODE = int(E.KIND), int(E.SOURCE), int(E.CODE)
ROWS, GROUPED, STRAIGHT = int(EdgeKind.ROWS), int(EdgeKind.GROUPED), int(EdgeKind.STRAIGHT)
UNITS = int(EdgeKind.UNITS)
ANALOG, CODED, NEURON, POOL = int(Kind.ANALOG), int(Kind.CODED), int(Kind.NEURON), int(Kind.POOL)
STEPS, WINDOWED = int(Kind.STEPS), int(Kind.WINDOWS)
PRODUCT, READOUT, FIRE = int(Kind.PRODUCT), int(Kind.READOUT), int(Kind.FIRE)
RELAY, STEADY, TARGET = int(Kind.RELAY), int(S.STEADY), int(S.TARGET)
STAGES, SNAP_SIZE = int(Sizes.STAGES), int(Sizes.SNAP)
TOP, SIZE, EVENTS, PENDING = int(T.TOP), int(T.SIZE), int(T.EVENTS), int(T.PENDING)
LAST_SPIKE, LAST_PENDING, UNSETTLED = int(T.LAST_SPIKE), int(T.LAST_PENDING), int(T.UNSETTLED)


@compiled
def bring(acc: Array, base: int, packed: Packed, number: int, space: Space, step: int, most: int) -> None:
    """What one edge brings in one step."""
    edge = packed.edges[number]
    source = edge[SOURCE]
    if step >= space.length[source]:
        return
    stage = packed.stages[source]
    at = stage[TRAIN] * most + step * (stage[POSITIONS] + 1)
    table = packed.table
    if space.train[at] == space.train[at + stage[POSITIONS]]:
        return
    spikes = (space.place, space.value, space.train)
    kind, code = edge[EDGE_KIND], edge[CODE]
    if kind == ROWS:
        if code == 0:
            add_dense(acc, base, packed.weights8, edge, table, spikes, at, space.mark, space.touched)
        elif code == 1:
            add_dense(acc, base, packed.weights16, edge, table, spikes, at, space.mark, space.touched)
        else:
            add_dense(acc, base, packed.weights32, edge, table, spikes, at, space.mark, space.touched)
    elif kind == UNITS:
        add_units(
            acc, base, packed.weights8, edge, table, spikes, at, space.mark, space.touched, space.listed
        )
    elif kind == GROUPED:
        add_grouped(acc, base, packed.weights32, edge, table, spikes, at, space.mark, space.touched)
    elif kind == STRAIGHT:
        add_straight(acc, base, edge, table, spikes, at, space.touched)
    else:
        add_links(acc, base, edge, table, spikes, at, space.touched)


@compiled
def send(
    acc: Array,
    lanes: Array,
    packed: Packed,
    stage: Array,
    targets: Array,
    space: Space,
    train: int,
    everything: bool,
    first: bool,
    held: tuple[Array, Array],
) -> bool:
    """What a stage sends in one step; False: no room."""
    kind = stage[KIND]
    if kind == PRODUCT:
        return send_product(acc, stage, space, train)
    if kind == FIRE:
        return emit_firing(acc, stage, lanes, space, train)
    hold = len(held[0]) > 0 and stage[HOLD] >= 0
    if kind in (STEPS, WINDOWED) or (hold and kind in (NEURON, POOL)):
        return emit_singly(acc, stage, packed.table, lanes, space, train, everything, held)
    if kind == POOL:
        reach_windows(stage, packed.table, space)
    if kind in (NEURON, POOL):
        return emit_tracking(acc, stage, packed.table, lanes, space, space.pending, train, everything)
    every = first and kind in (ANALOG, CODED)
    return emit_given(acc, stage, targets, space, train, every)


@compiled
def send_pooled(
    acc: Array,
    lanes: Array,
    packed: Packed,
    stage: Array,
    space: Space,
    train: int,
    everything: bool,
) -> bool:
    """What neurons and the pool over them send in one step; False: no room.

    Args:
        train: where that of the pool goes.
    """
    pool, totals = packed.stages[stage[POOLS]], space.totals
    emit_silent(acc, stage, pool, packed.table, lanes, space, everything)
    events, pending = totals[EVENTS], totals[PENDING]
    done = emit_tracking(acc, pool, packed.table, lanes, space, space.pooled, train, everything)
    totals[POOLED] += totals[EVENTS] - events
    totals[PENDING] |= pending
    return done


@compiled
def read(acc: Array, stage: Array, space: Space, step: int, width: int, snap: bool) -> None:
    """A readout sends nothing; its sums after every step are kept if wanted."""
    space.totals[PENDING] = False
    space.touched[: stage[POSITIONS]] = 0
    if snap:
        start = step * width + stage[SNAP]
        for i in range(stage[SUM_SIZE]):
            space.snap[start + i] = acc[stage[SUMS] + i]


@compiled
def clear(acc: Array, packed: Packed, stage: Array, first: int) -> None:
    """Numbers of a stage from `first` on as they are at rest."""
    last = stage[COUNTS] + stage[POSITIONS] * stage[PADDED]
    if stage[WIDE] == 1:
        copy_part(acc, packed.start32, first, last - first)
    else:
        copy_part(acc, packed.start16, first, last - first)


@compiled
def bring_steady(
    acc: Array, start: Array, packed: Packed, stage: Array, space: Space, how: How, step: int
) -> None:
    """What enters a stage of a rate network at every step: found in the first, then added again."""
    if step > 0:
        enter_again(acc, stage[SUMS], stage[SUM_SIZE], space.drive)
        return
    begin_drive(acc, start, stage[SUMS], stage[SUM_SIZE], space.drive, how.fresh == 1)
    for e in range(stage[EDGE], stage[EDGE_END]):
        if packed.stages[packed.edges[e][SOURCE], STEADY] == 1:
            bring(acc, stage[SUMS], packed, e, space, step, how.most)
    end_drive(acc, stage[SUMS], stage[SUM_SIZE], space.drive)


@compiled
def climb_stage(
    acc: Array, start: Array, stage: Array, targets: Array, space: Space, how: How, step: int
) -> None:
    """What enters a stage in one step of a ramp: a part of its biases, or of what an input is given."""
    now = how.offset + step
    if stage[KIND] == ANALOG:
        size = stage[POSITIONS] * stage[PADDED]
        enter_part(targets, space.entered, stage[TARGET], size, now, how.ramp)
    elif stage[KIND] != PRODUCT and stage[JOINED] != 1:
        climb(acc, start, stage[SUMS], stage[SUM_SIZE], now, how.ramp)


@compiled
def begin_stage(acc: Array, packed: Packed, stage: Array, space: Space, fresh: bool, own: bool) -> int:
    """Nothing is pending; from rest where asked for; steps that the sources ran."""
    sources = 1
    for e in range(stage[EDGE], stage[EDGE_END]):
        sources = max(sources, space.length[packed.edges[e][SOURCE]])
    space.pending[: stage[POSITIONS]] = 0
    if stage[POOLS] >= 0:
        pool = packed.stages[stage[POOLS]]
        space.pooled[: pool[POSITIONS]] = 0
        if fresh:
            clear(acc, packed, pool, pool[COUNTS])
    if own:
        clear(acc, packed, stage, stage[SUMS])
    space.totals[PENDING] = False
    return sources


@compiled
def end_step(stage: Array, space: Space, how: How, step: int, size: int, events: int) -> None:
    """Books of one step of a stage, in which so much was sent."""
    totals = space.totals
    if stage[BOOK] >= 0:
        space.pace[step] += size
        if events > 0:
            totals[LAST_SPIKE] = max(totals[LAST_SPIKE], step + 1)
    if totals[PENDING] != 0:
        totals[LAST_PENDING] = max(totals[LAST_PENDING], step + 1)
        if how.steps > 0 and step + 1 == how.steps:
            totals[UNSETTLED] = 1


@compiled
def run_stage(
    acc: Array,
    start: Array,
    lanes: Array,
    packed: Packed,
    number: int,
    targets: Array,
    space: Space,
    how: How,
    held: tuple[Array, Array],
) -> int:
    """A stage over all steps, until its sources have ended and nothing is pending."""
    stage = packed.stages[number]
    kind, totals, step = stage[KIND], space.totals, 0
    steady, driven = how.drive == 1 and stage[STEADY] == 1, how.drive == 1 and kind in (FIRE, READOUT, RELAY)
    sources = begin_stage(acc, packed, stage, space, how.fresh == 1, how.fresh == 1 or steady)
    while True:
        if steady and step == 1:
            break
        if (how.steps > 0 and step >= how.steps) or (
            how.drive == 0 and step >= sources and totals[PENDING] == 0
        ):
            break
        if step >= how.most:
            return MORE_STEPS
        if driven and not steady:
            bring_steady(acc, start, packed, stage, space, how, step)
        for e in range(stage[EDGE], stage[EDGE_END]):
            if steady or how.drive == 0 or packed.stages[packed.edges[e][SOURCE], STEADY] == 0:
                bring(acc, stage[SUMS], packed, e, space, step, how.most)
        events, size = totals[EVENTS], totals[SIZE]
        climbs = how.offset + step < how.ramp and how.ramp > 1
        if climbs:
            climb_stage(acc, start, stage, targets, space, how, step)
        every = (how.everything == 1 and step == 0) or driven or climbs
        given = space.entered if climbs else targets
        if stage[POOLS] >= 0:
            pool = packed.stages[stage[POOLS]]
            train = pool[TRAIN] * how.most + step * (pool[POSITIONS] + 1)
            if not send_pooled(acc, lanes, packed, stage, space, train, every):
                return MORE_SPIKES
        elif kind == READOUT:
            read(acc, stage, space, step, packed.sizes[SNAP_SIZE], how.snap == 1)
        else:
            train = stage[TRAIN] * how.most + step * (stage[POSITIONS] + 1)
            if not send(acc, lanes, packed, stage, given, space, train, every, step == 0 or climbs, held):
                return MORE_SPIKES
        if climbs and how.offset + step + 1 < how.ramp:
            totals[PENDING] = True
        end_step(stage, space, how, step, totals[SIZE] - size, totals[EVENTS] - events)
        step += 1
    space.length[number] = step
    if stage[POOLS] >= 0:
        space.length[stage[POOLS]] = step
    return DONE


@compiled
def play(
    packed: Packed,
    state: tuple[Array, Array],
    targets: Array,
    space: Space,
    how: How,
    held: tuple[Array, Array],
    books: Array,
    stages: tuple[int, int],
) -> int:
    """One sample through some stages, from its state to its next one; whether there was room.

    Args:
        state: narrow and wide sums and counts, changed in place.
        books: int64 [books, 2], gains spikes and events of every emitter.
    """
    totals = space.totals
    totals[:] = 0
    if how.snap == 1:
        space.pace[:] = 0
    for number in range(stages[0], stages[1]):
        stage = packed.stages[number]
        if stage[JOINED] == 1:
            continue
        size, events, pooled = totals[SIZE], totals[EVENTS], totals[POOLED]
        if stage[WIDE] == 1:
            ended = run_stage(
                state[1], packed.start32, packed.lanes32, packed, number, targets, space, how, held
            )
        else:
            ended = run_stage(
                state[0], packed.start16, packed.lanes16, packed, number, targets, space, how, held
            )
        if ended != DONE:
            return ended
        pooled = totals[POOLED] - pooled
        if stage[BOOK] >= 0:
            books[stage[BOOK], 0] += totals[SIZE] - size - pooled
            books[stage[BOOK], 1] += totals[EVENTS] - events - pooled
        if pooled > 0:
            book = packed.stages[stage[POOLS], BOOK]
            books[book, 0] += pooled
            books[book, 1] += pooled
    return DONE


@entry
def play_batch(
    packed: Packed,
    states: tuple[Array, Array],
    targets: Array,
    space: Space,
    how: How,
    held: tuple[Array, Array],
    books: tuple[Array, Array, Array],
    first: int,
) -> tuple[int, int]:
    """Samples from `first` on; the sample that found no room, and why (or the end, and that all is well).

    Args:
        states: [samples, numbers] narrow and wide; a single row where every sample starts from rest.
        targets: int32 [samples, targets].
        held: [samples, places] each, or [samples, 0].
        books: int64 [samples, books, 2]; int64 [samples, 3]: last step with a spike, steps run, whether
            unsettled; int32 [samples, n], what is collected.
    """
    kept = 0 if how.fresh == 1 else 1
    backup = (states[0][:kept].copy(), states[1][:kept].copy())
    counted, marks, found = books
    stages = (0, int(packed.sizes[STAGES]))
    for i in range(first, len(targets)):
        row = min(i, len(states[0]) - 1)
        state = (states[0][row], states[1][row])
        if how.fresh == 0:
            backup[0][0] = state[0]
            backup[1][0] = state[1]
        ended = play(packed, state, targets[i], space, how, (held[0][i], held[1][i]), counted[i], stages)
        if ended != DONE:
            if how.fresh == 0:
                state[0][:] = backup[0][0]
                state[1][:] = backup[1][0]
            counted[i] = 0
            return i, ended
        if how.work == 1:
            count_hits(packed, space, how.most, stages, 1)
        totals = space.totals
        marks[i, 0] = totals[LAST_SPIKE]
        marks[i, 1] = how.steps if how.steps > 0 else totals[LAST_PENDING] + 1
        marks[i, 2] = totals[UNSETTLED]
        collect(packed.collected, state, found[i])
    return len(targets), DONE


@compiled
def count_hits(packed: Packed, space: Space, most: int, stages: tuple[int, int], again: int) -> None:
    """Add the events of a sample, place by place; what is steady sends the same so many times."""
    for number in range(stages[0], stages[1]):
        stage = packed.stages[number]
        if stage[HITS] < 0:
            continue
        row, hits = stage[POSITIONS] + 1, stage[HITS]
        times = again if stage[STEADY] == 1 else 1
        for step in range(space.length[number]):
            at = stage[TRAIN] * most + step * row
            for j in range(space.train[at], space.train[at + stage[POSITIONS]]):
                space.hits[hits + (space.place[j] >> 1)] += times


@compiled
def collect(wanted: Array, state: tuple[Array, Array], found: Array) -> None:
    """Numbers of the state that a caller wants to see."""
    for j in range(wanted.shape[1]):
        at = wanted[1, j]
        found[j] = state[1][at] if wanted[0, j] == 1 else state[0][at]
