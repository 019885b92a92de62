"""The classic rate-coded conversion: thresholds at the largest activation or a percentile of it.

Source: Diehl et al., IJCNN 2015; Rueckauer et al., Frontiers in Neuroscience 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from spikemorph.convert.balance import Balanced, read_off, suited
from spikemorph.convert.network import Binary, Graded, Spike, SpikingNetwork, Ternary, Window
from spikemorph.convert.rates import built, planned
from spikemorph.errors import expect
from spikemorph.evaluate.batching import Batches
from spikemorph.ir.graph import Graph
from spikemorph.passes.levels import Max, Percentile


@final
@dataclass(frozen=True, slots=True)
class Rate:
    """Thresholds read off calibration data; outputs are means over all steps.

    Args:
        threshold: Percentile(99.9) of the activations above zero, or Max().
        spike: Binary(), Ternary() or Graded(m).
        per_channel: a threshold a channel, where consumers absorb it; else one a layer.
        weight_bits: of the integer weights, 2..8.
    """

    threshold: Max | Percentile = Percentile(99.9)
    spike: Spike = Binary()
    per_channel: bool = False
    weight_bits: int = 8

    def __post_init__(self) -> None:
        expect("Rate(threshold)", self.threshold, (Max, Percentile), "use Percentile(99.9) or Max()")
        expect("Rate(spike)", self.spike, (Binary, Ternary, Graded), "use Binary()")


def rate(graph: Graph, method: Rate, calibration: Batches) -> SpikingNetwork:
    """The spiking network of a float graph."""
    plan = planned(graph, per_channel=method.per_channel, weight_bits=method.weight_bits)
    largest = method.spike.largest

    def calibrate(neurons: Graph) -> Balanced:
        return suited(neurons, read_off(neurons, calibration, method.threshold), largest, largest)

    return built(plan, calibrate, method.spike, lambda neurons, found: Window(0))
