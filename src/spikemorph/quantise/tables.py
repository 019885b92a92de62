"""Step functions: from a chain of elementwise functions to sorted integer breakpoints.

For every group (channel) the function a -> clip(round(chain(unit * a + rest) / step), lo, hi) over all of
int32 is found by bisection between the turning points of the chain, where it is monotone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from spikemorph.evaluate.functions import apply, turning_points
from spikemorph.ir.ops import Affine, Quantiser

FAR = 2**31 - 1
"""No accumulator gets here: a breakpoint at FAR is never reached, one at -FAR always."""


@final
@dataclass(frozen=True)
class StepTable:
    """See `ir.ops.Neuron`: int64 breakpoints [*group, n] and values [*group, n + 1] or None."""

    breakpoints: Tensor
    values: Tensor | None


@final
@dataclass(frozen=True)
class Curve:
    """chain(unit * a + rest) of integers a, float64, group axes in front and one axis of points last."""

    op: Quantiser
    unit: Tensor
    rest: Tensor
    step: Tensor
    tensors: Mapping[str, Tensor]

    def partial(self, a: Tensor, links: int) -> Tensor:
        """The value after the first `links` links of the chain, a [*group, points]."""
        x = self.unit.unsqueeze(-1) * a + self.rest.unsqueeze(-1)
        for link in self.op.chain[:links]:
            if isinstance(link, Affine):
                x = x if link.gain is None else x * self.tensors[link.gain].double().unsqueeze(-1)
                x = x if link.offset is None else x + self.tensors[link.offset].double().unsqueeze(-1)
            else:
                x = apply(link, x)
        return x

    def count(self, a: Tensor) -> Tensor:
        """The count, as float64 integers."""
        value = self.partial(a, len(self.op.chain)) / self.step.unsqueeze(-1)
        return (value + 0.5).floor().clamp(self.op.lo, self.op.hi)


def step_table(
    op: Quantiser, unit: Tensor, rest: Tensor | None, step: Tensor, tensors: Mapping[str, Tensor]
) -> StepTable:
    """The table of one quantiser.

    Args:
        op: chain and range.
        unit: of the accumulator; `rest` is what its integer bias left over (both broadcast to the group).
        step: the unit of the count.
        tensors: gains and offsets inside the chain.
    """
    rest = torch.zeros((), dtype=torch.float64) if rest is None else rest
    inner = [
        tensors[name]
        for link in op.chain
        if isinstance(link, Affine)
        for name in (link.gain, link.offset)
        if name is not None
    ]
    group = torch.broadcast_shapes(*(each.shape for each in (unit, rest, step, *inner)))
    curve = Curve(
        op, unit.double().expand(group), rest.double().expand(group), step.double().expand(group), tensors
    )
    starts = _segments(curve, group)
    if starts.shape[-1] == 1:
        first, last = curve.count(-_far(group)), curve.count(_far(group))
        if bool((last >= first).all()):
            return StepTable(_rising(curve, group), None)
    return _any_shape(curve, starts)


def _far(group: torch.Size) -> Tensor:
    return torch.full((*group, 1), float(FAR), dtype=torch.float64)


def _rising(curve: Curve, group: torch.Size) -> Tensor:
    """For each k in lo+1..hi the smallest a with count >= k; FAR for none, -FAR for all."""
    k = torch.arange(curve.op.lo + 1, curve.op.hi + 1, dtype=torch.float64).expand(*group, -1)
    lo, hi = (-_far(group)).expand_as(k), _far(group).expand_as(k)
    return _first(lambda a: curve.count(a) >= k, lo, hi).to(torch.int64)


def _first(holds: Callable[[Tensor], Tensor], lo: Tensor, hi: Tensor) -> Tensor:
    """Smallest integer in [lo, hi] where `holds`, else hi; `holds` switches on at most once."""
    lo, hi = lo.clone(), hi.clone()
    while bool((lo < hi).any()):
        middle = ((lo + hi) / 2).floor()
        found = holds(middle)
        hi = torch.where(found & (lo < hi), middle, hi)
        lo = torch.where(~found & (lo < hi), middle + 1, lo)
    return lo


def _segments(curve: Curve, group: torch.Size) -> Tensor:
    """First integers [*group, n] of stretches on which the whole chain is monotone; the first is -FAR."""
    starts = -_far(group)
    for index, link in enumerate(curve.op.chain):
        points = () if isinstance(link, Affine) else turning_points(link)
        for point in points:
            ends = torch.cat([starts[..., 1:], _far(group)], -1)
            rising = curve.partial((ends - 1).maximum(starts), index) >= curve.partial(starts, index)

            def passed(
                a: Tensor, index: int = index, point: float = point, rising: Tensor = rising
            ) -> Tensor:
                value = curve.partial(a, index)
                return torch.where(rising, value >= point, value <= point)

            crossings = _first(passed, starts, ends)
            starts = torch.cat([starts, crossings], -1).sort(-1).values
    return starts


def _any_shape(curve: Curve, starts: Tensor) -> StepTable:
    """Breakpoints and values of a function that may fall as well as rise."""
    ends = torch.cat([starts[..., 1:], torch.full_like(starts[..., :1], float(FAR))], -1)
    levels = torch.arange(curve.op.lo, curve.op.hi + 1, dtype=torch.float64)
    candidates = [starts]
    for segment in range(starts.shape[-1]):
        lo = starts[..., segment : segment + 1].expand(*starts.shape[:-1], len(levels))
        hi = ends[..., segment : segment + 1].expand_as(lo)
        rising = curve.count((hi - 1).maximum(lo)) >= curve.count(lo)

        def passed(a: Tensor, rising: Tensor = rising) -> Tensor:
            count = curve.count(a)
            return torch.where(rising, count >= levels, count <= levels)

        candidates.append(_first(passed, lo, hi))
    positions = torch.cat(candidates, -1).sort(-1).values
    return _compact(positions, curve.count(positions))


def _compact(positions: Tensor, counts: Tensor) -> StepTable:
    """Only the positions where the count changes, the same number for every group."""
    changes = torch.zeros_like(counts, dtype=torch.bool)
    changes[..., 1:] = (counts[..., 1:] != counts[..., :-1]) & (positions[..., 1:] < FAR)
    n = max(int(changes.sum(-1).max()), 1)
    order = torch.argsort((~changes).to(torch.int8), dim=-1, stable=True)[..., :n]
    kept = changes.gather(-1, order)
    far = torch.full((), float(FAR), dtype=torch.float64)
    breakpoints = torch.where(kept, positions.gather(-1, order), far)
    values = torch.where(kept, counts.gather(-1, order), counts.new_tensor(torch.nan))
    values = torch.cat([counts[..., :1], values], -1)
    for i in range(1, n + 1):
        values[..., i] = torch.where(values[..., i].isnan(), values[..., i - 1], values[..., i])
    return StepTable(breakpoints.to(torch.int64), values.to(torch.int64))
