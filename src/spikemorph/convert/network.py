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
