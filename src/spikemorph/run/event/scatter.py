"""Kernels that add the spikes of one step of a stage into the sums of another."""

from __future__ import annotations

from spikemorph.run.event.compiled import compiled
from spikemorph.run.event.tables import Array, E
from spikemorph.run.event.vector import add_rows32, add_rows64

# numba takes enum members as constants, but not quickly through attributes in hot loops: names are copied.
OUTS, TAPS, NEAR, PLACE, WHERE = int(E.OUTS), int(E.TAPS), int(E.NEAR), int(E.PLACE), int(E.WHERE)
ROWS, WIDTH, STARTS = int(E.ROWS), int(E.WIDTH), int(E.STARTS)
SOURCES, SOURCE_PADDED = int(E.SOURCES), int(E.SOURCE_PADDED)
BACK, BACK_ITEMS = int(E.BACK), int(E.BACK_ITEMS)
FIRST, TARGET, WEIGHT = int(E.FIRST), int(E.TARGET), int(E.WEIGHT)
MANY = 3
"""With spikes at one position in so many, all targets are looked at."""


@compiled
def mark_reached(edge: Array, table: Array, train: Array, at: int, mark: Array) -> int:
    """Mark the positions that any spike reaches: 0 for none, 1 for those marked, 2 for all."""
    sources = edge[SOURCES]
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
    """Rows of weights: position by position, tap by tap, all spikes of a source position at once."""
    channel, value, train = spikes
    reach = mark_reached(edge, table, train, at, mark)
    if reach == 0:
        return
    taps, near, width, padded = edge[TAPS], edge[NEAR], edge[WIDTH], edge[SOURCE_PADDED]
    for p in range(edge[OUTS]):
        if reach == 1 and mark[p] == 0:
            continue
        mark[p] = 0
        own = base + table[edge[PLACE] + p]
        hit = False
        for k in range(taps):
            q = table[near + p * taps + k]
            if q < 0 or train[at + q] == train[at + q + 1]:
                continue
            hit = True
            first = edge[ROWS] + k * padded * width
            a, b, lane = train[at + q], train[at + q + 1], 0
            while lane + 64 <= width:
                add_rows64(acc, own + lane, weights, first + lane, width, channel, value, a, b)
                lane += 64
            if lane < width:
                add_rows32(acc, own + lane, weights, first + lane, width, channel, value, a, b)
        if hit:
            touched[table[edge[WHERE] + p]] = 1


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
    channel, value, train = spikes
    reach = mark_reached(edge, table, train, at, mark)
    if reach == 0:
        return
    taps, near, width, padded = edge[TAPS], edge[NEAR], edge[WIDTH], edge[SOURCE_PADDED]
    for p in range(edge[OUTS]):
        if reach == 1 and mark[p] == 0:
            continue
        mark[p] = 0
        own = base + table[edge[PLACE] + p]
        for k in range(taps):
            q = table[near + p * taps + k]
            if q < 0:
                continue
            for j in range(train[at + q], train[at + q + 1]):
                row = edge[ROWS] + (k * padded + channel[j]) * width
                start = own + table[edge[STARTS] + channel[j]]
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
    channel, value, train = spikes
    first, target, weight, where = edge[FIRST], edge[TARGET], edge[WEIGHT], edge[WHERE]
    for q in range(edge[SOURCES]):
        for j in range(train[at + q], train[at + q + 1]):
            place = first + q * edge[SOURCE_PADDED] + channel[j]
            for link in range(table[place], table[place + 1]):
                acc[base + table[target + link]] += value[j] * table[weight + link]
                touched[table[where + link]] = 1
