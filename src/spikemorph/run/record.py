"""What a simulation keeps. Choices are values; several may be given together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class SpikeCounts:
    """Every neuron's count at the end: `Run.counts`."""


@final
@dataclass(frozen=True, slots=True)
class Outputs:
    """The readout after every step: `Run.raws` and `Run.outputs`."""


@final
@dataclass(frozen=True, slots=True)
class LayerSpikes:
    """Spikes of each layer in each step, summed over the batch: `Run.layer_steps`."""


@final
@dataclass(frozen=True, slots=True)
class Everything:
    """All of the above and every single spike: `Run.trace`."""


Record = SpikeCounts | Outputs | LayerSpikes | Everything
