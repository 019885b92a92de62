"""The elementwise functions of `ir.functions`, computed by torch on any float tensor."""

from __future__ import annotations

from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from spikemorph.ir import functions as fn

SILU_TURNS = -1.2784645427610738


def apply(function: fn.Function, x: Tensor) -> Tensor:
    """function(x), elementwise, in the dtype of x."""
    match function:
        case fn.Relu():
            return torch.relu(x)
        case fn.Clamp(lo, hi):
            return torch.clamp(x, lo, hi)
        case fn.LeakyRelu(slope):
            return F.leaky_relu(x, slope)
        case fn.Sigmoid():
            return torch.sigmoid(x)
        case fn.Tanh():
            return torch.tanh(x)
        case fn.HardSigmoid():
            return torch.clamp(x / 6 + 0.5, 0, 1)
        case fn.HardSwish():
            return x * torch.clamp(x / 6 + 0.5, 0, 1)
        case fn.Silu():
            return x * torch.sigmoid(x)
        case fn.Swish(beta):
            return x * torch.sigmoid(beta * x)
        case fn.Mish():
            return F.mish(x)
        case fn.Gelu(tanh):
            return F.gelu(x, approximate="tanh" if tanh else "none")
        case fn.Elu(alpha, scale):
            return scale * F.elu(x, alpha)
        case fn.Softplus(beta):
            return F.softplus(x, beta)
        case fn.Abs():
            return torch.abs(x)
        case _:
            assert_never(function)


def turning_points(function: fn.Function) -> tuple[float, ...]:
    """Where the function changes between falling and rising; between them it is monotone."""
    match function:
        case fn.HardSwish():
            return (-3.0, -1.5)
        case fn.Silu():
            return (SILU_TURNS,)
        case fn.Swish(beta):
            return (SILU_TURNS / beta,) if beta else ()
        case fn.Mish():
            return (-1.1924312145154952,)
        case fn.Gelu(tanh):
            return (-0.7524614220710162,) if tanh else (-0.7517915241402155,)
        case fn.Abs():
            return (0.0,)
        case fn.LeakyRelu(slope):
            return (0.0,) if slope < 0 else ()
        case fn.Elu(alpha, _):
            return (0.0,) if alpha < 0 else ()
        case _:
            return ()


def non_decreasing(function: fn.Function) -> bool:
    """Whether x <= y gives function(x) <= function(y), everywhere."""
    if isinstance(function, fn.Elu):
        return function.scale > 0 and function.alpha >= 0
    return not turning_points(function)


def never_negative(function: fn.Function) -> bool:
    """Whether function(x) >= 0 for every x: its counts are unsigned."""
    match function:
        case fn.Relu() | fn.Sigmoid() | fn.HardSigmoid() | fn.Abs():
            return True
        case fn.Softplus(beta):
            return beta > 0
        case fn.Clamp(lo, hi):
            return lo is not None and lo >= 0 and (hi is None or hi >= 0)
        case fn.LeakyRelu(slope):
            return slope <= 0
        case _:
            return False
