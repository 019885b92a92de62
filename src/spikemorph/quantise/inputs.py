"""The grid of the input: exact where the data already lies on one."""

from __future__ import annotations

from torch import Tensor

PIXEL = 1.0 / 255.0


def input_grid(samples: Tensor, bits: int) -> tuple[float, int, int]:
    """(unit, lo, hi) for the input samples seen.

    Whole numbers keep unit 1 and 8-bit images in 0..1 keep 1/255, where `bits` can hold them; anything else
    gets the symmetric grid that reaches the largest magnitude (one-sided where nothing is negative).
    """
    x = samples.double().flatten()
    signed = bool((x < 0).any())
    hi = 2 ** (bits - 1) - 1 if signed and bits > 1 else 2**bits - 1
    lo = -hi if signed else 0
    largest = float(x.abs().max())
    for unit in (1.0, PIXEL):
        grid = (x / unit).round()
        if (
            largest > unit / 2
            and bool(((x / unit - grid).abs() < 1e-4).all())
            and float(grid.abs().max()) <= hi
        ):
            return unit, lo, hi
    return (largest / hi if largest > 0 else 1.0), lo, hi
