"""From numbers seen to the unit of a grid."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from spikemorph.passes.levels import LeastSquares, Max, Observer, Percentile

TINY = 1e-12

AT_ONCE = 2**16
"""Numbers worked on at once: whole rows of at most so many, which a cache holds. Changes no unit."""


def choose_unit(
    samples: Tensor, lo: int, hi: int, observer: Observer, wanted: Tensor | None = None
) -> Tensor:
    """Units [rows], float64, of grids lo..hi for samples [rows, n]; 1 / hi for a row of zeros.

    Args:
        samples: numbers to be represented as unit * integer.
        lo, hi: range of the integers, lo <= 0 < hi.
        observer: max, percentile of the non-zero magnitudes, or least squared error.
        wanted: [rows, n], what the squared error is against, None: the samples themselves.
    """
    rows = max(1, AT_ONCE // max(samples.shape[1], 1))
    pairs = zip(samples.split(rows), (samples if wanted is None else wanted).split(rows), strict=True)
    return torch.cat([_units(some, lo, hi, observer, target) for some, target in pairs])


def _units(samples: Tensor, lo: int, hi: int, observer: Observer, target: Tensor) -> Tensor:
    x = samples.double()
    reach = _reach(x, lo, hi)
    largest = reach.amax(1)
    match observer:
        case Max():
            unit = largest
        case Percentile(percent):
            unit = torch.stack([_percentile(row, percent) for row in reach])
        case LeastSquares():
            unit = _least_squares(x.float(), target.float(), (lo, hi), largest.float()).double()
        case _:
            assert_never(observer)
    return torch.where(largest > TINY, unit.clamp(min=TINY), torch.full_like(unit, 1.0 / hi))


def _reach(x: Tensor, lo: int, hi: int) -> Tensor:
    """The unit at which each number would sit on the end of the grid."""
    negative = x.clamp(max=0) / lo if lo < 0 else torch.zeros_like(x)
    return torch.maximum(x.clamp(min=0) / hi, negative)


def _percentile(reach: Tensor, percent: float) -> Tensor:
    live = reach[reach > 0]
    if live.numel() == 0:
        return reach.new_zeros(())
    rank = max(1, round(percent / 100 * live.numel()))
    return live.kthvalue(rank).values


def _least_squares(x: Tensor, target: Tensor, ends: tuple[int, int], largest: Tensor) -> Tensor:
    """The best of the full reach and 60 candidates between 1/30 of it and a little more."""
    best = largest.clone()
    error = torch.full_like(largest, torch.inf)
    for factor in (1.0, *torch.logspace(-1.5, 0.02, 60, dtype=torch.float64).tolist()):
        unit = (largest * factor).clamp(min=TINY).unsqueeze(1)
        grid = (x / unit).round_().clamp_(*ends).mul_(unit)
        now = grid.sub_(target).square_().sum(1)
        best = torch.where(now < error, unit.squeeze(1), best)
        error = torch.minimum(now, error)
    return best
