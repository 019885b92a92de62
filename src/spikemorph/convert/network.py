"""What a conversion makes: an integer or rate graph, how its neurons spike, how its input enters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from spikemorph.errors import LevelsError
from spikemorph.evaluate.intervals import horizon
from spikemorph.ir.encoding import Analog, Encoding, Spikes
from spikemorph.ir.graph import Graph
from spikemorph.ir.ops import IntegrateFire, Op

__all__ = [
    "Analog",
    "Binary",
    "Encoding",
    "Graded",
    "smallest",
    "spike_name",
    "Spike",
    "Spikes",
    "SpikingNetwork",
    "Ternary",
    "Window",
]


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


@final
@dataclass(frozen=True, slots=True)
class Binary:
    """Spikes of size 0 or 1, of integrate-and-fire neurons.

    Neurons that stand for negative numbers too, as inserted identity neurons do, send -1 as well.
    """

    @property
    def largest(self) -> int:
        """The largest size of one spike."""
        return 1


Spike = Ternary | Graded | Binary


def spike_name(spike: Spike) -> str:
    """What travels between neurons: binary, ternary, graded(4)."""
    return f"graded({spike.largest})" if isinstance(spike, Graded) else type(spike).__name__.lower()


def smallest(spike: Spike, op: Op) -> int:
    """The most negative spike of a neuron."""
    never = isinstance(spike, Binary) and isinstance(op, IntegrateFire) and op.lo >= 0
    return 0 if never else -spike.largest


@final
@dataclass(frozen=True, slots=True)
class Window:
    """Steps over which the outputs of a rate network are averaged: from `start` to the last one.

    Args:
        start: steps that are left out, 0 for none.
        least: steps that are averaged where a run is shorter than start + least (or all that there are).
    """

    start: int
    least: int = 4

    def first(self, steps: int) -> int:
        """How many steps of a run of so many are left out."""
        return max(0, min(self.start, steps - self.least))

    def around(self, steps: Iterable[int]) -> tuple[int, ...]:
        """The steps, and those after which their windows begin: what has to be recorded for them."""
        wanted = tuple(steps)
        return tuple(sorted({*wanted, *(self.first(each) for each in wanted)} - {0}))


@final
@dataclass(frozen=True)
class SpikingNetwork:
    """A spiking network as a value.

    Args:
        graph: integer or rate dialect; the network's own copy.
        spike: what travels between neurons.
        encoding: how the input enters.
        source: hash of the graph it was converted from (`ir.store.graph_hash`).
        window: of a rate network, the steps over which outputs are averaged; None: the sums at the end.
        ramp: of a lossless network, steps over which inputs and biases enter, evenly.
    """

    graph: Graph
    spike: Spike
    encoding: Encoding
    source: str
    window: Window | None = None
    ramp: int = 1

    @property
    def room(self) -> int:
        """Steps that the counts of a rate network have room for, with spikes of the largest size in each."""
        return max(1, horizon(self.graph) // self.spike.largest)
