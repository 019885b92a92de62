"""MNIST pixel by pixel in one fixed random order: strided convolutions and a ReLU RNN, 49 updates."""

from __future__ import annotations

from spikemorph.passes.levels import Levels
from spikemorph.recipes.pixel_sequences import Front, Task
from spikemorph.recipes.result import assess_all
from spikemorph.recipes.training import Schedule

RECIPE = Task(
    name="ps-mnist",
    front=(
        Front(48, kernel=16, stride=4, padding=6),
        Front(96, kernel=8, stride=2, padding=3),
        Front(128, kernel=8, stride=2, padding=3),
    ),
    units=256,
    levels=Levels(activation=15, weight_bits=8),
    float_schedule=Schedule(epochs=9, rate=4e-3, batch=256, seed=1),
    quantised_schedule=Schedule(epochs=4, rate=1e-3, batch=256, decay=0.01, seed=2),
    measure=assess_all,
    permuted=True,
).recipe()
