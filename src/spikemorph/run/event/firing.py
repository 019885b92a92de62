"""Kernels of rate networks: integrate-and-fire neurons, and what enters at every step."""

from __future__ import annotations

from spikemorph.run.event.compiled import compiled
from spikemorph.run.event.emit import FIRED, LANES, close
from spikemorph.run.event.tables import Array, S, Space, T
from spikemorph.run.event.vector import HALF, append, fire_block

POSITIONS, PADDED, SUMS, SUM_SIZE = int(S.POSITIONS), int(S.PADDED), int(S.SUMS), int(S.SUM_SIZE)
COUNTS, BREAKS, PLACES = int(S.COUNTS), int(S.BREAKS), int(S.PLACES)
LO, HI, LEAST, LARGEST = int(S.LO), int(S.HI), int(S.LEAST), int(S.LARGEST)
TOP = int(T.TOP)


@compiled
def emit_firing(acc: Array, stage: Array, lanes: Array, space: Space, train: int) -> bool:
    """Integrate-and-fire neurons, 32 at once; False: no room. All are looked at: a bias moves them all."""
    padded, sums, counts, positions = stage[PADDED], stage[SUMS], stage[COUNTS], stage[POSITIONS]
    breaks, places = stage[BREAKS], stage[PLACES]
    width = positions * padded if places == 1 else padded
    ends, sizes = (stage[LO], stage[HI]), (stage[LEAST], stage[LARGEST])
    place, value, starts, sent = space.place, space.value, space.train, space.sent
    first_spike = top = space.totals[TOP]
    room = len(place) - padded - HALF
    for p in range(positions):
        starts[train + p] = top
        if top > room:
            return False
        first = breaks + (p * padded if places == 1 else 0)
        for lane in range(0, padded, LANES):
            own = p * padded + lane
            fired = fire_block(acc, sums + own, counts + own, lanes, first + lane, width, ends, sizes, sent)
            if fired & FIRED != 0:
                top = append(place, value, top, own, sent, fired & FIRED)
    starts[train + positions] = top
    size = top - first_spike
    if stage[LARGEST] != 1:
        size = 0
        for j in range(first_spike, top):
            size += abs(value[j])
    close(space.totals, top, size, top - first_spike, False)
    return True


@compiled
def enter_again(acc: Array, first: int, count: int, drive: Array) -> None:
    """What enters at every step."""
    for i in range(count):
        acc[first + i] += drive[i]


@compiled
def begin_drive(acc: Array, start: Array, first: int, count: int, drive: Array, fresh: bool) -> None:
    """Before what is steady arrives: a state that goes on takes the bias again; from rest it has it."""
    for i in range(count):
        if fresh:
            drive[i] = 0
        else:
            drive[i] = -acc[first + i]
            acc[first + i] += start[first + i]


@compiled
def end_drive(acc: Array, first: int, count: int, drive: Array) -> None:
    """Afterwards: all that came in is what enters at every step."""
    for i in range(count):
        drive[i] += acc[first + i]


@compiled
def part(whole: int, steps: int, ramp: int) -> int:
    """What of a whole number has entered after so many steps of a ramp: round(whole * steps / ramp)."""
    return whole if steps >= ramp else (2 * whole * steps + ramp) // (2 * ramp)


@compiled
def climb(acc: Array, start: Array, first: int, count: int, step: int, ramp: int) -> None:
    """What of the biases enters in one step of a ramp; at its beginning they are all there already."""
    for i in range(first, first + count):
        bias = int(start[i])
        before = bias if step == 0 else part(bias, step, ramp)
        acc[i] += part(bias, step + 1, ramp) - before


@compiled
def enter_part(targets: Array, entered: Array, first: int, count: int, step: int, ramp: int) -> None:
    """What of an input has entered after one more step of a ramp."""
    for i in range(first, first + count):
        entered[i] = part(int(targets[i]), step + 1, ramp)
