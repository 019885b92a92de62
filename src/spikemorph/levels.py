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
from spikemorph.quantise.methods import Nearest, Reconstruction

__all__ = [
    "Analog",
    "LeastSquares",
    "Levels",
    "Max",
    "Nearest",
    "Override",
    "PerChannel",
    "PerTensor",
    "Percentile",
    "Reconstruction",
]
