"""MNIST pixel by pixel without any stride: 784 recurrent updates, one a pixel.

The convolution sees one pixel in each row above the present one, and nothing of what comes. The recipe is
here to show losslessness over long sequences: after 784 elements the spiking network still equals the
quantised one on every neuron. The negative controls (`controls.py`) do not.
"""

from __future__ import annotations

from dataclasses import replace

from spikemorph.data import Dataset
from spikemorph.passes.levels import Levels
from spikemorph.recipes.controls import controls
from spikemorph.recipes.pixel_sequences import Front, Task
from spikemorph.recipes.result import Case, Progress, Result, assess_some
from spikemorph.recipes.training import Schedule

SAMPLES = 1000
CONTROLLED = 50
STEPS = (16, 32)


def measure(case: Case, data: Dataset, progress: Progress, full: bool) -> Result:
    """A thousand samples in both ways of hand-over, and the negative controls on a few."""
    result = assess_some(SAMPLES)(case, data, progress, full)
    few, many = data.x[:CONTROLLED], data.x[:SAMPLES]
    wrong = controls(case.network, case.float_graph, few, STEPS, more=many)
    return replace(result, notes={**result.notes, "controls": wrong})


RECIPE = Task(
    name="s-mnist-784",
    front=(Front(32, kernel=28, padding=None, dilation=28),),
    units=64,
    levels=Levels(activation=15, weight_bits=8),
    float_schedule=Schedule(epochs=3, rate=3e-3, batch=256, seed=1),
    quantised_schedule=Schedule(epochs=1, rate=4e-4, batch=512, decay=0.01, seed=2),
    measure=measure,
).recipe()
