"""How kernels are compiled: without the interpreter lock, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Machine code for this function, made at its first call and kept on disk; it makes no arrays.

    Without numba's counting of references: it costs more than these kernels do when arrays pass a call.
    """
    compiler: Any = numba.njit(cache=True, nogil=True, _nrt=False)
    made: F = compiler(function)
    return made


def entry(function: F) -> F:
    """The same for functions that Python calls."""
    compiler: Any = numba.njit(cache=True, nogil=True)
    made: F = compiler(function)
    return made
