"""What calibration samples look like: how many differ, and whether anything is to be seen in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

FEW = 8
"""Fewer samples, or fewer that differ, are few."""

LEAST = 1e-4
"""Of the largest magnitude: a smaller difference is none. It is lost within one step of 8 bits, 1/255."""


@final
@dataclass(frozen=True)
class Looks:
    """Samples as far as they were looked at.

    Two samples differ where some number does by more than `LEAST` of the largest magnitude that any sample
    has in that channel or feature. Repeats are held against samples of at least `FEW` numbers alone: fewer,
    such as a one-hot class, can be told apart in few ways.

    A sample is without contrast where each of its channels (all features, of samples without places) is
    constant in that same measure, or is a constant rectangle on more than half of the area in a constant
    frame, as a grey image is that a detector padded. How many values there are is not asked: binary images
    and spikes have two. One sample with contrast is enough.

    Args:
        count: of samples.
        different: the first that differ from one another, at most `FEW`, inputs [1, *shape] of each.
        scales: the largest magnitude in each channel or feature, of each input.
        flat: every sample is without contrast.
    """

    count: int = 0
    different: tuple[tuple[Tensor, ...], ...] = ()
    scales: tuple[Tensor, ...] = ()
    flat: bool = True

    def after(self, inputs: tuple[Tensor, ...]) -> Looks:
        """With more samples, [batch, *shape] of each input."""
        scales = tuple(map(_scale, inputs))
        if self.scales:
            scales = tuple(map(torch.maximum, self.scales, scales))
        different, flat = self.different, self.flat
        for one in zip(*(each.split(1) for each in inputs), strict=True):
            if len(different) < FEW and not any(_alike(one, other, scales) for other in different):
                different = (*different, one)
            flat = flat and all(map(_flat, one, scales))
        return replace(self, count=self.count + len(inputs[0]), different=different, scales=scales, flat=flat)

    @property
    def repeated(self) -> bool:
        """Whether few differ, though there could be many."""
        numbers = sum(each.numel() for each in self.different[0])
        return len(self.different) < (FEW if numbers >= FEW else 2)

    @property
    def flaw(self) -> str | None:
        """What is poor about the samples, None for nothing."""
        if self.flat:
            return f"{self._counted} without contrast: nothing differs from place to place"
        if len(self.different) == 1 < self.count:
            return f"{self._counted}, all alike"
        if self.repeated and len(self.different) < self.count:
            return f"{self._counted}, {len(self.different)} of them different"
        return self._counted if self.count < FEW else None

    @property
    def _counted(self) -> str:
        return f"{self.count} sample{'' if self.count == 1 else 's'}"


def looks_of(parts: Iterable[tuple[Tensor, ...]]) -> Looks:
    """Of batches of inputs, which are looked at until nothing can be poor any more."""
    looks = Looks()
    for inputs in parts:
        looks = looks.after(inputs)
        if looks.flaw is None:
            break
    return looks


def _scale(x: Tensor) -> Tensor:
    """The largest magnitudes [channels or features] of samples [batch, channels or features, ...]."""
    rows = x.reshape(len(x), x.shape[1] if x.dim() > 1 else 1, -1)
    return torch.maximum(rows.amax((0, 2)), -rows.amin((0, 2)))


def _alike(one: tuple[Tensor, ...], other: tuple[Tensor, ...], scales: tuple[Tensor, ...]) -> bool:
    return all(
        bool(((a - b).abs() <= LEAST * scale.reshape(-1, *(1,) * (a.dim() - 2))).all())
        for a, b, scale in zip(one, other, scales, strict=True)
    )


def _flat(x: Tensor, scale: Tensor) -> bool:
    """Whether a sample [1, channels, ...] or [1, features] is without contrast."""
    planes, least = (x[0], LEAST * scale) if x.dim() > 2 else (x.reshape(1, -1), LEAST * scale.amax(0, True))
    if planes[0].numel() == 1:
        return False
    rows = planes.flatten(1)
    uneven = (rows.amax(1) - rows.amin(1) > least).nonzero().flatten().tolist()
    return all(_framed(planes[i], float(least[i])) for i in uneven)


def _framed(plane: Tensor, least: float) -> bool:
    """Whether a plane is a constant rectangle, larger than the constant frame that has its last corner."""
    if plane.dim() < 2:
        return False
    inside = ((plane - plane.flatten()[-1]).abs() > least).nonzero()
    if len(inside) == 0:
        return True
    box = plane[tuple(slice(lo, hi + 1) for lo, hi in zip(*_ends(inside), strict=True))]
    return box.numel() > plane.numel() / 2 and bool(box.max() - box.min() <= least)


def _ends(places: Tensor) -> tuple[list[int], list[int]]:
    return places.amin(0).tolist(), places.amax(0).tolist()
