"""The user's own data: a .npz file with `x` and perhaps `y`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikemorph.data.pixels import unit_range
from spikemorph.errors import DataError

Array = NDArray[Any]

_KNOWN = (
    ".npz with x [n, ...] (float16/32/64, or uint8, read as x/255) and perhaps y: classes [n] (whole "
    "numbers) or targets [n, ...] (float16/32/64)"
)


def load_file(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Samples x, float32 [n, ...], and labels y, or None where the file has none.

    Labels are classes, int64 [n], or what a regression aims at, float32 [n, ...].

    uint8 samples are scaled to 0..1. Other arrays of the file are not read.

    Raises:
        DataError: not a .npz file, no `x`, dtypes other than those above, no sample, NaN or infinite
            numbers (also by the step to float32), or another number of labels than of samples.
    """
    path = Path(path)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise _bad(path, got, "name a .npz file, or a data set that spikemorph.data.sources() lists")
    arrays = _arrays(path)
    x = _samples(path, arrays["x"])
    y = _labels(path, arrays["y"], len(x)) if "y" in arrays else None
    return torch.from_numpy(x), None if y is None else torch.from_numpy(y)


def _arrays(path: Path) -> dict[str, Array]:
    """Array x, and y if there is one."""
    again = "save it again with numpy.savez(path, x=samples, y=labels)"
    try:
        names, arrays = _read(path)
    except Exception as error:  # zip, deflate and npy readers raise a dozen types on damaged files
        raise _bad(path, f"not readable: {error}", again) from error
    if "x" not in arrays:
        raise _bad(path, f"no array x, only {', '.join(names) or 'nothing'}", again)
    if foreign := [name for name, each in arrays.items() if not isinstance(each, np.ndarray)]:
        raise _bad(path, f"{foreign[0]} is a file of another kind, no array", again)
    return arrays


def _read(path: Path) -> tuple[list[str], dict[str, Array]]:
    """Names of all arrays, and those of x and y that are there."""
    with zipfile.ZipFile(path) as archive:  # numpy.load alone would also take a .npy
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    with np.load(path, allow_pickle=False) as file:
        return names, {name: file[name] for name in ("x", "y") if name in names}


def _samples(path: Path, x: Array) -> NDArray[np.float32]:
    if x.ndim == 0 or len(x) == 0:
        raise _bad(path, f"x of shape {list(x.shape)}: no sample", "give x one sample a row")
    if x.dtype == np.uint8:
        return unit_range(x)
    if x.dtype.kind != "f":
        raise _bad(path, f"x of dtype {x.dtype}", "convert it: x.astype('float32')")
    return _numbers(path, "x", x)


def _numbers(path: Path, name: str, array: Array) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, np.float32)
    bad = np.argwhere(~np.isfinite(converted))
    if len(bad):
        first = tuple(int(each) for each in bad[0])
        got = f"{len(bad)} of {array.size} numbers of {name} not finite, the first, {array[first]}, at "
        do = "drop those samples, or fill them in; float32 ends at 3.4e38"
        raise _bad(path, f"{got}{list(first)}", do)
    return converted


def _labels(path: Path, y: Array, samples: int) -> NDArray[np.int64] | NDArray[np.float32]:
    if y.dtype.kind not in "iuf":
        raise _bad(path, f"y of dtype {y.dtype}", "give each sample the index of its class, as int64")
    if y.shape[:1] != (samples,) or (y.ndim != 1 and y.dtype.kind != "f"):
        raise _bad(path, f"y of shape {list(y.shape)} beside {samples} samples", "give each sample one label")
    if y.dtype.kind == "f":
        return _numbers(path, "y", y)
    if y.dtype == np.uint64 and y.max() > np.iinfo(np.int64).max:
        raise _bad(path, f"label {y.max()}", "labels must fit 64 bits with sign")
    return np.ascontiguousarray(y, np.int64)


def _bad(path: Path, got: str, do: str) -> DataError:
    return DataError(where=str(path), got=got, known=_KNOWN, do=do)
