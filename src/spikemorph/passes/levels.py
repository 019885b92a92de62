"""How finely a network is quantised: frozen choices with their own checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from spikemorph.errors import LevelsError
from spikemorph.ir.encoding import Analog


def _whole(where: str, value: object, lo: int, hi: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not lo <= value <= hi:
        raise LevelsError(
            where=where,
            got=repr(value),
            known=f"a whole number in {lo}..{hi}",
            do="choose a value inside the range; 2-bit activations are activation=3",
        )


def _kind(where: str, value: object, kinds: tuple[type, ...]) -> None:
    if not isinstance(value, kinds):
        raise LevelsError(
            where=where,
            got=repr(value),
            known=", ".join(f"{kind.__name__}(...)" for kind in kinds),
            do="pass one of these; they are in spikemorph.levels",
        )


@final
@dataclass(frozen=True, slots=True)
class PerTensor:
    """One unit for a whole activation."""


@final
@dataclass(frozen=True, slots=True)
class PerChannel:
    """A unit for each channel (axis 0) wherever every consumer can absorb it, one unit elsewhere."""


@final
@dataclass(frozen=True, slots=True)
class Max:
    """The grid reaches the largest value seen."""


@final
@dataclass(frozen=True, slots=True)
class Percentile:
    """The grid reaches this percentile of the non-zero magnitudes seen.

    Raises:
        LevelsError: not in (0, 100].
    """

    percent: float = 99.9

    def __post_init__(self) -> None:
        real = isinstance(self.percent, int | float) and not isinstance(self.percent, bool)
        if not real or not 0 < self.percent <= 100:
            raise LevelsError(
                where="Percentile(percent)",
                got=repr(self.percent),
                known="a number in (0, 100]",
                do="use 99.9 for activations",
            )


@final
@dataclass(frozen=True, slots=True)
class LeastSquares:
    """The grid with the smallest squared error on what was seen."""


Observer = Max | Percentile | LeastSquares
Granularity = PerTensor | PerChannel


@final
@dataclass(frozen=True, slots=True)
class Override:
    """Levels of one module; None keeps the network's.

    Raises:
        LevelsError: out of range.
    """

    activation: int | None = None
    weight_bits: int | None = None

    def __post_init__(self) -> None:
        if self.activation is not None:
            _whole("Override(activation)", self.activation, 1, 255)
        if self.weight_bits is not None:
            _whole("Override(weight_bits)", self.weight_bits, 2, 8)


@final
@dataclass(frozen=True)
class Levels:
    """How many levels every count and weight has.

    Args:
        activation: p, 1..255: counts 0..p where an activation is never negative, else -ceil(p/2)..ceil(p/2).
        weight_bits: 2..8: integers -(2**(bits-1) - 1) .. 2**(bits-1) - 1, a step for each output channel.
        identity: p of inserted identity neurons, None: the larger of `activation` and 15.
        observer: how calibration chooses the units of activations; LeastSquares clips rare extremes for a
            finer grid, Max keeps them and is closest in the worst case at many levels.
        weight_observer: the same for the steps of weights.
        granularity: of activation units.
        input: the grid of the input.
        skip_bits: how finely the branches of a sum share one grid, 4..15.
        overrides: by module path; a path covers everything below it.

    Raises:
        LevelsError: out of range.
    """

    activation: int = 15
    weight_bits: int = 8
    identity: int | None = None
    observer: Observer = LeastSquares()
    weight_observer: Observer = LeastSquares()
    granularity: Granularity = PerTensor()
    input: Analog = Analog()
    skip_bits: int = 8
    overrides: Mapping[str, Override] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _whole("Levels(activation)", self.activation, 1, 255)
        _whole("Levels(weight_bits)", self.weight_bits, 2, 8)
        _whole("Levels(skip_bits)", self.skip_bits, 4, 15)
        if self.identity is not None:
            _whole("Levels(identity)", self.identity, 1, 255)
        _kind("Levels(observer)", self.observer, (Max, Percentile, LeastSquares))
        _kind("Levels(weight_observer)", self.weight_observer, (Max, Percentile, LeastSquares))
        _kind("Levels(granularity)", self.granularity, (PerTensor, PerChannel))
        _kind("Levels(input)", self.input, (Analog,))
        if not isinstance(self.overrides, Mapping):
            raise LevelsError(
                where="Levels(overrides)",
                got=repr(self.overrides),
                known="a mapping from module path to Override(...)",
                do='use {"features.0": Override(weight_bits=8)}',
            )
        for path, each in self.overrides.items():
            _kind(f"Levels(overrides), {path!r}", each, (Override,))

    def activation_of(self, module: str) -> int:
        """p of the neurons of a module."""
        chosen = self._override(module).activation
        return self.activation if chosen is None else chosen

    def identity_of(self, module: str) -> int:
        """p of identity neurons inserted at a module."""
        chosen = self._override(module).activation
        if chosen is not None:
            return chosen
        return max(self.activation, 15) if self.identity is None else self.identity

    def weight_bits_of(self, module: str) -> int:
        """Bits of the weights of a module."""
        chosen = self._override(module).weight_bits
        return self.weight_bits if chosen is None else chosen

    def largest_weight(self, module: str) -> int:
        """The largest integer weight of a module."""
        return int(2 ** (self.weight_bits_of(module) - 1) - 1)

    def _override(self, module: str) -> Override:
        """The override of the longest path that covers the module."""
        fitting = [path for path in self.overrides if module == path or module.startswith(path + ".")]
        return self.overrides[max(fitting, key=len)] if fitting else Override()


def count_range(p: int, *, signed: bool) -> tuple[int, int]:
    """(lo, hi) of counts with p levels above zero: 0..p, or -ceil(p/2)..ceil(p/2)."""
    half = -(-p // 2)
    return (-half, half) if signed else (0, p)
