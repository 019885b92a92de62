"""MNIST pixel by pixel without any stride: 784 recurrent updates, one a pixel.

It is here to show losslessness over long sequences: after 784 elements the spiking network still equals the
quantised one on every neuron. The negative controls (`controls.py`) do not.
"""

from __future__ import annotations

from spikemorph.passes.levels import Levels
from spikemorph.recipes.pixel_sequences import Front, Task
from spikemorph.recipes.result import assess_some
from spikemorph.recipes.training import Schedule

RECIPE = Task(
    name="s-mnist-784",
    front=(Front(16, kernel=5, padding=56, dilation=28),),
    units=64,
    levels=Levels(activation=15, weight_bits=8),
    float_schedule=Schedule(epochs=4, rate=2e-3, batch=256, seed=1),
    quantised_schedule=Schedule(epochs=1, rate=4e-4, batch=512, decay=0.01, seed=2),
    measure=assess_some(1000),
).recipe()
