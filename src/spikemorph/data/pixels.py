"""Bytes as numbers in 0..1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unit_range(values: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32(byte) / 255, correctly rounded: the same bits on every machine."""
    return values.astype(np.float32) / np.float32(255)
