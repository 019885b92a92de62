"""Breakpoints as a line: the same counts for every sum, or no line."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spikemorph.run.event.layout import Ints
from spikemorph.run.event.lines import line_through


def counted(breakpoints: Ints, bound: int) -> Ints:
    """How many breakpoints are not above each sum from -bound to bound."""
    sums = np.arange(-bound, bound + 1)
    return np.stack([np.searchsorted(row, sums, side="right") for row in breakpoints])


def on_line(line: np.ndarray, n: int, bound: int) -> Ints:
    sums = np.arange(-bound, bound + 1)
    value = np.floor(line[0][:, None] * sums + line[1][:, None])
    found: Ints = np.clip(value, 0, n).astype(np.int64)
    return found


def even(rng: np.random.Generator, rows: int, n: int, bound: int) -> Ints:
    """What quantisers of other units, offsets and signs of rest make, cut off as the engine does."""
    unit = 10 ** rng.uniform(-0.5, 2.5, (rows, 1))
    offset = rng.uniform(-1.5 * bound, 1.5 * bound, (rows, 1))
    first = np.ceil((np.arange(1, n + 1) - n * rng.random() - 0.5) * unit + offset)
    found: Ints = first.astype(np.int64).clip(-bound - 1, bound + 1)
    return found


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 255), bound=st.integers(1, 3000))
@settings(max_examples=150)
def test_a_line_counts_as_its_breakpoints_do(seed: int, n: int, bound: int) -> None:
    breakpoints = even(np.random.default_rng(seed), 4, n, bound)
    line = line_through(breakpoints, bound)
    if line is not None:
        assert np.array_equal(on_line(line, n, bound), counted(breakpoints, bound))


def test_breakpoints_of_quantisers_are_on_lines() -> None:
    rng = np.random.default_rng(0)
    for n in (15, 63, 126, 255):
        unit, offset = 10 ** rng.uniform(0.5, 3, (300, 1)), rng.uniform(-3000, 3000, (300, 1))
        breakpoints = np.ceil((np.arange(1, n + 1) - 0.5) * unit + offset).astype(np.int64)
        bound = int(np.abs(breakpoints).max()) + 5
        line = line_through(breakpoints.clip(-bound - 1, bound + 1), bound)
        assert line is not None
        some = line[:, ::60]
        assert np.array_equal(on_line(some, n, bound), counted(breakpoints[::60], bound))


def test_uneven_breakpoints_have_no_line() -> None:
    uneven = np.array([[0, 10, 20, 31, 40, 50, 60, 70, 81, 90]])
    assert line_through(np.arange(0, 100, 10)[None], 200) is not None
    assert line_through(uneven + np.array([0, 0, 0, 5, 0, 0, 0, 0, 0, 0]), 200) is None
    assert line_through(np.concatenate([np.arange(0, 100, 10)[None], uneven * uneven]), 10000) is None


def test_breakpoints_out_of_reach_are_a_flat_line() -> None:
    never = np.array([[-101] * 5 + [101] * 5])
    line = line_through(never, 100)
    assert line is not None
    assert set(on_line(line, 10, 100).reshape(-1)) == {5}
    assert line_through(np.zeros((0, 3), dtype=np.int64), 5) is None
    assert line_through(np.zeros((2, 0), dtype=np.int64), 5) is None
