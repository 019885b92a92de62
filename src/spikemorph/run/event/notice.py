"""Says on stderr that the kernels are being compiled, which takes a while and happens once."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any


@cache
def announce(kernel: Any) -> None:
    """One line before the first call that has to compile; looked at once, for looking takes time."""
    if not kernel.signatures and not _kept(kernel):
        sys.stderr.write("spikemorph: compiling the event engine, once, for about half a minute\n")


def _kept(kernel: Any) -> bool:
    """Whether compiled code of this very source lies on disk."""
    try:
        return bool(kernel._cache._cache_file._load_index())
    except (AttributeError, OSError):  # numba keeps it elsewhere: then nothing is said
        return True
