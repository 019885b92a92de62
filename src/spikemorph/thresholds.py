"""What `TrainingFree` and `Rate` are made of: how thresholds are found, which steps are read out."""

from spikemorph.convert.balance import LeastSquaresIn, LocalThresholdBalancing
from spikemorph.convert.training_free import Delayed
from spikemorph.passes.levels import Max, Percentile

__all__ = ["Delayed", "LeastSquaresIn", "LocalThresholdBalancing", "Max", "Percentile"]
