"""Kernels that add the spikes of one step of a stage into the sums of another."""

from __future__ import annotations

from spikemorph.run.event.adding import (
    add_rows32,
    add_rows64,
    add_rows128,
    add_runs32,
    add_runs64,
    add_runs128,
    list_rows,
)
from spikemorph.run.event.compiled import compiled
from spikemorph.run.event.tables import Array, E

OUTS, RUNS, RUN_ITEMS, PLACE, WHERE = int(E.OUTS), int(E.RUNS), int(E.RUN_ITEMS), int(E.PLACE), int(E.WHERE)
ROWS, WIDTH, STARTS = int(E.ROWS), int(E.WIDTH), int(E.STARTS)
SOURCES, SOURCE_PADDED = int(E.SOURCES), int(E.SOURCE_PADDED)
BACK, BACK_ITEMS = int(E.BACK), int(E.BACK_ITEMS)
FIRST, TARGET, WEIGHT = int(E.FIRST), int(E.TARGET), int(E.WEIGHT)
ZERO, SMALL = int(E.ZERO), int(E.SMALL)
FEW = 4
"""Targets that are looked at in any case."""
MANY = 3
"""With spikes at one position in so many, all targets are looked at."""


@compiled
def mark_reached(edge: Array, table: Array, train: Array, at: int, mark: Array) -> int:
    """Mark the positions that any spike reaches: 0 for none, 1 for those marked, 2 for all."""
    sources = edge[SOURCES]
    if edge[OUTS] <= FEW:
        return 2
    live = 0
    for q in range(sources):
        live += train[at + q + 1] > train[at + q]
    if live == 0:
        return 0
    if live * MANY > sources:
        return 2
    first, items = edge[BACK], edge[BACK_ITEMS]
    for q in range(sources):
        if train[at + q + 1] > train[at + q]:
            for j in range(table[first + q], table[first + q + 1]):
                mark[table[items + j]] = 1
    return 1


@compiled
def add_dense(
    acc: Array,
    base: int,
    weights: Array,
    edge: Array,
    table: Array,
    spikes: tuple[Array, Array, Array],
    at: int,
    mark: Array,
    touched: Array,
) -> None:
    """Rows of weights: for each out position the spikes of a whole run of source positions at once."""
    reach = mark_reached(edge, table, spikes[2], at, mark)
    if reach == 0:
        return
    width, runs, items, rows = edge[WIDTH], edge[RUNS], edge[RUN_ITEMS], edge[ROWS]
    places, where = edge[PLACE], edge[WHERE]
    for p in range(edge[OUTS]):
        if reach == 1 and mark[p] == 0:
            continue
        mark[p] = 0
        own = base + table[places + p]
        r, end = items + 3 * table[runs + p], items + 3 * table[runs + p + 1]
        hits = 0
        lane = 0
        while lane + 128 <= width:
            hits += add_runs128(acc, own + lane, weights, rows + lane, width, spikes, at, table, r, end)
            lane += 128
        if lane + 64 <= width:
            hits += add_runs64(acc, own + lane, weights, rows + lane, width, spikes, at, table, r, end)
            lane += 64
        if lane < width:
            hits += add_runs32(acc, own + lane, weights, rows + lane, width, spikes, at, table, r, end)
        if hits > 0:
            touched[table[where + p]] = 1


@compiled
def add_units(
    acc: Array,
    base: int,
    weights: Array,
    edge: Array,
    table: Array,
    spikes: tuple[Array, Array, Array],
    at: int,
    mark: Array,
    touched: Array,
    listed: Array,
) -> None:
    """The same for spikes of size 1: their rows are listed, then added without a product."""
    reach = mark_reached(edge, table, spikes[2], at, mark)
    if reach == 0:
        return
    width, runs, items, rows, zero = edge[WIDTH], edge[RUNS], edge[RUN_ITEMS], edge[ROWS], edge[ZERO]
    places, where, small = edge[PLACE], edge[WHERE], edge[SMALL]
    for p in range(edge[OUTS]):
        if reach == 1 and mark[p] == 0:
            continue
        mark[p] = 0
        r, end = items + 3 * table[runs + p], items + 3 * table[runs + p + 1]
        hits = list_rows(listed, rows, width, zero, spikes[0], spikes[2], at, table, r, end)
        if hits == 0:
            continue
        touched[table[where + p]] = 1
        own = base + table[places + p]
        lane = 0
        while lane + 128 <= width:
            add_rows128(acc, own + lane, weights, lane, listed, hits, small)
            lane += 128
        if lane + 64 <= width:
            add_rows64(acc, own + lane, weights, lane, listed, hits, small)
            lane += 64
        if lane < width:
            add_rows32(acc, own + lane, weights, lane, listed, hits, small)


@compiled
def add_grouped(
    acc: Array,
    base: int,
    weights: Array,
    edge: Array,
    table: Array,
    spikes: tuple[Array, Array, Array],
    at: int,
    mark: Array,
    touched: Array,
) -> None:
    """Grouped convolutions: a spike reaches the channels of its group alone."""
    place, value, train = spikes
    reach = mark_reached(edge, table, train, at, mark)
    if reach == 0:
        return
    width, runs, items, padded = edge[WIDTH], edge[RUNS], edge[RUN_ITEMS], edge[SOURCE_PADDED]
    for p in range(edge[OUTS]):
        if reach == 1 and mark[p] == 0:
            continue
        mark[p] = 0
        own = base + table[edge[PLACE] + p]
        for r in range(table[runs + p], table[runs + p + 1]):
            first = table[items + 3 * r]
            for j in range(train[at + table[items + 3 * r + 1]], train[at + table[items + 3 * r + 2]]):
                source = place[j] >> 1
                row = edge[ROWS] + (first + source) * width
                start = own + table[edge[STARTS] + source % padded]
                for o in range(width):
                    acc[start + o] += value[j] * weights[row + o]
                touched[table[edge[WHERE] + p]] = 1


@compiled
def add_links(
    acc: Array,
    base: int,
    edge: Array,
    table: Array,
    spikes: tuple[Array, Array, Array],
    at: int,
    touched: Array,
) -> None:
    """Single links."""
    place, value, train = spikes
    first, target, weight, where = edge[FIRST], edge[TARGET], edge[WEIGHT], edge[WHERE]
    for j in range(train[at], train[at + edge[SOURCES]]):
        source = place[j] >> 1
        for link in range(table[first + source], table[first + source + 1]):
            acc[base + table[target + link]] += value[j] * table[weight + link]
            touched[table[where + link]] = 1


@compiled
def add_straight(
    acc: Array,
    base: int,
    edge: Array,
    table: Array,
    spikes: tuple[Array, Array, Array],
    at: int,
    touched: Array,
) -> None:
    """Every place into the same place."""
    place, value, train = spikes
    weight = edge[WEIGHT]
    for q in range(edge[SOURCES]):
        a, b = train[at + q], train[at + q + 1]
        if a == b:
            continue
        touched[q] = 1
        if weight < 0:
            for j in range(a, b):
                acc[base + (place[j] >> 1)] += value[j]
        else:
            for j in range(a, b):
                source = place[j] >> 1
                acc[base + source] += value[j] * table[weight + source]
