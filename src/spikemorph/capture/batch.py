"""Which sizes of an exported program are the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.capture.values import BatchAt, Folded, Form, Size


@final
@dataclass(frozen=True)
class Batch:
    """The symbols that stand for the batch size, one for each input at most."""

    symbols: frozenset[Any]

    def form(self, value: object) -> Form | None:
        """Shape without the batch, which is one axis, or axis 0 together with frames; else None."""
        if not isinstance(value, Tensor):
            return None
        found = dynamic_sizes(value)
        if len(found) != 1:
            return None
        ((at, size),) = found.items()
        times, symbol = size.node.expr.as_coeff_Mul()
        if symbol not in self.symbols or not times.is_Integer:
            return None
        before, after = tuple(map(int, value.shape[:at])), tuple(map(int, value.shape[at + 1 :]))
        if times == 1:
            return Form((*before, *after), BatchAt(at))
        return None if before else Form((int(times), *after), Folded())

    def size(self, value: object) -> Size | None:
        """A number made of sizes, None where it depends on data."""
        if isinstance(value, bool | int | float):
            return Size(value, value)
        assert isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool)
        expression = value.node.expr
        if not expression.free_symbols <= self.symbols:
            return None
        two, three = (expression.subs(dict.fromkeys(self.symbols, n)) for n in (2, 3))
        kind = float if isinstance(value, torch.SymFloat) else int
        return Size(kind(two), kind(three))


def dynamic_sizes(value: Tensor) -> dict[int, torch.SymInt]:
    """The sizes of a value that are no plain numbers, by axis of torch."""
    sizes: tuple[Any, ...] = tuple(value.shape)
    return {axis: size for axis, size in enumerate(sizes) if isinstance(size, torch.SymInt)}
