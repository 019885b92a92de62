"""MNIST pixel by pixel: strided convolutions over time and a ReLU RNN, 49 recurrent updates.

Four pixels, seven times, are one row: the dilation of 7 lets the second convolution see neighbouring rows.
"""

from __future__ import annotations

from spikemorph.passes.levels import Levels
from spikemorph.recipes.pixel_sequences import Front, Task
from spikemorph.recipes.result import assess_all
from spikemorph.recipes.training import Schedule

RECIPE = Task(
    name="s-mnist",
    front=(
        Front(32, kernel=8, stride=4, padding=2),
        Front(64, kernel=5, stride=2, padding=14, dilation=7),
        Front(128, kernel=8, stride=2, padding=3),
    ),
    units=128,
    levels=Levels(activation=15, weight_bits=8),
    float_schedule=Schedule(epochs=16, rate=4e-3, seed=1),
    quantised_schedule=Schedule(epochs=8, rate=1e-3, decay=0.01, seed=2),
    measure=assess_all,
).recipe()
