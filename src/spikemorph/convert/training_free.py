"""Training-free conversion: integrate-and-fire neurons with locally balanced thresholds.

Source: Bu, Li, Yu, "Inference-Scale Complexity in ANN-SNN Conversion for High-Performance and Low-Power
Applications", arXiv 2409.03368 (CVPR 2025). Here on integer grids, so that all engines agree to the bit; a
max-pool works on counts, which is a neuron on the maximum of what its sources have integrated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from spikemorph.convert.balance import Balanced, LeastSquaresIn, LocalThresholdBalancing, balance, fit, suited
from spikemorph.convert.network import Binary, Graded, Spike, SpikingNetwork, Ternary, Window
from spikemorph.convert.rates import Progress, built, first_spikes, planned
from spikemorph.errors import LevelsError, expect
from spikemorph.evaluate.batching import Batches
from spikemorph.ir.graph import Graph


@final
@dataclass(frozen=True, slots=True)
class Delayed:
    """The output is the mean over the steps from `start` on, or over the last `least` of a shorter run.

    Args:
        start: None: when the first spikes have come through, from calibration data.
        least: steps that are averaged at least.

    Raises:
        LevelsError: out of range.
    """

    start: int | None = None
    least: int = 4

    def __post_init__(self) -> None:
        for name, value, lowest in (("start", self.start, 0), ("least", self.least, 1)):
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= lowest
            if not whole and not (name == "start" and value is None):
                raise LevelsError(
                    where=f"Delayed({name})",
                    got=repr(value),
                    known=f"a whole number of at least {lowest}",
                    do="use Delayed() for the start from calibration data",
                )


@final
@dataclass(frozen=True, slots=True)
class TrainingFree:
    """Rate-coded conversion of a trained float network with a few hundred unlabelled samples.

    Args:
        balancing: how thresholds are found. Of spikes with sizes the largest one stands for a threshold that
            was balanced; least squares reckons with as large ones.
        readout: over which steps outputs are averaged.
        spike: Binary(), Ternary() for neurons that take spikes back, or Graded(m).
        per_channel: a threshold a channel, where consumers absorb it; else one a layer.
        weight_bits: of the integer weights, 2..8.
    """

    balancing: LocalThresholdBalancing | LeastSquaresIn = LocalThresholdBalancing()
    readout: Delayed = Delayed()
    spike: Spike = Binary()
    per_channel: bool = True
    weight_bits: int = 8

    def __post_init__(self) -> None:
        expect(
            "TrainingFree(balancing)",
            self.balancing,
            (LocalThresholdBalancing, LeastSquaresIn),
            "use LocalThresholdBalancing(), or LeastSquaresIn(32) for runs of 32 steps",
        )
        expect("TrainingFree(readout)", self.readout, (Delayed,), "use Delayed()")
        expect("TrainingFree(spike)", self.spike, (Binary, Ternary, Graded), "use Binary()")


def training_free(
    graph: Graph,
    method: TrainingFree,
    calibration: Batches,
    progress: Progress = lambda done, total: None,
) -> SpikingNetwork:
    """The spiking network of a float graph."""
    plan = planned(graph, per_channel=method.per_channel, weight_bits=method.weight_bits)
    largest = method.spike.largest

    def calibrate(neurons: Graph) -> Balanced:
        how = method.balancing
        if isinstance(how, LeastSquaresIn):
            fitted = replace(how, largest=largest) if how.largest == 1 else how
            return suited(neurons, fit(neurons, calibration, fitted), 1, largest)
        return suited(neurons, balance(neurons, calibration, how, progress), largest, largest)

    def window(neurons: Graph, found: Balanced) -> Window:
        start = method.readout.start
        return Window(first_spikes(neurons, found) if start is None else start, method.readout.least)

    return built(plan, calibrate, method.spike, window)
