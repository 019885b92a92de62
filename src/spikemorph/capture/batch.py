"""Which sizes of an exported program are the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.capture.values import Ints, Size


@final
@dataclass(frozen=True)
class Batch:
    """The symbols that stand for the batch size, one for each input at most."""

    symbols: frozenset[Any]

    def sample_shape(self, value: object) -> Ints | None:
        """Shape without the batch axis, None unless axis 0 is the batch and all others are numbers."""
        if not isinstance(value, Tensor) or value.dim() == 0:
            return None
        first, *rest = value.shape
        if not isinstance(first, torch.SymInt) or first.node.expr not in self.symbols:
            return None
        if any(isinstance(size, torch.SymInt) for size in rest):
            return None
        return tuple(int(size) for size in rest)

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
