"""Which engine runs a network where nobody chose one."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.run.dense import Dense
from spikemorph.run.event import Event
from spikemorph.run.handover import FRESH, Handover
from spikemorph.run.record import Record
from spikemorph.run.result import Run


class Engine(Protocol):
    """Anything that turns input counts into a `Run`."""

    def run(
        self,
        network: SpikingNetwork,
        counts: tuple[Tensor, ...],
        *,
        steps: int | None,
        record: tuple[Record, ...],
        handover: Handover = FRESH,
        lengths: Tensor | None = None,
    ) -> Run:
        """Simulate `steps` steps an element, or until quiescent; counts are int64 [batch, *shape]."""


def default_engine(network: SpikingNetwork) -> Engine:
    """Event() where the proven bounds let it, which is fast; else Dense(). Both give the same numbers."""
    return Event() if Event().takes(network) else Dense()
