"""The user's own .npz files: what is taken, and what is refused in which words."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikemorph.data import load_file
from spikemorph.errors import DataError


def saved(tmp_path: Path, **arrays: object) -> Path:
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_become_float32(tmp_path: Path, dtype: str) -> None:
    held = np.linspace(-2, 2, 12).reshape(3, 2, 2).astype(dtype)
    x, y = load_file(saved(tmp_path, x=held))
    assert y is None
    assert x.dtype == torch.float32
    assert x.numpy().tobytes() == held.astype(np.float32).tobytes()


def test_bytes_are_scaled(tmp_path: Path) -> None:
    held = np.arange(256, dtype=np.uint8).reshape(4, 64)
    x, _ = load_file(str(saved(tmp_path, x=held)))
    expected = np.array([np.float32(each) / np.float32(255) for each in range(256)], np.float32)
    assert x.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "uint64", ">i4"])
def test_whole_labels_become_int64(tmp_path: Path, dtype: str) -> None:
    held = np.array([3, 0, 7], dtype)
    _, y = load_file(saved(tmp_path, x=np.zeros((3, 2), np.float32), y=held, extra=np.array(["not", "read"])))
    assert y is not None
    assert (y.dtype, y.tolist()) == (torch.int64, [3, 0, 7])


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2, 2)])
def test_targets_of_a_regression_become_float32(tmp_path: Path, shape: tuple[int, ...]) -> None:
    held = np.linspace(-1, 1, math.prod(shape)).reshape(shape)
    _, y = load_file(saved(tmp_path, x=np.zeros((3, 2), np.float32), y=held))
    assert y is not None
    assert y.dtype == torch.float32
    assert torch.equal(y, torch.from_numpy(held.astype(np.float32)))


ONES = np.ones((3, 2), np.float32)
NOT_FINITE = np.array([[1, 2], [3, np.nan], [np.inf, 0]], np.float32)


@pytest.mark.parametrize(
    ("arrays", "got"),
    [
        ({"images": ONES}, "no array x, only images"),
        ({"y": np.zeros(3, int)}, "no array x, only y"),
        ({}, "no array x, only nothing"),
        ({"x": NOT_FINITE}, "2 of 6 numbers of x not finite, the first, nan, at [1, 1]"),
        ({"x": np.array([[1e39]])}, "1 of 1 numbers of x not finite, the first, 1e+39, at [0, 0]"),
        ({"x": np.ones((3, 2), np.int64)}, "x of dtype int64"),
        ({"x": np.ones((3, 2), bool)}, "x of dtype bool"),
        ({"x": np.ones((3, 2), complex)}, "x of dtype complex128"),
        ({"x": np.array(["a"])}, "x of dtype <U1"),
        ({"x": np.array([None])}, "not readable: Object arrays"),
        ({"x": np.float32(1)}, "x of shape []: no sample"),
        ({"x": np.ones((0, 2), np.float32)}, "x of shape [0, 2]: no sample"),
        ({"x": ONES, "y": np.zeros(2, int)}, "y of shape [2] beside 3 samples"),
        ({"x": ONES, "y": np.zeros((3, 1), int)}, "y of shape [3, 1] beside 3 samples"),
        ({"x": ONES, "y": np.zeros(2)}, "y of shape [2] beside 3 samples"),
        ({"x": ONES, "y": np.float32(1)}, "y of shape [] beside 3 samples"),
        ({"x": ONES, "y": np.array([0, np.nan, 1])}, "1 of 3 numbers of y not finite, the first, nan"),
        ({"x": ONES, "y": np.zeros(3, bool)}, "y of dtype bool"),
        ({"x": ONES, "y": np.full(3, 2**64 - 1, np.uint64)}, "label 18446744073709551615"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, object], got: str) -> None:
    path = saved(tmp_path, **arrays)
    with pytest.raises(DataError) as met:
        load_file(path)
    assert met.value.where == str(path)
    assert met.value.got.startswith(got)
    assert "x [n, ...]" in met.value.known
    assert met.value.do


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    array, pickled, empty = tmp_path / "x.npy", tmp_path / "x.npz", tmp_path / "empty.npz"
    np.save(array, ONES)
    pickled.write_bytes(b"\x80\x04K\x01.")  # the number 1 as a pickle
    empty.touch()
    for path in (array, pickled, empty):
        with pytest.raises(DataError, match="not readable"):
            load_file(path)
    with pytest.raises(DataError, match="no such file"):
        load_file(tmp_path / "none.npz")
    with pytest.raises(DataError, match="a folder"):
        load_file(tmp_path)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(DataError, match="x is a file of another kind"):
        load_file(path)


@given(st.data())
def test_damage_is_a_data_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    held = bytearray(saved(folder, x=ONES, y=np.zeros(3, int)).read_bytes())
    cut = data.draw(st.integers(0, len(held)))
    place = data.draw(st.integers(0, len(held) - 1))
    held[place] ^= data.draw(st.integers(0, 255))
    path = folder / "damaged.npz"
    path.write_bytes(held[:cut] if data.draw(st.booleans()) else held)
    try:
        x, _ = load_file(path)
    except DataError:
        return
    assert x.shape == (3, 2)
