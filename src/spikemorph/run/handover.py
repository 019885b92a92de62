"""How settled counts reach the next element of a sequence; of no meaning in feed-forward networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from spikemorph.errors import RunError, expect


@final
@dataclass(frozen=True, slots=True)
class Fresh:
    """Every element starts from rest; the settled counts that it needs are emitted anew. Exact.

    They travel as spikes of the network's own kind, which are counted as hand-over.
    """


@final
@dataclass(frozen=True, slots=True)
class Delta:
    """Accumulators and counts stay; only changes of inputs and of settled counts are sent. Exact.

    An element goes on from the one before it where both do the same work. Where the shape of the work
    changes it starts fresh: at the borders of padded windows over time, and at every element where rates
    change between recurrences (a stride or pool over time behind one, upsampling in front).
    """


@final
@dataclass(frozen=True, slots=True)
class Replay:
    """A negative control, NOT lossless: the raw spike train of the element before is played again.

    Needs a fixed number of steps. Dense engine only.
    """


Handover = Fresh | Delta | Replay

FRESH = Fresh()


def check_handover(where: str, value: object) -> None:
    """Nothing, where the value is a hand-over.

    Raises:
        UsageError: it is none; the control is not offered.
    """
    if not isinstance(value, Replay):
        expect(where, value, (Fresh, Delta), "use Fresh() or Delta()")


def replay_refused(got: str) -> RunError:
    """The error of a control that cannot be run so."""
    return RunError(
        where="simulate(handover=Replay())",
        got=got,
        known="the dense engine with a fixed number of steps: a replayed train need not come to rest",
        do="give steps=32 and Dense(), or use Fresh() or Delta(), which are exact",
    )
