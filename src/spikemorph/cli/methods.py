"""From what a user types to a method of conversion."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from spikemorph.cli.models import parse_spike
from spikemorph.convert.balance import LeastSquaresIn, LocalThresholdBalancing
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import Method
from spikemorph.convert.network import Analog, Binary, Spikes
from spikemorph.convert.rate import Rate
from spikemorph.convert.training_free import TrainingFree
from spikemorph.errors import UsageError
from spikemorph.passes.levels import Max, Percentile

METHODS = ("lossless", "training-free", "rate")
OF_LOSSLESS = frozenset(("levels", "observer", "reconstruct", "spike_input", "ramp", "qnn"))
"""Options that say how to quantise, or how counts settle."""
OF_RATES = frozenset(("thresholds",))
SEARCHED = frozenset(("method", "levels", "weight_bits", "per_channel", "observer", "spike_input"))
SEARCHED |= frozenset(("ramp", "qnn", "batch_axis", "reconstruct", "thresholds"))
"""Options that say themselves what a search is to find, or that it does not have."""


def parse_method(
    name: str, spike: str | None, ramp: int, thresholds: str | None = None, *, spike_input: bool
) -> Method:
    """The method of this name, its own spike kind and thresholds where none are given.

    Raises:
        UsageError: an unknown method, or a spike kind that it does not have.
        LevelsError: the ramp or the size of graded spikes is out of range.
    """
    if name not in METHODS:
        raise UsageError(
            where="--method", got=repr(name), known=", ".join(METHODS), do="leave it out for lossless"
        )
    if name == "lossless":
        kind = parse_spike("ternary" if spike is None else spike)
        if isinstance(kind, Binary):
            raise UsageError(
                where="--spike",
                got="binary with --method lossless",
                known="ternary, or graded:4: neurons that settle take spikes back",
                do="use --spike ternary, or --method training-free",
            )
        return Lossless(kind, Spikes() if spike_input else Analog(), ramp)
    kind = parse_spike("binary" if spike is None else spike)
    if name == "rate":
        return Rate(_read_off("percentile:99.9" if thresholds is None else thresholds), kind)
    return TrainingFree(_balancing("balanced" if thresholds is None else thresholds), spike=kind)


def _balancing(written: str) -> LocalThresholdBalancing | LeastSquaresIn:
    kind, _, number = written.partition(":")
    whole = number.isascii() and number.isdigit() and len(number) < 10
    if kind == "balanced" and (whole or written == kind):
        return LocalThresholdBalancing(int(number)) if number else LocalThresholdBalancing()
    if kind == "least-squares" and whole:
        return LeastSquaresIn(int(number))
    raise UsageError(
        where="--thresholds",
        got=repr(written),
        known="balanced, balanced:ITERATIONS, or least-squares:STEPS",
        do="leave it out, or try least-squares:32 for runs of 32 steps",
    )


def _read_off(written: str) -> Max | Percentile:
    kind, _, number = written.partition(":")
    if written == "max":
        return Max()
    if kind == "percentile" and number.replace(".", "", 1).isdigit() and number.isascii():
        return Percentile(float(number))
    raise UsageError(
        where="--thresholds", got=repr(written), known="max, or percentile:99.9", do="leave it out"
    )


def refuse(given: Collection[str], unfit: Collection[str], why: str) -> None:
    """Nothing, where none of the options that were typed is among the unfit.

    Raises:
        UsageError: one is.
    """
    met = sorted(set(given) & set(unfit))
    if met:
        raise UsageError(
            where=", ".join(f"--{name.replace('_', '-')}" for name in met),
            got=f"given together with {why}",
            known="options that have a meaning there",
            do="leave them out",
        )


def typed(context: Any) -> frozenset[str]:
    """Names of the options on the command line, without those left at their defaults."""
    return frozenset(
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    )
