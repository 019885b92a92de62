"""What a value of the exported program is while it is translated, and how a rule says no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

Ints = tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class Act:
    """An activation: node `name` of the graph under construction, `shape` without the batch."""

    name: str
    shape: Ints


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
