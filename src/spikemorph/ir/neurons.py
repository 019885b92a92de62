"""Neurons of the spiking dialects: what tracks a step function, and what integrates and fires."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Neuron:
    """Tracks a step function of its accumulator. Integer dialect.

    F(a) = values[k], k = the number of breakpoints <= a + bias. `breakpoints` is an integer tensor
    [*group, n], sorted along the last axis, whose leading axes broadcast against the value's shape;
    `values` is [*group, n + 1], None for lo, lo + 1, ... (then n = hi - lo). `bias` broadcasts against
    the shape. The count starts at 0 and stays within min(lo, 0)..max(hi, 0).
    """

    lo: int
    hi: int
    breakpoints: str
    values: str | None
    bias: str | None
    identity: bool = False


@final
@dataclass(frozen=True, slots=True)
class IntegrateFire:
    """Integrate-and-fire with soft reset. Rate dialect: inputs and biases enter again at every step.

    The membrane starts at threshold - first, gains what arrives and the bias, and loses a threshold with
    every spike. Seen from the sum a of all that arrived in t steps, t biases included, the count tracks
    F(a) = 1 + floor((a - first) / threshold) within lo..hi. `threshold` and `first` are positive integers,
    `bias` integers; all three broadcast against the shape.
    """

    lo: int
    hi: int
    threshold: str
    first: str
    bias: str | None
    identity: bool = False
