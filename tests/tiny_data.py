"""A data set of fifty images of 3x2 pixels, in every form in which files come."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

from spikemorph.data.named import DataFile, Debian, IdxSource, Labelled, Npm, Web

TRAIN, TEST = 40, 10


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def contents() -> dict[str, bytes]:
    """Files of a tiny set: 3x2 images that hold their own number, labels its last digit."""
    made = {}
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        images = np.arange(count, dtype=np.uint8).repeat(6).reshape(count, 3, 2)
        made[f"{part}-images"] = idx(images)
        made[f"{part}-labels"] = idx(np.arange(count, dtype=np.uint8) % 10)
    return made


def tiny(*ways: Npm | Debian | Web, installed: tuple[Path, ...] = ()) -> IdxSource:
    files = {
        name: DataFile(name, hashlib.sha256(held).hexdigest(), len(held)) for name, held in contents().items()
    }
    return IdxSource(
        name="tiny",
        licence="none",
        origin="this test",
        classes=tuple("0123456789"),
        train=Labelled(files["train-images"], files["train-labels"], TRAIN),
        test=Labelled(files["t10k-images"], files["t10k-labels"], TEST),
        folders=("tiny", "Tiny/raw"),
        installed=installed,
        ways=ways,
    )


def lay(folder: Path, *, packed: bool = False) -> Path:
    """Write the tiny set into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, held in contents().items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(held))
        else:
            (folder / name).write_bytes(held)
    return folder
