"""What a search may try, and what it must keep to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import final

from spikemorph.convert.balance import LeastSquaresIn, LocalThresholdBalancing
from spikemorph.convert.network import Binary, Graded, Spike, Ternary
from spikemorph.convert.rate import Rate
from spikemorph.convert.training_free import TrainingFree
from spikemorph.errors import LevelsError, UsageError
from spikemorph.measure.energy import MEMORY_EVENTS, CostModel
from spikemorph.passes.levels import Granularity, PerChannel
from spikemorph.quantise.methods import Nearest, PostTraining, Reconstruction
from spikemorph.tune.candidates import Candidate, Counts, Rates

STOPS = (4, 8, 16, 32, 64)


class Prefer(Enum):
    """What is to be least among all that keeps to the bounds."""

    JOULES = "joules"
    STEPS = "steps"
    SPIKES = "spikes"


@final
@dataclass(frozen=True, slots=True)
class Search:
    """What to look for. At least one bound is needed.

    Args:
        max_loss: points of accuracy that may be lost on the samples held out; without labels, percent of them
            whose top class differs; of other outputs, percent of squared error (`judge.Held`).
        max_steps: of a run, every layer passed within a step.
        prefer: among what keeps to `max_loss`; without it the least loss comes first.
        levels: falling, of the lossless way; layers are lowered along them, too.
        spikes: that may be sent; binary ones by rate-coded ways alone.
        rates: rate-coded ways, whatever `spikes` says; None: thresholds of least squared error for each
            number of steps, local threshold balancing, and the classic percentile.
        held_out: part of the samples that judges; the others calibrate.
        rounds: how often the layers are gone through to lower them one by one; 0: they all stay alike.
        weight_bits, granularity, rounding: of the lossless way; Nearest() is coarser than Reconstruction(),
            and several times as fast.
        model: prices the operations.
        costed: samples whose operations are counted, at most.

    Raises:
        UsageError: no bound.
        LevelsError: a bound, level or part out of range.
    """

    max_loss: float | None = None
    max_steps: int | None = None
    prefer: Prefer = Prefer.JOULES
    levels: tuple[int, ...] = (63, 31, 15, 7, 3)
    spikes: tuple[Spike, ...] = (Binary(), Ternary(), Graded(4))
    rates: tuple[TrainingFree | Rate, ...] | None = None
    held_out: float = 0.5
    rounds: int = 2
    weight_bits: int = 8
    granularity: Granularity = PerChannel()
    rounding: PostTraining = Reconstruction()
    model: CostModel = MEMORY_EVENTS
    costed: int = 16

    def __post_init__(self) -> None:
        if self.max_loss is None and self.max_steps is None:
            raise UsageError(
                where="Search",
                got="no bound",
                known="max_loss in points, max_steps, or both",
                do="try Search(max_loss=0.5); on the command line --max-loss 0.5 or --max-steps 32",
            )
        loss, steps = self.max_loss, self.max_steps
        _check("max_loss", loss, loss is None or loss == 0 or _above_zero(loss), "points from 0", "0.5")
        _check("max_steps", steps, steps is None or _whole(steps), "a whole number of at least 1", "32")
        bits = _whole(self.weight_bits) and 2 <= self.weight_bits <= 8
        _check("weight_bits", self.weight_bits, bits, "a whole number in 2..8", "8")
        kinds = isinstance(self.spikes, tuple) and bool(self.spikes)
        kinds = kinds and all(isinstance(each, Binary | Ternary | Graded) for each in self.spikes)
        known = "a tuple of Binary(), Ternary() and Graded(m)"
        _check("spikes", self.spikes, kinds, known, "(Ternary(), Graded(4))")
        rates = self.rates is None or isinstance(self.rates, tuple)
        rates = rates and all(isinstance(each, TrainingFree | Rate) for each in self.rates or ())
        _check("rates", self.rates, rates, "a tuple of TrainingFree(...) and Rate(...)", "(Rate(),)")
        _check("prefer", self.prefer, isinstance(self.prefer, Prefer), "one of Prefer", "Prefer.STEPS")
        part = _above_zero(self.held_out) and self.held_out < 1
        _check("held_out", self.held_out, part, "a part between 0 and 1", "0.5")
        ladder = list(self.levels)
        falling = bool(ladder) and all(_whole(p) and p <= 255 for p in ladder)
        falling = falling and sorted(set(ladder), reverse=True) == ladder
        _check("levels", self.levels, falling, "falling whole numbers in 1..255", "(31, 15, 7, 3)")
        _check("costed", self.costed, _whole(self.costed), "a whole number of at least 1", "16")
        fits = isinstance(self.rounding, Nearest | Reconstruction)
        _check("rounding", self.rounding, fits, "Nearest() or Reconstruction()", "Reconstruction()")
        _check("rounds", self.rounds, self.rounds == 0 or _whole(self.rounds), "0 or more", "2")

    @property
    def stops(self) -> tuple[int, ...]:
        """Steps after which runs are looked at."""
        if self.max_steps is None:
            return STOPS
        return tuple(sorted({*(each for each in STOPS if each < self.max_steps), self.max_steps}))

    def candidates(self) -> tuple[Candidate, ...]:
        """All that is tried before layers are looked at one by one."""
        signed = [spike for spike in self.spikes if not isinstance(spike, Binary)]
        lossless = [
            Counts(p, spike, ramp) for p in self.levels for spike in signed for ramp in _ramps(p, spike)
        ]
        if self.rates is not None:
            return (*lossless, *(Rates(method, self.stops) for method in self.rates))
        kinds = self.spikes
        fitted = [
            Rates(TrainingFree(LeastSquaresIn(steps), spike=kind), (steps,))
            for steps in self.stops
            for kind in kinds
        ]
        balanced = [Rates(TrainingFree(LocalThresholdBalancing(), spike=kind), self.stops) for kind in kinds]
        classic = [Rates(Rate(), self.stops)] if Binary() in kinds else []
        return (*lossless, *fitted, *balanced, *classic)


def _ramps(p: int, spike: Ternary | Graded) -> tuple[int, ...]:
    """At once, or in about as many steps as a count needs to reach its end."""
    return tuple(sorted({1, -(-p // spike.largest)}))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _above_zero(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _check(name: str, value: object, fits: bool, known: str, instead: str) -> None:
    if not fits:
        raise LevelsError(
            where=f"Search({name})", got=repr(value), known=known, do=f"try {name}={instead}, or leave it out"
        )
