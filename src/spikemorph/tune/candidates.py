"""The ways a search tries: lossless at some levels, or rate-coded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from spikemorph.convert.balance import LeastSquaresIn
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.network import Graded, Ternary, spike_name
from spikemorph.convert.rate import Rate
from spikemorph.convert.training_free import TrainingFree
from spikemorph.passes.levels import Percentile


@final
@dataclass(frozen=True)
class Counts:
    """Lossless: counts that settle.

    Args:
        levels: of all activations but those named below.
        lowered: module -> levels.
    """

    levels: int
    spike: Ternary | Graded
    ramp: int = 1
    lowered: Mapping[str, int] = field(default_factory=dict)

    @property
    def method(self) -> Lossless:
        """How its integer graph is converted."""
        return Lossless(self.spike, ramp=self.ramp)

    @property
    def family(self) -> str:
        """What it is called in plots."""
        return "lossless"

    def __str__(self) -> str:
        mixed = f" and fewer in {len(self.lowered)} modules" if self.lowered else ""
        ramp = f", ramp {self.ramp}" if self.ramp > 1 else ""
        return f"lossless, {self.levels} levels{mixed}, {spike_name(self.spike)}{ramp}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "method": self.family,
            "levels": self.levels,
            "spike": spike_name(self.spike),
            "ramp": self.ramp,
            "lowered": dict(sorted(self.lowered.items())),
        }


@final
@dataclass(frozen=True)
class Rates:
    """Rate-coded: read after so many steps.

    Args:
        stops: rising; each is a way of its own.
    """

    method: TrainingFree | Rate
    stops: tuple[int, ...]

    @property
    def family(self) -> str:
        """What it is called in plots."""
        return "rate" if isinstance(self.method, Rate) else "training-free"

    def __str__(self) -> str:
        return f"{self.family}, {self._thresholds}, {spike_name(self.method.spike)}"

    @property
    def _thresholds(self) -> str:
        if isinstance(self.method, Rate):
            threshold = self.method.threshold
            return f"percentile {threshold.percent:g}" if isinstance(threshold, Percentile) else "largest"
        balancing = self.method.balancing
        if isinstance(balancing, LeastSquaresIn):
            return f"least squares in {balancing.steps}"
        return "balanced"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "method": self.family,
            "thresholds": self._thresholds,
            "spike": spike_name(self.method.spike),
            "config": repr(self.method),
        }


Candidate = Counts | Rates
