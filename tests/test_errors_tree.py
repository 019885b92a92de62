"""The exception tree: its drawing, its builtin bases, the four parts of a message."""

from __future__ import annotations

import inspect
import re

import pytest

from spikemorph import errors
from spikemorph.errors import CalibrationWarning, CaptureError, Offence, SpikemorphError, UnsupportedOps

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if not issubclass(each, Warning)]
PARTS = {"where": "conv1 (net.py:31)", "got": "aten.erfinv", "known": "relu, gelu", "do": "swap it"}


def drawn() -> dict[str, str]:
    """Each class of the drawing in the module's docstring, and the class it hangs from."""
    parents: dict[str, str] = {}
    path: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if met := re.match(r"[\s│├└─]*([A-Z]\w*(?:Error|Data|Ops))\b", line):
            path[met.start(1)] = met[1]
            above = [indent for indent in path if indent < met.start(1)]
            if above:
                parents[met[1]] = path[max(above)]
    return parents


def test_the_drawing_is_the_tree() -> None:
    public = {each.__name__: each.__bases__[0].__name__ for each in CLASSES}
    del public["SpikemorphError"], public["Offence"]  # an Offence is never raised by itself
    assert drawn() == public


@pytest.mark.parametrize("error", CLASSES)
def test_all_errors_have_one_root_and_a_builtin_base(error: type[Exception]) -> None:
    assert issubclass(error, SpikemorphError)
    assert issubclass(error, ValueError) or error in {SpikemorphError, Offence}


FOUR_PARTS = [*(each for each in CLASSES if each is not UnsupportedOps), CalibrationWarning]


@pytest.mark.parametrize("error", FOUR_PARTS)
def test_a_message_has_four_parts(error: type[SpikemorphError]) -> None:
    met = error(**PARTS)
    assert str(met) == "conv1 (net.py:31): aten.erfinv\n  known: relu, gelu\n  do:    swap it"
    assert {part: getattr(met, part) for part in PARTS} == PARTS


def test_unsupported_operations_are_all_listed() -> None:
    met = UnsupportedOps((Offence(**PARTS), Offence(**{**PARTS, "where": "conv2"})))
    assert isinstance(met, CaptureError)
    assert len(met.offences) == 2
    assert str(met).startswith(
        "the model: 2 operation(s) without a spiking form:\n"
        "  - conv1 (net.py:31): aten.erfinv\n"
        "    known: relu, gelu\n"
        "    do:    swap it\n"
        "  - conv2: aten.erfinv\n"
    )
