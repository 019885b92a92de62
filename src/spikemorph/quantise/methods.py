"""How a network is quantised after its training: frozen choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Nearest:
    """Every number goes to the nearest of its grid; weights and biases stay as they were trained."""


@final
@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Layer by layer, weights and biases are moved so that quantised values stay close to the float ones.

    From calibration data alone, without labels and without gradients. Biases always move, so that the mean
    error of a sum is zero where its activation sees it.

    Args:
        weights: weights move too, as far as one half of the calibration data recommends for the other.
        rounding: weights are rounded one after the other, the later ones make up for the earlier.
    """

    weights: bool = True
    rounding: bool = True


PostTraining = Nearest | Reconstruction
