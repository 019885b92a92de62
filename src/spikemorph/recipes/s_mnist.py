"""MNIST pixel by pixel: strided convolutions over time and a ReLU RNN, 28 recurrent updates, one a row.

The first window is four rows and five pixels long, so it sees a neighbourhood of the image; where seven
numbers stand for a row, a dilation of 7 reaches the rows above and below.
"""

from __future__ import annotations

from spikemorph.passes.levels import Levels
from spikemorph.recipes.pixel_sequences import Front, Task
from spikemorph.recipes.result import assess_all
from spikemorph.recipes.training import Schedule

RECIPE = Task(
    name="s-mnist",
    front=(
        Front(32, kernel=117, stride=2, padding=58),
        Front(64, kernel=5, stride=2, padding=2),
        Front(64, kernel=3, padding=7, dilation=7),
        Front(128, kernel=7, stride=7),
    ),
    units=128,
    levels=Levels(activation=15, weight_bits=8),
    float_schedule=Schedule(epochs=16, rate=3e-3, seed=1),
    quantised_schedule=Schedule(epochs=6, rate=1e-3, decay=0.01, seed=2),
    measure=assess_all,
    strength=0.8,
).recipe()
