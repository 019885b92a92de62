"""Everything that `Levels` is made of: observers, granularities, overrides."""

from spikemorph.ir.encoding import Analog
from spikemorph.passes.levels import (
    LeastSquares,
    Levels,
    Max,
    Override,
    Percentile,
    PerChannel,
    PerTensor,
)

__all__ = ["Analog", "LeastSquares", "Levels", "Max", "Override", "PerChannel", "PerTensor", "Percentile"]
