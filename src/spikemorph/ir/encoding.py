"""How the input enters: shared by quantisation (its grid) and conversion (its timing)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from spikemorph.errors import LevelsError


@final
@dataclass(frozen=True, slots=True)
class Analog:
    """The whole input count is injected at step 0, then silence (s-analog encoding, arXiv 2408.09403).

    Args:
        bits: of the symmetric input grid that `quantise` lays.

    Raises:
        LevelsError: bits outside 1..16.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or isinstance(self.bits, bool) or not 1 <= self.bits <= 16:
            raise LevelsError(
                where="Analog(bits)",
                got=repr(self.bits),
                known="a whole number in 1..16",
                do="use 8 for images",
            )


@final
@dataclass(frozen=True, slots=True)
class Spikes:
    """The input is emitted as a spike train of the network's own kind: |count| units, one spike a step."""


Encoding = Analog | Spikes
