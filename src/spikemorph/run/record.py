"""What a simulation keeps. Choices are values; several may be given together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

from spikemorph.errors import RunError


@final
@dataclass(frozen=True, slots=True)
class SpikeCounts:
    """Every neuron's count at the end: `Run.counts`."""


@final
@dataclass(frozen=True, slots=True)
class Outputs:
    """The readout after every step: `Run.raws` and `Run.outputs`; spikes until then: `Run.spikes_until`.

    Args:
        steps: after these steps only, rising, counted from 1; None: after every step. For feed-forward
            networks; where all is at rest before, the readout at rest.

    Raises:
        RunError: not rising whole numbers of at least 1.
    """

    steps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.steps is None:
            return
        whole = isinstance(self.steps, tuple) and all(type(each) is int for each in self.steps)
        if not whole or not self.steps or any(a >= b for a, b in pairwise((0, *self.steps))):
            raise RunError(
                where="Outputs(steps)",
                got=repr(self.steps),
                known="a tuple of rising whole numbers of at least 1, or None for every step",
                do="use Outputs((8, 16, 32))",
            )


@final
@dataclass(frozen=True, slots=True)
class LayerSpikes:
    """Spikes of each layer in each step, summed over the batch: `Run.layer_steps`."""


@final
@dataclass(frozen=True, slots=True)
class Everything:
    """All of the above and every single spike: `Run.trace`."""


Record = SpikeCounts | Outputs | LayerSpikes | Everything


def kept_steps(record: tuple[Record, ...]) -> tuple[int, ...] | None:
    """The steps after which outputs are kept, where all that is recorded of them is some steps; else None."""
    found = [each.steps for each in record if isinstance(each, Outputs)]
    other = any(isinstance(each, Everything) for each in record) or any(each is None for each in found)
    if other or not found:
        return None
    return tuple(sorted({step for each in found if each is not None for step in each}))
