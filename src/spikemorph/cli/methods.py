"""From what a user types to a method of conversion."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from spikemorph.cli.models import parse_spike
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import Method
from spikemorph.convert.network import Analog, Binary, Spikes
from spikemorph.convert.rate import Rate
from spikemorph.convert.training_free import TrainingFree
from spikemorph.errors import UsageError

METHODS = ("lossless", "training-free", "rate")
OF_LOSSLESS = frozenset(("levels", "observer", "reconstruct", "spike_input", "ramp", "qnn"))
"""Options that say how to quantise, or how counts settle."""
SEARCHED = frozenset(("method", "levels", "weight_bits", "spike", "per_channel", "observer", "spike_input"))
SEARCHED |= frozenset(("ramp", "qnn", "batch_axis", "reconstruct"))
"""Options that say themselves what a search is to find, or that it does not have."""


def parse_method(name: str, spike: str | None, ramp: int, *, spike_input: bool) -> Method:
    """The method of this name, its own spike kind where none is given.

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
    return Rate(spike=kind) if name == "rate" else TrainingFree(spike=kind)


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
