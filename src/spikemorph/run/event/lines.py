"""Breakpoints at even distances as a line: a count is the floor of slope * sum + offset, cut to its range.

One product replaces a comparison with every breakpoint. A line is used only where it is proven: the value at
every breakpoint and at the sum below it is on its side by more than rounding can move it, and what is
computed rises with the sum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spikemorph.run.event.layout import Ints

Floats = NDArray[np.float64]
FEW = 8
"""So many breakpoints are compared as quickly."""
GOLDEN = (5**0.5 - 1) / 2
ROUNDS = 60
ROUNDING = 2.0**-50
"""Of a product and a sum in float64, fused or not, relative to the numbers in them; four times the bound."""


def line_through(breakpoints: Ints, bound: int) -> Floats | None:
    """Slope and offset for every row, or None where some row has no line.

    Args:
        breakpoints: [rows, n], rising.
        bound: of the sums, |sum| <= bound.

    Returns:
        [2, rows]: the number of breakpoints <= sum is clip(floor(slope * sum + offset), 0, n).
    """
    rows, n = breakpoints.shape
    if rows == 0 or n == 0:
        return None
    level = np.arange(1, n + 1, dtype=np.float64)
    inside = (breakpoints > -bound) & (breakpoints <= bound)
    at = np.clip(breakpoints, -bound, bound).astype(np.float64)
    below = np.clip(breakpoints - 1, -bound, bound).astype(np.float64)
    floors = np.where(inside | (breakpoints <= -bound), level, -np.inf)
    ceilings = np.where(inside | (breakpoints > bound), level, np.inf)

    def room(slope: Floats) -> tuple[Floats, Floats]:
        """The offsets that are possible: from, to."""
        steep = slope[:, None]
        return (floors - steep * at).max(1), (ceilings - steep * below).min(1)

    slope = _steepest_room(room, *_slopes(at, inside))
    least, most = room(slope)
    least, most = np.maximum(least, -n - 1.0 - slope * bound), np.minimum(most, n + 1.0 + slope * bound)
    offset = (least + most) / 2
    error = ROUNDING * (slope * bound + np.abs(offset) + n)
    return np.stack([slope, offset]) if bool((most - least > 2 * error).all()) else None


def _slopes(at: Floats, inside: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Between which slopes every line lies that passes between the breakpoints inside."""
    many = inside.sum(1)
    first, last = inside.argmax(1), inside.shape[1] - 1 - inside[:, ::-1].argmax(1)
    row = np.arange(len(at))
    apart = np.where(many > 1, at[row, last] - at[row, first], 0.0)
    low = np.where(many > 2, (many - 2) / (apart + 1), 0.0)
    high = np.where(many > 1, many / np.maximum(apart - 1, 0.5), np.where(many > 0, 1.0, 0.0))
    return low, high


def _steepest_room(room: object, low: Floats, high: Floats) -> Floats:
    """The slopes that leave most room for offsets, by golden section: the room is concave in the slope."""
    assert callable(room)

    def width(slope: Floats) -> Floats:
        least, most = room(slope)
        found: Floats = most - least
        return found

    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = width(left), width(right)
    for _ in range(ROUNDS):
        better = at_left >= at_right
        low, high = np.where(better, low, left), np.where(better, right, high)
        moved = np.where(better, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        found = width(moved)
        left, right, at_left, at_right = (
            np.where(better, moved, right),
            np.where(better, left, moved),
            np.where(better, found, at_right),
            np.where(better, at_left, found),
        )
    return np.where(at_left >= at_right, left, right)
