"""How kernels are compiled: without the interpreter lock, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])
_njit: Any = numba.njit


def _sources() -> tuple[tuple[str, int, int], ...]:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple((each.name, each.stat().st_mtime_ns, each.stat().st_size) for each in files)


_STAMP = _sources()


def _kept(function: F, **options: bool) -> F:
    """Kept code is good while no file of the engine changes; numba looks at the function's own file alone."""
    made = _njit(cache=True, nogil=True, **options)(function)
    with suppress(AttributeError):  # another numba may keep its stamp elsewhere
        made._cache._cache_file._source_stamp = _STAMP
    found: F = made
    return found


def compiled(function: F) -> F:
    """Machine code for this function, made at its first call and kept on disk; it makes no arrays.

    Without numba's counting of references: it costs more than these kernels do when arrays pass a call.
    """
    return _kept(function, _nrt=False, forceinline=True)


def entry(function: F) -> F:
    """The same for functions that Python calls."""
    return _kept(function)
