"""Elementwise functions that a neuron may track. Data only; `evaluate/functions.py` computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Relu:
    """max(x, 0)."""


@final
@dataclass(frozen=True, slots=True)
class Clamp:
    """min(max(x, lo), hi); ReLU6 is Clamp(0, 6), Hardtanh is Clamp(-1, 1). None: no bound."""

    lo: float | None
    hi: float | None


@final
@dataclass(frozen=True, slots=True)
class LeakyRelu:
    """x for x >= 0, slope*x below."""

    slope: float


@final
@dataclass(frozen=True, slots=True)
class Sigmoid:
    """1 / (1 + exp(-x))."""


@final
@dataclass(frozen=True, slots=True)
class Tanh:
    """tanh(x)."""


@final
@dataclass(frozen=True, slots=True)
class HardSigmoid:
    """clamp(x/6 + 1/2, 0, 1)."""


@final
@dataclass(frozen=True, slots=True)
class HardSwish:
    """x * clamp(x/6 + 1/2, 0, 1); turns at x = -3/2."""


@final
@dataclass(frozen=True, slots=True)
class Silu:
    """x * sigmoid(x); turns at x = -1.2784645."""


@final
@dataclass(frozen=True, slots=True)
class Swish:
    """x * sigmoid(beta*x); turns at x = -1.2784645/beta. Silu is that of beta = 1, x/2 that of beta = 0."""

    beta: float


@final
@dataclass(frozen=True, slots=True)
class Mish:
    """x * tanh(log(1 + exp(x))); turns at x = -1.1924312 (Misra, 2019)."""


@final
@dataclass(frozen=True, slots=True)
class Gelu:
    """x * Phi(x), or its tanh form; turns at x = -0.7517916 (tanh form: -0.7524614)."""

    tanh: bool = False


@final
@dataclass(frozen=True, slots=True)
class Elu:
    """scale*x for x > 0, scale*alpha*(exp(x) - 1) below."""

    alpha: float = 1.0
    scale: float = 1.0


@final
@dataclass(frozen=True, slots=True)
class Softplus:
    """log(1 + exp(beta*x)) / beta."""

    beta: float = 1.0


@final
@dataclass(frozen=True, slots=True)
class Abs:
    """|x|; turns at 0."""


Function = (
    Relu
    | Clamp
    | LeakyRelu
    | Sigmoid
    | Tanh
    | HardSigmoid
    | HardSwish
    | Silu
    | Swish
    | Mish
    | Gelu
    | Elu
    | Softplus
    | Abs
)

FUNCTIONS: tuple[type, ...] = (
    Relu,
    Clamp,
    LeakyRelu,
    Sigmoid,
    Tanh,
    HardSigmoid,
    HardSwish,
    Silu,
    Swish,
    Mish,
    Gelu,
    Elu,
    Softplus,
    Abs,
)
