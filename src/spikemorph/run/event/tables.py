"""Flat arrays that describe programs to the kernels, and the columns of their tables.

One set of array types serves every network: a changed graph compiles nothing.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LAYOUT = 1
"""Goes up whenever a number of a state may lie elsewhere than before: saved states are good for one."""


class S(IntEnum):
    """Columns of the stage table."""

    KIND = 0
    POSITIONS = 1
    PADDED = 2
    CHANNELS = 3
    WIDE = 4
    SUMS = 5
    """Where its accumulators start in the state; `SUM_SIZE` numbers."""
    SUM_SIZE = 6
    COUNTS = 7
    """Where its counts start in the state."""
    SUM_POSITIONS = 8
    SUM_PADDED = 9
    EDGE = 10
    EDGE_END = 11
    LARGEST = 12
    LO = 13
    BREAKS = 14
    """Where its breakpoints start: among lanes for NEURON, among integers else."""
    BREAK_COUNT = 15
    VALUES = 16
    GROUP = 17
    WINDOWS = 18
    TAPS = 19
    BACK = 20
    """Inverse windows: of each position of sums, which positions read it."""
    BACK_ITEMS = 21
    HITS = 22
    """Where its events are counted by place, -1: not."""
    BOOK = 23
    """Which emitter it is in the books, -1: none."""
    TARGET = 24
    """Where its targets start in the inputs of a sample."""
    TRAIN = 25
    """Positions + 1 of the stages before: where its trains start, times the most steps."""
    HOLD = 26
    """Where its held counts start, -1: none."""
    SNAP = 27
    """Where a readout's sums go in a record of steps."""
    POOL = 28
    """The stage that alone reads this one and runs with it, -1: none."""
    JOINED = 29
    """1: runs with the stage that it reads, whose counts are its sums."""
    HI = 30
    LEAST = 31
    """The most negative spike of an integrate-and-fire neuron."""
    PLACES = 32
    """0: its thresholds are by channel, 1: by place."""
    STEADY = 33
    """1: in a rate network it sends the same at every step, and so it runs once."""
    LINE = 34
    """Where slopes and offsets of its breakpoints start in the table, -1: they are no line."""


class E(IntEnum):
    """Columns of the edge table."""

    KIND = 0
    SOURCE = 1
    OUTS = 2
    RUN_ITEMS = 3
    """Runs: rows between the first place and its weights, first position, position behind the last."""
    RUNS = 4
    """Of each out position, where its runs start: source positions whose rows follow each other."""
    PLACE = 5
    WHERE = 6
    ROWS = 7
    WIDTH = 8
    CODE = 9
    """Which array of weights: 0 int8, 1 int16, 2 int32."""
    STARTS = 10
    SOURCES = 11
    SOURCE_PADDED = 12
    BACK = 13
    BACK_ITEMS = 14
    FIRST = 15
    TARGET = 16
    WEIGHT = 17
    """-1: all are 1."""
    ZERO = 18
    """Where a row of zeros lies."""
    SMALL = 19
    """1: as many weights as are added in one go add up within a byte."""


class Packed(NamedTuple):
    """A program in flat arrays."""

    stages: Array
    edges: Array
    table: Array
    """int32: places, links, windows, values."""
    weights8: Array
    weights16: Array
    weights32: Array
    lanes16: Array
    """Breakpoints by lane for narrow sums."""
    lanes32: Array
    start16: Array
    """State at rest."""
    start32: Array
    collected: Array
    """int32 [2, n]: which state, and where in it, what a caller wants to see at the end."""
    sizes: Array
    """int64: see `Sizes`."""


class Sizes(IntEnum):
    """Entries of `Packed.sizes`."""

    TRAIN = 0
    """Positions + 1 of all stages together."""
    POSITIONS = 1
    """Most positions of one stage, of what it sends or sums."""
    BOOKS = 2
    HITS = 3
    TARGETS = 4
    HOLDS = 5
    SNAP = 6
    STAGES = 7
    REACH = 8
    """Most numbers that reach one position."""
    SUMS = 9
    """Most sums of one stage."""


class Space(NamedTuple):
    """Memory of one worker, used for one sample after the other."""

    place: Array
    """int32: twice the place of a spike in the layout of its stage, plus 1 for negative ones."""
    value: Array
    """int32: their sizes."""
    train: Array
    """int64: where the spikes of each stage, step and position start."""
    length: Array
    """int64 [stages]: steps that a stage ran."""
    mark: Array
    touched: Array
    pending: Array
    pooled: Array
    """uint8 by position; the last is `pending` of a pool that runs with what it reads."""
    sent: Array
    """int32 [32]."""
    listed: Array
    """int32: where the rows of weights of all spikes that reach a position start."""
    snap: Array
    """int32: sums of readouts after every step."""
    pace: Array
    """int64 [steps]: spikes of all emitters in every step."""
    drive: Array
    """int32: what enters a stage at every step."""
    entered: Array
    """int32: what has entered of the targets of inputs."""
    hits: Array
    """int32: events by place."""
    totals: Array
    """int64: see `T`."""


class T(IntEnum):
    """Entries of `Space.totals`: running numbers of the sample at hand."""

    TOP = 0
    """Where the next spike goes."""
    SIZE = 1
    EVENTS = 2
    PENDING = 3
    """Whether anything of the stage was pending after the step."""
    LAST_SPIKE = 4
    """1 + the last step with a spike of any emitter."""
    LAST_PENDING = 5
    """1 + the last step after which anything was pending."""
    UNSETTLED = 6
    POOLED = 7
    """Events of stages that run with the one they read."""
    END = 8


class How(NamedTuple):
    """What is asked of a run."""

    steps: int
    """0: until quiescent."""
    fresh: int
    """1: start from rest."""
    everything: int
    """1: all neurons are looked at, not only those that something reaches."""
    snap: int
    hold: int
    most: int
    """Steps that a train has room for."""
    work: int
    """1: events are counted place by place."""
    drive: int = 0
    """1: inputs and biases enter at every step."""
    ramp: int = 1
    """Steps over which they enter evenly."""
    offset: int = 0
    """Steps that were run before."""


DONE, MORE_SPIKES, MORE_STEPS = 0, 1, 2
"""How a sample ended: well, or for lack of room."""


LINE = 64
"""Bytes of a cache line: vectors that cross one are slow."""


def zeros(size: int, dtype: type) -> Array:
    """An array that starts at a cache line."""
    width = np.dtype(dtype).itemsize
    room: Array = np.zeros(size + LINE // width, dtype=dtype)
    first = -room.ctypes.data % LINE // width
    return room[first : first + size]


def flat(parts: list[Array], dtype: type, spare: int = 64) -> Array:
    """Arrays one behind the other, with room behind them for a whole vector."""
    joined = zeros(sum(each.size for each in parts) + spare, dtype)
    start = 0
    for each in parts:
        joined[start : start + each.size] = each.reshape(-1)
        start += each.size
    return joined
