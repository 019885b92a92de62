"""What a conversion makes: an integer graph, how its neurons spike, how its input enters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from spikemorph.errors import LevelsError
from spikemorph.ir.encoding import Analog, Encoding, Spikes
from spikemorph.ir.graph import Graph

__all__ = ["Analog", "Encoding", "Graded", "Spike", "Spikes", "SpikingNetwork", "Ternary"]


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
        LevelsError: largest is not a whole number in 1..2**31 - 1.
    """

    largest: int

    def __post_init__(self) -> None:
        whole = isinstance(self.largest, int) and not isinstance(self.largest, bool)
        if not whole or not 1 <= self.largest < 2**31:
            raise LevelsError(
                where="Graded(largest)",
                got=repr(self.largest),
                known="a whole number in 1..2147483647",
                do="use Graded(4) for spikes of up to 4 units, Ternary() for spikes of one",
            )


Spike = Ternary | Graded


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
