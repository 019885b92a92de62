"""What a value of the exported program is while it is translated, and how a rule says no."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

Ints = tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class BatchAt:
    """The batch is that axis of torch."""

    axis: int


@final
@dataclass(frozen=True, slots=True)
class Folded:
    """Axis 0 of torch is batch * shape[0]: frames folded into the batch, the batch outermost."""


Layout = BatchAt | Folded

BATCH_FIRST = BatchAt(0)


@final
@dataclass(frozen=True, slots=True)
class Form:
    """The shape of a value without the batch, and where torch has the batch."""

    shape: Ints
    layout: Layout = BATCH_FIRST

    @property
    def batch_axis(self) -> int:
        """The axis of torch that the batch is on, alone or with frames."""
        return self.layout.axis if isinstance(self.layout, BatchAt) else 0

    @property
    def rank(self) -> int:
        """Number of axes in torch."""
        return len(self.shape) + isinstance(self.layout, BatchAt)

    @property
    def ahead(self) -> int:
        """How many numbers there are in front of the batch, in row-major order."""
        return math.prod(self.shape[: self.batch_axis])

    def axis(self, axis: int) -> int | None:
        """An axis of torch, maybe negative, as an axis of a sample; None: the batch is on it."""
        axis %= self.rank
        if axis == self.batch_axis:
            return None
        return axis - 1 if isinstance(self.layout, BatchAt) and axis > self.batch_axis else axis

    def order(self, dims: Sequence[int]) -> Ints:
        """A permutation of torch's axes, folded ones unmoved, as a permutation of a sample's."""
        if isinstance(self.layout, Folded):
            return tuple(dims)
        return tuple(axis for each in dims if (axis := self.axis(each)) is not None)

    def sizes(self, batch: int) -> Ints:
        """The shape in torch."""
        if isinstance(self.layout, Folded):
            return (batch * self.shape[0], *self.shape[1:])
        return (*self.shape[: self.batch_axis], batch, *self.shape[self.batch_axis :])

    def batch_first(self, value: Tensor) -> Tensor:
        """A tensor as torch has it, as [batch, *shape]."""
        if isinstance(self.layout, Folded):
            return value.reshape(-1, *self.shape)
        return value.movedim(self.batch_axis, 0)

    def broadcasts_to(self, other: Form) -> bool:
        """Whether torch, which aligns axes at the end, brings the batch of this onto that of the other."""
        alike = type(self.layout) is type(other.layout)
        return alike and self.rank - self.batch_axis == other.rank - other.batch_axis


@final
@dataclass(frozen=True, slots=True)
class Act:
    """An activation: node `name` of the graph under construction, `shape` without the batch."""

    name: str
    shape: Ints
    layout: Layout = BATCH_FIRST

    @property
    def form(self) -> Form:
        """Its shape, and where torch has the batch."""
        return Form(self.shape, self.layout)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """A tensor that depends on no input.

    It is computed twice, for batches of 2 and of 3: where the two differ it depends on the batch size.

    Args:
        two: its value when the batch is 2.
        three: its value when the batch is 3; the same object where no size went into it.
    """

    two: Tensor
    three: Tensor


@final
@dataclass(frozen=True, slots=True)
class Size:
    """A number computed from tensor sizes, for batches of 2 and of 3."""

    two: int | float
    three: int | float


@final
@dataclass(frozen=True, slots=True)
class Parts:
    """Several results of one operation; None where a result has no form here."""

    items: tuple[Value | None, ...]


@final
@dataclass(frozen=True, slots=True)
class Opaque:
    """The result of a refused operation that cannot be stood in for by an input."""


Value = Act | Const | Size | Parts | Opaque


@final
class Refused(Exception):
    """Raised by a rule: this operation cannot be converted.

    Args:
        got: what was met, after the name of the operation; "" for the operation as such.
        known: what would have been right.
        do: the next thing to try.
    """

    def __init__(self, got: str, known: str, do: str) -> None:
        super().__init__(got)
        self.got, self.known, self.do = got, known, do


@final
class Poisoned(Exception):
    """Raised where an operand is opaque: its own operation was refused already."""
