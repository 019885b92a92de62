"""The idx format of MNIST: two zero bytes, a type code, the rank, big-endian uint32 sizes, the elements."""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from spikemorph.errors import DataError

UNSIGNED_BYTE = 8
_HEAD = 4


def parse(content: bytes, where: str) -> NDArray[np.uint8]:
    """The array of unsigned bytes that an idx file holds.

    Args:
        where: the file, for messages.

    Raises:
        DataError: no idx file, another element type, or another length than its sizes say.
    """
    if len(content) < _HEAD or content[:2] != b"\0\0":
        raise _damaged(where, f"a file that begins with {content[:_HEAD].hex(' ') or 'nothing'}")
    kind, rank = content[2], content[3]
    if kind != UNSIGNED_BYTE:
        raise _damaged(where, f"elements of type 0x{kind:02x}")
    start = _HEAD + 4 * rank
    if len(content) < start:
        raise _damaged(where, f"{rank} axes, but the file ends before their sizes")
    shape = struct.unpack(f">{rank}I", content[_HEAD:start])
    if len(content) - start != math.prod(shape):
        raise _damaged(where, f"sizes {list(shape)}, but {len(content) - start} bytes after them")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _damaged(where: str, got: str) -> DataError:
    return DataError(
        where=where,
        got=got,
        known="an idx file of unsigned bytes (00 00 08 RANK, sizes, bytes), plain or as .gz",
        do="delete the file; a named data set is fetched again when it is loaded",
    )
