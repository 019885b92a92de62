"""Weights rounded one input after the other; the inputs still to come make up for each error.

E. Frantar et al., GPTQ, ICLR 2023 (optimal brain surgeon, column by column), here on the grids of integers
with a step for each output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikemorph.quantise.fit import spread

DAMPING = 0.01
"""Added to the variance of every input, relative to it: the moments of few samples are not invertible."""


def round_in_turn(scaled: Tensor, inputs: Tensor, largest: int) -> Tensor:
    """Integers in -largest..largest whose sums on the calibration data are close to those of the numbers.

    Args:
        scaled: [groups, outputs, inputs], weights in steps, float64.
        inputs: [groups, inputs, inputs], second moments of what each weight reads, about their mean.
        largest: of the grid.

    Returns:
        [groups, outputs, inputs], float64 that hold integers.
    """
    damped = inputs + torch.diag_embed(DAMPING * spread(inputs))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    passed_on = torch.linalg.cholesky(inverse, upper=True)
    left, rounded = scaled.clone(), torch.zeros_like(scaled)
    for i in range(scaled.shape[2]):
        rounded[:, :, i] = (left[:, :, i] + 0.5).floor().clamp(-largest, largest)
        error = (left[:, :, i] - rounded[:, :, i]) / passed_on[:, i, i].unsqueeze(1)
        left[:, :, i + 1 :] -= error.unsqueeze(2) * passed_on[:, i, i + 1 :].unsqueeze(1)
    return rounded
