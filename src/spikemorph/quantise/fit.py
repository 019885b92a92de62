"""Weights and biases that give a float network's sums from quantised inputs, in closed form.

Layer by layer and on calibration data alone: least squares with a pull towards the trained weights, as strong
as one half of the samples recommends for the other. What an activation cuts off is no error (the surrogate of
X. Zhang et al., Accelerating very deep convolutional networks, PAMI 2016, solved by the same majorisation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from spikemorph.ir import functions as fn
from spikemorph.quantise.samples import Samples

ROUNDS = 4
"""Times that the part of the target which the activation cuts off is moved to where the sum is anyway."""

PULLS = tuple(10.0 ** (half / 2) for half in range(-8, 6))
"""Pulls towards the trained weights that are tried, relative to the variance of what each weight reads."""

FLOOR = 1e-3
"""Variance that every input is given at least, relative to the mean over all inputs."""


@final
@dataclass(frozen=True, slots=True)
class Live:
    """The range of a sum in which its activation is not flat; one end may be infinite."""

    lo: float = -math.inf
    hi: float = math.inf

    def clamped(self, target: Tensor, sums: Tensor) -> Tensor:
        """The target, but where the activation cuts it off: there any sum beyond the end will do."""
        low, high = target <= self.lo, target >= self.hi
        target = torch.where(low, sums.clamp(max=self.lo), target)
        return torch.where(high, sums.clamp(min=self.hi), target)


def live_range(function: fn.Function) -> Live:
    """Where a function is not flat."""
    match function:
        case fn.Relu():
            return Live(lo=0.0)
        case fn.Clamp(lo, hi):
            return Live(-math.inf if lo is None else lo, math.inf if hi is None else hi)
        case fn.HardSigmoid():
            return Live(-3.0, 3.0)
        case fn.HardSwish():
            return Live(lo=-3.0)
        case _:
            return Live()


@final
@dataclass(frozen=True)
class Fitted:
    """One weighted sum, float64.

    Args:
        weight: [groups, inputs, outputs].
        bias: [groups, 1, outputs].
        middle: [groups, 1, inputs], means of what is read.
        moments: [groups, inputs, inputs], its second moments about them.
    """

    weight: Tensor
    bias: Tensor
    middle: Tensor
    moments: Tensor

    def with_weight(self, weight: Tensor) -> Fitted:
        """Other weights, and biases that keep the means of the sums."""
        return replace(self, weight=weight, bias=self.bias + self.middle @ (self.weight - weight))


@final
@dataclass(frozen=True)
class _Half:
    """Second moments of half of the inputs, and of these with the error of the trained weights."""

    inputs: Tensor
    error: Tensor


def fit(samples: Samples, trained: tuple[Tensor, Tensor], live: Live, *, weights: bool) -> Fitted:
    """The weights and biases whose sums are closer to the target, where the activation sees it.

    Args:
        samples: what is read and wanted.
        trained: weights [groups, inputs, outputs] and biases [groups, 1, outputs], float64.
        live: where the activation behind the sum is not flat.
        weights: whether they may move; else the biases alone do.
    """
    weight, bias = trained
    problem = _Problem(samples, weight, live)
    pull = problem.best_pull(problem.wanted(weight, bias)) if weights else None
    factor = None if pull is None else problem.factor(pull)
    for _ in range(ROUNDS if live != Live() else 1):
        wanted = problem.wanted(weight, bias)
        if factor is not None:
            weight = trained[0] + torch.cholesky_solve(problem.error(wanted, slice(None)), factor)
        bias = problem.bias(weight, wanted)
    return Fitted(weight, bias, problem.middle.double(), problem.moments)


class _Problem:
    """One least-squares problem; lives inside `fit` only."""

    def __init__(self, samples: Samples, trained: Tensor, live: Live) -> None:
        self.samples, self.live = samples, live
        self.middle = samples.x.mean(1, keepdim=True)
        self.x = samples.x - self.middle
        self.from_trained = self.x @ trained.to(self.x.dtype)
        self.beside = torch.zeros(()) if samples.beside is None else samples.beside
        n = self.x.shape[1]
        self.halves = (slice(0, n // 2), slice(n // 2, n))
        self.inputs = tuple(self._inputs(part) for part in self.halves)
        share = n // 2 / n
        self.moments = share * self.inputs[0] + (1 - share) * self.inputs[1]

    def _inputs(self, part: slice) -> Tensor:
        x = self.x[:, part]
        return (x.transpose(1, 2) @ x).double() / max(x.shape[1], 1)

    def wanted(self, weight: Tensor, bias: Tensor) -> Tensor:
        """What this weighted sum should give, where its activation cuts off what these would."""
        own = self.samples.x @ weight.to(self.x.dtype) + bias.to(self.x.dtype)
        return self.live.clamped(self.samples.target, own + self.beside) - self.beside

    def bias(self, weight: Tensor, wanted: Tensor) -> Tensor:
        """Biases with which the mean error is zero."""
        return wanted.mean(1, keepdim=True).double() - self.middle.double() @ weight

    def error(self, wanted: Tensor, part: slice) -> Tensor:
        """Moments of the inputs with the error of the trained weights, over a part of the samples."""
        error = (wanted - wanted.mean(1, keepdim=True) - self.from_trained)[:, part]
        x = self.x[:, part]
        return (x.transpose(1, 2) @ error).double() / max(x.shape[1], 1)

    def factor(self, pull: float) -> Tensor:
        """Cholesky factor of the moments with a pull."""
        factor: Tensor = torch.linalg.cholesky(self.moments + torch.diag_embed(pull * spread(self.moments)))
        return factor

    def best_pull(self, wanted: Tensor) -> float | None:
        """The pull with which each half of the samples serves the other best; None: no change does."""
        if self.x.shape[1] < 4:
            return None
        one, other = (
            _Half(inputs, self.error(wanted, part))
            for inputs, part in zip(self.inputs, self.halves, strict=True)
        )
        variance = self.samples.target.var(1).double()
        value = 1.0 / (variance + 0.1 * variance.mean() + 1e-12)
        left = _errors_left(one, other, value) + _errors_left(other, one, value)
        best = int(left.argmin())
        return PULLS[best] if float(left[best]) < 0 else None


def spread(inputs: Tensor) -> Tensor:
    """Variances [groups, inputs] of what each weight reads, none of them zero."""
    own = torch.diagonal(inputs, dim1=1, dim2=2)
    return own + FLOOR * own.mean(1, keepdim=True) + 1e-12


def _errors_left(own: _Half, other: _Half, value: Tensor) -> Tensor:
    """By pull, how the squared error of `other` changes with the weights that `own` asks for.

    Args:
        value: [groups, outputs], of the squared error of an output.
    """
    scale = spread(own.inputs).rsqrt()
    both = scale.unsqueeze(2) * scale.unsqueeze(1)
    sizes, axes = torch.linalg.eigh(own.inputs * both)
    asked = axes.transpose(1, 2) @ (own.error * scale.unsqueeze(2))
    there = axes.transpose(1, 2) @ (other.inputs * both) @ axes
    gained = axes.transpose(1, 2) @ (other.error * scale.unsqueeze(2))
    left = []
    for pull in PULLS:
        step = asked / (sizes.clamp(min=0).unsqueeze(2) + pull)
        change = (step * (there @ step)).sum(1) - 2 * (step * gained).sum(1)
        left.append((change * value).sum())
    return torch.stack(left)
