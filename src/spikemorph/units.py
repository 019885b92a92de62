"""Units and axes as types, so that a signature says what a number is."""

from __future__ import annotations

from enum import Enum
from typing import NewType

Steps = NewType("Steps", int)
"""Ticks of the spiking network (inner time)."""

Seconds = NewType("Seconds", float)
Joules = NewType("Joules", float)


class Axis(Enum):
    """What an axis of a value means. The batch axis is in front and never part of a shape."""

    POSITION = "position"
    ELEMENT = "element"
    """Outer time: pixel, frame or token of a sequence."""
