"""Training-free conversion: integrate-and-fire neurons with locally balanced thresholds.

Source: Bu, Li, Yu, "Inference-Scale Complexity in ANN-SNN Conversion for High-Performance and Low-Power
Applications", arXiv 2409.03368 (CVPR 2025). Here on integer grids, so that all engines agree to the bit; a
max-pool works on counts, which is a neuron on the maximum of what its sources have integrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from spikemorph.convert.balance import LeastSquaresIn, LocalThresholdBalancing, balance, fit
from spikemorph.convert.network import Binary, Graded, Spike, SpikingNetwork, Ternary, Window
from spikemorph.convert.rates import Progress, first_spikes, planned, spiking
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
        balancing: how thresholds are found.
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
    if isinstance(method.balancing, LeastSquaresIn):
        found = fit(plan.graph, calibration, method.balancing)
    else:
        found = balance(plan.graph, calibration, method.balancing, progress)
    start = first_spikes(plan.graph, found) if method.readout.start is None else method.readout.start
    window = Window(start, method.readout.least)
    return spiking(plan, found, method.spike, window)
