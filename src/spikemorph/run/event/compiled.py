"""How kernels are compiled: without the interpreter lock, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


_njit: Any = numba.njit


def compiled(function: F) -> F:
    """Machine code for this function, made at its first call and kept on disk; it makes no arrays.

    Without numba's counting of references: it costs more than these kernels do when arrays pass a call.
    """
    made: F = _njit(cache=True, nogil=True, _nrt=False)(function)
    return made


def entry(function: F) -> F:
    """The same for functions that Python calls."""
    made: F = _njit(cache=True, nogil=True)(function)
    return made
