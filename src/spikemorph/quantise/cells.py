"""The grid of one value, and what a neuron reads of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.passes import patterns

LARGEST_BIAS = 2**29


class _RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x + 0.5).floor_()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def round_through(x: Tensor) -> Tensor:
    """floor(x + 1/2) whose gradient is 1 (Esser et al., LSQ, ICLR 2020)."""
    return _RoundThrough.apply(x)  # type: ignore[no-any-return]


@final
@dataclass(frozen=True)
class Cell:
    """The grid of one value.

    Args:
        unit: float64, broadcasts against the value's shape; of the result's integers.
        offset: float64 constant that comes on top, None for none.
        integers: of the op itself: "weight", or "factor0", "factor1" ... of a sum.
        source: for quantisers and outputs, the accumulator in front.
    """

    unit: Tensor
    offset: Tensor | None = None
    integers: Mapping[str, Tensor] = field(default_factory=dict)
    source: Accumulator | None = None


@final
@dataclass(frozen=True)
class Accumulator:
    """What a neuron reads: value = unit * (integer + bias) + rest.

    `bias` holds integers or is None; `rest` is what is left of the offset below the grid, None for nothing.
    """

    unit: Tensor
    bias: Tensor | None
    rest: Tensor | None


def accumulator(cell: Cell) -> Accumulator:
    """The value split for a neuron or readout: integers with a bias on their grid, and the rest."""
    if cell.offset is None:
        return Accumulator(cell.unit, None, None)
    usable = cell.unit != 0
    ratio = cell.offset / torch.where(usable, cell.unit, torch.ones_like(cell.unit))
    usable = usable & (ratio.detach().abs() < LARGEST_BIAS)
    bias = torch.where(usable, round_through(ratio), torch.zeros_like(ratio))
    rest = cell.offset - cell.unit * bias
    wide = [axis for axis, n in enumerate(patterns.lifted(tuple(cell.unit.shape), rest.dim())) if n == 1]
    wide = [axis for axis in wide if rest.shape[axis] > 1]
    return Accumulator(cell.unit, bias, rest.mean(wide, keepdim=True) if wide else rest)
