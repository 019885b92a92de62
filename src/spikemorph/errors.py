"""Everything that spikemorph raises on purpose.

    SpikemorphError
    ├── CaptureError          the model cannot be captured (also a ValueError)
    │   └── UnsupportedOps    every operation that has no spiking form, all at once
    ├── DataError             inputs, labels, calibration data (also a ValueError)
    │   └── MissingData       a named data set that is not on this machine
    ├── LevelsError           levels, bits, budgets out of range (also a ValueError)
    ├── GraphError            a graph that breaks the rules of its dialect
    ├── FileError             a network file that cannot be trusted or read
    ├── RunError              a simulation that was asked for the impossible
    └── UsageError            arguments of the wrong kind, command line, model references

CalibrationWarning is a warning: calibration data that says too little. Every message has four parts: where,
got, known, do.
"""

from __future__ import annotations


class SpikemorphError(Exception):
    """Root of all errors; the message is built from four parts.

    Args:
        where: the place the user knows: module path, file, argument.
        got: what was met there.
        known: what would have been right.
        do: the next thing to try.
    """

    def __init__(self, *, where: str, got: str, known: str, do: str) -> None:
        self.where, self.got, self.known, self.do = where, got, known, do
        super().__init__(_block(where, got, known, do))


def _block(where: str, got: str, known: str, do: str) -> str:
    return f"{where}: {got}\n  known: {known}\n  do:    {do}"


class CalibrationWarning(UserWarning):
    """Calibration data that says too little: samples few, all alike, repeated or without contrast."""

    def __init__(self, *, where: str, got: str, known: str, do: str) -> None:
        self.where, self.got, self.known, self.do = where, got, known, do
        super().__init__(_block(where, got, known, do))


class CaptureError(SpikemorphError, ValueError):
    """The model cannot be captured."""


class DataError(SpikemorphError, ValueError):
    """Inputs, labels or calibration data do not fit."""


class MissingData(DataError):
    """A named data set is not on this machine."""


class LevelsError(SpikemorphError, ValueError):
    """Levels, bits or budgets are out of range."""


class GraphError(SpikemorphError, ValueError):
    """A graph breaks the rules of its dialect."""


class FileError(SpikemorphError, ValueError):
    """A network file cannot be trusted or read."""


class RunError(SpikemorphError, ValueError):
    """A simulation was asked for something impossible."""


class UsageError(SpikemorphError, ValueError):
    """An argument of the wrong kind, on the command line or in Python."""


def expect(where: str, value: object, kinds: tuple[type, ...], do: str) -> None:
    """Nothing, where the value is of one of these kinds.

    Raises:
        UsageError: it is of another.
    """
    if not isinstance(value, kinds):
        got = f"the class {value.__name__} itself" if isinstance(value, type) else type(value).__name__
        raise UsageError(where=where, got=got, known=" or ".join(kind.__name__ for kind in kinds), do=do)


class Offence(SpikemorphError):
    """One operation that cannot be converted; collected into `UnsupportedOps`."""


class UnsupportedOps(CaptureError):
    """Every operation of a model that has no spiking form, all at once."""

    def __init__(self, offences: tuple[Offence, ...]) -> None:
        self.offences = offences
        listing = "\n".join(f"  - {offence}".replace("\n", "\n  ") for offence in offences)
        super().__init__(
            where="the model",
            got=f"{len(offences)} operation(s) without a spiking form:\n{listing}",
            known="`spikemorph inspect` lists every operation and its fate",
            do="change the operations above; nothing was converted",
        )
