"""Whole sequences in one call: every sample through all cells, settled counts kept in one vector."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from spikemorph.run.event.compiled import compiled, entry
from spikemorph.run.event.play import LAST_PENDING, LAST_SPIKE, UNSETTLED, count_hits, play
from spikemorph.run.event.tables import DONE, Array, How, Packed, Space


class C(IntEnum):
    """Columns of the table of cells."""

    STAGE = 0
    STAGE_END = 1
    GOES_ON = 2
    """1: the state of the cell before may stay."""
    SAME = 3
    """1: and it is the very same program."""
    TAKE = 4
    TAKE_END = 5
    """Which targets come from where in memory."""
    KEEP = 6
    KEEP_END = 7
    """Which numbers of the state go where in memory."""
    NARROW = 8
    NARROW_END = 9
    WIDE = 10
    WIDE_END = 11
    """Its part of the state."""


class Tape(NamedTuple):
    """All cells of a network, one behind the other.

    Args:
        cells: int64 [cells, columns].
        take: int32 [3, n], stretches: first place in memory (-1: zeros), first among targets, how many.
        keep: int32 [4, n], stretches: first place in the state, first in memory, how many, which state.
    """

    cells: Array
    take: Array
    keep: Array


STAGE, STAGE_END, GOES_ON, SAME = int(C.STAGE), int(C.STAGE_END), int(C.GOES_ON), int(C.SAME)
TAKE, TAKE_END, KEEP, KEEP_END = int(C.TAKE), int(C.TAKE_END), int(C.KEEP), int(C.KEEP_END)
NARROW, NARROW_END, WIDE, WIDE_END = int(C.NARROW), int(C.NARROW_END), int(C.WIDE), int(C.WIDE_END)


@compiled
def carry(state: Array, start: Array, before: int, first: int, last: int) -> None:
    """The state of another program over the same sums: the biases change, what arrived stays."""
    for i in range(last - first):
        state[first + i] = state[before + i] - start[before + i] + start[first + i]


@compiled
def enter(tape: Tape, cell: Array, memory: Array, targets: Array) -> None:
    """What the inputs of a cell stand for."""
    for i in range(cell[TAKE], cell[TAKE_END]):
        at, to, count = tape.take[0, i], tape.take[1, i], tape.take[2, i]
        if at < 0:
            for j in range(count):
                targets[to + j] = 0
        else:
            for j in range(count):
                targets[to + j] = memory[at + j]


@compiled
def leave(tape: Tape, cell: Array, state: tuple[Array, Array], memory: Array) -> None:
    """What a cell leaves behind."""
    for i in range(cell[KEEP], cell[KEEP_END]):
        at, to, count = tape.keep[0, i], tape.keep[1, i], tape.keep[2, i]
        if tape.keep[3, i] == 1:
            for j in range(count):
                memory[to + j] = state[1][at + j]
        else:
            for j in range(count):
                memory[to + j] = state[0][at + j]


@compiled
def of_cell(how: How, goes_on: bool, same: bool) -> How:
    """What is asked of one cell: it starts from rest, or goes on in the very same program, or in another."""
    everything = 1 if how.everything == 1 or not goes_on or not same else 0
    fresh, ramp = (0, 1) if goes_on else (1, how.ramp)
    return How(how.steps, fresh, everything, 0, 0, how.most, how.work, 0, ramp, 0)


@entry
def play_tape(
    packed: Packed,
    tape: Tape,
    work: tuple[Array, Array, Array, Array],
    memory: Array,
    space: Space,
    how: How,
    held: tuple[Array, Array],
    books: tuple[Array, Array],
    at: int,
) -> tuple[int, int]:
    """Samples from `at` on; the one that found no room, and why (or the end, and that all is well).

    A sample that found no room has left nothing behind.

    Args:
        work: narrow and wide state, targets, and the books of a cell in the making.
        memory: int32 [samples, numbers]: inputs, settled counts and readouts.
        how: `everything` is 1 where all neurons are looked at even if nothing reaches them; `fresh` is 1
            where no state stays.
        books: int64 [samples, books, 2]; int64 [samples, cells, 3]: last step with a spike, steps run,
            whether unsettled.
    """
    state, targets, making = (work[0], work[1]), work[2], work[3]
    counted, marks = books
    cells = len(tape.cells)
    before = space.hits[: len(space.hits) if cells > 1 and how.work == 1 else 0].copy()
    for sample in range(at, len(memory)):
        before[:] = space.hits[: len(before)]
        for number in range(cells):
            cell = tape.cells[number]
            goes_on = how.fresh == 0 and cell[GOES_ON] == 1
            if goes_on and cell[SAME] == 0:
                last = tape.cells[number - 1]
                carry(state[0], packed.start16, last[NARROW], cell[NARROW], cell[NARROW_END])
                carry(state[1], packed.start32, last[WIDE], cell[WIDE], cell[WIDE_END])
            enter(tape, cell, memory[sample], targets)
            making[:] = 0
            stages = (cell[STAGE], cell[STAGE_END])
            own = of_cell(how, goes_on, cell[SAME] == 1)
            ended = play(packed, state, targets, space, own, held, making, stages)
            if ended != DONE:
                counted[sample] = 0
                space.hits[: len(before)] = before
                return sample, ended
            counted[sample] += making
            if how.work == 1:
                count_hits(packed, space, how.most, stages, 1)
            totals = space.totals
            marks[sample, number, 0] = totals[LAST_SPIKE]
            marks[sample, number, 1] = how.steps if how.steps > 0 else totals[LAST_PENDING] + 1
            marks[sample, number, 2] = totals[UNSETTLED]
            leave(tape, cell, state, memory[sample])
    return len(memory), DONE
