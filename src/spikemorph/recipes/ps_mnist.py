"""MNIST pixel by pixel in one fixed random order: one wide strided convolution, ReLU RNN, 49 updates."""

from __future__ import annotations

from spikemorph.passes.levels import Levels
from spikemorph.recipes.pixel_sequences import Front, Task
from spikemorph.recipes.result import assess_all
from spikemorph.recipes.training import Schedule

RECIPE = Task(
    name="ps-mnist",
    front=(Front(192, kernel=144, stride=16, padding=64),),
    units=256,
    levels=Levels(activation=15, weight_bits=8),
    float_schedule=Schedule(epochs=20, rate=3e-3, seed=1),
    quantised_schedule=Schedule(epochs=6, rate=8e-4, decay=0.01, seed=2),
    measure=assess_all,
    strength=0.6,
    permuted=True,
).recipe()
