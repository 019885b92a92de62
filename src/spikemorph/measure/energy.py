"""Energy under named cost models: an estimate of arithmetic, not a measurement of a chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from spikemorph.units import Joules

PICO = 1e-12


@final
@dataclass(frozen=True, slots=True)
class CostModel:
    """Joules of one operation.

    Args:
        float_mac: float32 multiply-accumulate, for the float network.
        integer_mac: 8-bit multiply with 32-bit add, for the QNN.
        accumulate: 32-bit integer add, for a synaptic operation.
        source: where the numbers are from.
    """

    name: str
    float_mac: Joules
    integer_mac: Joules
    accumulate: Joules
    source: str


HOROWITZ_45NM = CostModel(
    name="45nm",
    float_mac=Joules(4.6 * PICO),
    integer_mac=Joules(0.3 * PICO),
    accumulate=Joules(0.1 * PICO),
    source="M. Horowitz, Computing's energy problem, ISSCC 2014: 45 nm, arithmetic only, no memory traffic",
)

MODELS: tuple[CostModel, ...] = (HOROWITZ_45NM,)


def energy(macs: int, synaptic_operations: float) -> Mapping[str, Mapping[str, float]]:
    """Joules a sample of the float network, the QNN and the SNN, by cost model.

    Args:
        macs: of the float network, a sample.
        synaptic_operations: of the spiking run, mean of a sample.
    """
    return {
        model.name: {
            "float": macs * model.float_mac,
            "qnn": macs * model.integer_mac,
            "snn": synaptic_operations * model.accumulate,
        }
        for model in MODELS
    }
