"""The float network, the QNN and the spiking network side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from spikemorph.convert.network import SpikingNetwork
from spikemorph.ir.graph import Graph
from spikemorph.measure.dense import float_operations, qnn_operations
from spikemorph.measure.energy import MODELS, CostModel, Energies, price
from spikemorph.measure.ledger import Ledger
from spikemorph.measure.spiking import snn_operations
from spikemorph.run.result import Run

Real = float
"""One of the fields below is called `float`."""


@final
@dataclass(frozen=True)
class Comparison:
    """Operations of one sample, the mean for the SNN."""

    float: Ledger
    qnn: Ledger
    snn: Ledger

    def energies(self, models: Iterable[CostModel] = MODELS) -> Mapping[str, Energies]:
        """Joules a sample by model."""
        totals = (self.float.total, self.qnn.total, self.snn.total)
        return {model.name: price(model, *totals) for model in models}

    def energy_table(self) -> dict[str, dict[str, Real | None]]:
        """The same as plain data for JSON."""
        return {name: dict(each.to_dict()) for name, each in self.energies().items()}


class Books:
    """Adds up runs of a network, batch after batch."""

    def __init__(self, network: SpikingNetwork) -> None:
        self.network = network
        self.samples = 0
        self.ledger = Ledger({})

    def add(self, run: Run) -> None:
        """One more batch."""
        self.samples += run.element_steps.shape[1]
        self.ledger += snn_operations(self.network, run)

    def compare(self, dense: Graph | None = None) -> Comparison:
        """With the two networks that compute everything once.

        Args:
            dense: the float graph; without it the same layers in float32.
        """
        graph = self.network.graph
        return Comparison(
            float_operations(graph if dense is None else dense),
            qnn_operations(graph),
            self.ledger.scaled(1 / max(self.samples, 1)),
        )
