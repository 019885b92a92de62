"""What a conversion makes: an integer graph, how its neurons spike, how its input enters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from spikemorph.errors import LevelsError
from spikemorph.ir.graph import Graph


@final
@dataclass(frozen=True, slots=True)
class Ternary:
    """Spikes of size -1, 0 or +1."""

    @property
    def largest(self) -> int:
        """The largest size of one spike."""
        return 1


@final
@dataclass(frozen=True, slots=True)
class Graded:
    """Spikes of integer size -largest..largest, as on Loihi 2.

    Raises:
        LevelsError: largest is not a whole number of at least 1.
    """

    largest: int

    def __post_init__(self) -> None:
        if not isinstance(self.largest, int) or isinstance(self.largest, bool) or self.largest < 1:
            raise LevelsError(
                where="Graded(largest)",
                got=repr(self.largest),
                known="a whole number of at least 1",
                do="use Ternary() for spikes of size one",
            )


Spike = Ternary | Graded


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


@final
@dataclass(frozen=True)
class SpikingNetwork:
    """A spiking network as a value.

    Args:
        graph: integer dialect; the network's own copy.
        spike: what travels between neurons.
        encoding: how the input enters.
        source: hash of the integer graph it was converted from (`ir.store.graph_hash`).
    """

    graph: Graph
    spike: Spike
    encoding: Encoding
    source: str
