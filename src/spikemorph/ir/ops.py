"""Every operation of all dialects, as plain frozen data.

Shapes and axes never include the batch: axis 0 here is axis 1 in torch. Tensors are named, not held;
`Graph.tensors` has them. One dialect is reached from the next: float -> planned -> integer or rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from spikemorph.ir import neurons
from spikemorph.ir.functions import Function

Ints = tuple[int, ...]
Neuron = neurons.Neuron
IntegrateFire = neurons.IntegrateFire


# ---------------------------------------------------------------- sources
@final
@dataclass(frozen=True, slots=True)
class Input:
    """Argument number `index` of the network.

    In the integer dialect its counts are clip(round(x / unit), lo, hi); `unit` names a float64 scalar.
    """

    index: int
    lo: int = 0
    hi: int = 0
    unit: str | None = None


# ---------------------------------------------------------------- linear, with weights
@final
@dataclass(frozen=True, slots=True)
class Conv:
    """Cross-correlation over the trailing len(stride) axes (1 to 3), zero padded; channels are axis 0.

    `weight` is [out, in/groups, *kernel], transposed: [in, out/groups, *kernel]. A bias [out] only in float.
    """

    weight: str
    bias: str | None
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int = 1
    transposed: bool = False
    output_padding: Ints = ()


@final
@dataclass(frozen=True, slots=True)
class Linear:
    """y[..., o] = sum_i weight[o, i] x[..., i] (+ bias[o], only in float), over the last axis."""

    weight: str
    bias: str | None


@final
@dataclass(frozen=True, slots=True)
class BatchNorm:
    """(x - mean) / sqrt(variance + eps) * weight + bias over axis 0. Float dialect only."""

    weight: str | None
    bias: str | None
    mean: str
    variance: str
    eps: float


@final
@dataclass(frozen=True, slots=True)
class Affine:
    """gain * x + offset with constants that broadcast against the shape. Float and planned only."""

    gain: str | None
    offset: str | None


@final
@dataclass(frozen=True, slots=True)
class Scale:
    """factor * x with integers that broadcast against the shape. Integer only."""

    factor: str


@final
@dataclass(frozen=True, slots=True)
class AxisMap:
    """y[.., o, ..] = sum_i matrix[o, i] x[.., i, ..] along `axis`: averages, upsampling, index maps.

    `matrix` is [out, in]. Planned: exact real weights are matrix / denominator.
    Integer: `denominator` is 1 and went into the unit.
    """

    axis: int
    matrix: str
    denominator: int = 1


# ---------------------------------------------------------------- linear, without weights
@final
@dataclass(frozen=True, slots=True)
class Add:
    """Signed sum of any number of inputs, which broadcast against each other; signs are +1 or -1."""

    signs: Ints


@final
@dataclass(frozen=True, slots=True)
class Concat:
    """Inputs joined along `axis`."""

    axis: int


@final
@dataclass(frozen=True, slots=True)
class Reshape:
    """The same numbers in row-major order under another shape."""

    shape: Ints


@final
@dataclass(frozen=True, slots=True)
class Permute:
    """Axis i of the result is axis axes[i] of the input."""

    axes: Ints


@final
@dataclass(frozen=True, slots=True)
class Slice:
    """x[start:stop:step] along `axis`, 0 <= start < stop <= size, step >= 1."""

    axis: int
    start: int
    stop: int
    step: int = 1


@final
@dataclass(frozen=True, slots=True)
class Expand:
    """Broadcast to `shape`.

    Integer: to the same shape it does nothing, and says that constants came in here (they are in units and
    biases) which differ from element to element, or do so at another length.
    """

    shape: Ints


@final
@dataclass(frozen=True, slots=True)
class Pad:
    """`value` before and after every axis: pads = (before0, after0, before1, after1, ...), none negative.

    Integer: value is 0.
    """

    pads: Ints
    value: float = 0.0


# ---------------------------------------------------------------- averages, upsampling (become AxisMap)
@final
@dataclass(frozen=True, slots=True)
class AvgPool:
    """Average over windows of the trailing axes, as torch.nn.AvgPool defines it."""

    kernel: Ints
    stride: Ints
    padding: Ints
    ceil: bool = False
    count_include_pad: bool = True
    divisor: int | None = None


@final
@dataclass(frozen=True, slots=True)
class AdaptiveAvgPool:
    """Average over torch's adaptive windows of the trailing axes."""

    size: Ints


@final
@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over `axes`."""

    axes: Ints
    keepdim: bool


@final
@dataclass(frozen=True, slots=True)
class Upsample:
    """Nearest ("nearest") or bilinear/linear ("linear") resizing of the trailing axes to `size`.

    `scales` are the factors the user gave (they matter for the sampling grid), None where a size was given.
    """

    size: Ints
    mode: str
    align_corners: bool = False
    scales: tuple[float | None, ...] = ()


# ---------------------------------------------------------------- non-linear
@final
@dataclass(frozen=True, slots=True)
class Elementwise:
    """One function of every number. Float only; fused into `Quantiser` chains when planned."""

    function: Function


@final
@dataclass(frozen=True, slots=True)
class Mul:
    """Product of two inputs, which broadcast. Integer: a product of counts."""


@final
@dataclass(frozen=True, slots=True)
class MaxPool:
    """Maximum over windows of the trailing axes; padding never wins. Integer: a neuron that tracks it."""

    kernel: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    ceil: bool = False


@final
@dataclass(frozen=True, slots=True)
class AMax:
    """Maximum over `axes`. Integer: a neuron that tracks it."""

    axes: Ints
    keepdim: bool


@final
@dataclass(frozen=True, slots=True)
class Quantiser:
    """A neuron to be, planned dialect: count = clip(round(chain(x) / unit), lo, hi).

    An empty chain is an identity neuron. `per_channel` gives axis 0 a unit per index.
    """

    chain: tuple[Function | Affine, ...]
    lo: int
    hi: int
    per_channel: bool = False
    reason: str = ""


# ---------------------------------------------------------------- outer time
@final
@dataclass(frozen=True, slots=True)
class Recurrence:
    """h[n] = cell(x[n] + weight h[n - 1]) over the elements on axis 0 of [elements, units], h = 0 before.

    `weight` is [units, units]; the cell is an Elementwise (float), a Quantiser (planned) or a Neuron
    (integer) on all of [elements, units]. `reverse`: from the last element to the first. The bias is in x.
    Integer: each element settles before its counts reach the next (RBIF, arXiv 2408.09403).
    """

    weight: str
    cell: Elementwise | Quantiser | Neuron
    reverse: bool = False


# ---------------------------------------------------------------- sinks
@final
@dataclass(frozen=True, slots=True)
class Readout:
    """An output of the network: (x + bias) integers, decoded as scale * integer + offset. Integer dialect.

    All three name tensors that broadcast against the shape; `scale` and `offset` are float64.
    """

    scale: str
    bias: str | None
    offset: str | None


# ---------------------------------------------------------------- host ops, outside the law
@final
@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax over `axis` (log: its logarithm), computed on the decoded output."""

    axis: int
    log: bool = False


@final
@dataclass(frozen=True, slots=True)
class HostFunction:
    """A trailing elementwise function (sigmoid, tanh ...) computed on the decoded output."""

    function: Function


@final
@dataclass(frozen=True, slots=True)
class Argmax:
    """Index of the maximum over `axis` of the decoded output; None: over everything but the batch."""

    axis: int | None
    keepdim: bool = False


Op = (
    Input
    | Conv
    | Linear
    | BatchNorm
    | Affine
    | Scale
    | AxisMap
    | Add
    | Concat
    | Reshape
    | Permute
    | Slice
    | Expand
    | Pad
    | AvgPool
    | AdaptiveAvgPool
    | Mean
    | Upsample
    | Elementwise
    | Mul
    | MaxPool
    | AMax
    | Quantiser
    | Neuron
    | IntegrateFire
    | Recurrence
    | Readout
    | Softmax
    | HostFunction
    | Argmax
)

REARRANGING: tuple[type, ...] = (Reshape, Permute, Slice, Expand, Pad)
"""Ops that move numbers without arithmetic (Pad adds constants)."""

HOST: tuple[type, ...] = (Softmax, HostFunction, Argmax)

_LINEAR: tuple[type, ...] = (Conv, Linear, AxisMap, Add, Concat, *REARRANGING)
SHARED: tuple[type, ...] = (Input, *_LINEAR, Mul, MaxPool, AMax, Recurrence, *HOST)

FLOAT_OPS = frozenset(
    (*SHARED, BatchNorm, Affine, AvgPool, AdaptiveAvgPool, Mean, Upsample, Elementwise),
)
PLANNED_OPS = frozenset((*SHARED, Affine, Quantiser))
INTEGER_OPS = frozenset((*SHARED, Scale, Neuron, Readout))
RATE_OPS = frozenset((*SHARED, Scale, IntegrateFire, Readout)) - {Mul, Recurrence}
SPIKING_OPS = INTEGER_OPS | RATE_OPS
ALL_OPS = FLOAT_OPS | PLANNED_OPS | SPIKING_OPS

EMITTING: tuple[type, ...] = (Neuron, IntegrateFire, MaxPool, AMax, Recurrence)
"""Integer ops that hold a count and emit spikes (Input emits too, when it is encoded as spikes)."""
