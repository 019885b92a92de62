"""What is counted: operations and memory traffic of a network, a layer at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Operations:
    """Counts of one sample; means where there are several.

    Args:
        macs: multiply-accumulates. Of a spiking network: whatever is no single spike (analog input, graded
            spikes, sums and products that reach the next map) times a weight.
        accumulates: additions of a weight, which single spikes cause.
        updates: neuron updates. Float and QNN: one an activation. SNN: those of a clocked machine, neurons
            times the steps of their element until it is at rest, at least one.
        spikes: sum of |spike|.
        events: spikes of any size, each counted once.
        weight_bits: weights read, one for each multiply-accumulate or accumulate.
        accumulator_bits: accumulators read and written once for each operation: a machine that handles event
            by event. None in dense networks, whose sums stay in a register until they are complete.
        state_bits: accumulators and counts of neurons, read and written once for each update.
        activation_bits: dense numbers moved once from where they are made to where they are read.
        event_bits: the same of events: size, sign and the address of the neuron.
    """

    macs: float = 0.0
    accumulates: float = 0.0
    updates: float = 0.0
    spikes: float = 0.0
    events: float = 0.0
    weight_bits: float = 0.0
    accumulator_bits: float = 0.0
    state_bits: float = 0.0
    activation_bits: float = 0.0
    event_bits: float = 0.0

    def __add__(self, other: Operations) -> Operations:
        return Operations(*(getattr(self, name) + getattr(other, name) for name in COUNTED))

    def scaled(self, factor: float) -> Operations:
        """Every count times the factor."""
        return Operations(*(getattr(self, name) * factor for name in COUNTED))

    def to_dict(self) -> dict[str, float]:
        """Plain data for JSON."""
        return {name: getattr(self, name) for name in COUNTED}


COUNTED: tuple[str, ...] = tuple(field.name for field in fields(Operations))
"""Names of the counts; prices of cost models have the same names, without the plural."""


@final
@dataclass(frozen=True)
class Ledger:
    """Operations by layer: name of the node in the network's graph, or of what a neuron hands over."""

    layers: Mapping[str, Operations]

    @property
    def total(self) -> Operations:
        """Of all layers."""
        return sum(self.layers.values(), Operations())

    def __add__(self, other: Ledger) -> Ledger:
        names = dict.fromkeys((*self.layers, *other.layers))
        none = Operations()
        return Ledger({n: self.layers.get(n, none) + other.layers.get(n, none) for n in names})

    def scaled(self, factor: float) -> Ledger:
        """Every count times the factor."""
        return Ledger({name: each.scaled(factor) for name, each in self.layers.items()})

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        layers = {name: each.to_dict() for name, each in self.layers.items()}
        return {"total": self.total.to_dict(), "layers": layers}
