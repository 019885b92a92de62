"""CIFAR-10 as JPEG files in one archive: recompressed, so not bit for bit the images of the official set.

A. Krizhevsky, Learning multiple layers of features from tiny images, 2009. The archive holds `jpeg`, all
files one behind the other, `end`, where each ends, `label`, `train` and `classes`.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spikemorph.data.archive import Archive
from spikemorph.data.dataset import Dataset, Split
from spikemorph.data.pixels import unit_range

ARCHIVE = Archive(
    name="cifar10",
    file="cifar10_jpeg.npz",
    sha256="25c131a8fd38fd265073c4d1230a0b1773d432c082fa35d683b83ef907782cac",
    do="put the archive of 60,000 JPEG images there",
)
_PARTS = 10


def load_cifar10(split: Split) -> Dataset:
    """Images float32 [n, 3, 32, 32] in 0..1: 45,000 train, 5,000 validation, 10,000 test.

    A tenth of the official training part, drawn with seed 0, is validation.

    Raises:
        MissingData: the file is in none of the folders with data sets, or Pillow is not installed.
        DataError: it has another checksum.
    """
    images, labels, train, classes = _decoded(ARCHIVE.found())
    official = np.flatnonzero(train if split is not Split.TEST else ~train)
    if split is not Split.TEST:
        order = np.random.default_rng(0).permutation(len(official))
        held_out = len(official) // _PARTS
        official = official[order[:held_out] if split is Split.VALIDATION else order[held_out:]]
    x = unit_range(images[official].transpose(0, 3, 1, 2))
    return Dataset(
        x=torch.from_numpy(np.ascontiguousarray(x)),
        y=torch.from_numpy(labels[official].astype(np.int64)),
        name="cifar10",
        split=split,
        classes=classes,
    )


@lru_cache(maxsize=1)
def _decoded(
    path: Path,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_], tuple[str, ...]]:
    """Images [60000, 32, 32, 3], labels, which are training images, names of the classes."""
    decoder = ARCHIVE.pillow()
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files}
    files, ends = content["jpeg"].tobytes(), [0, *content["end"].tolist()]
    images = np.empty((len(ends) - 1, 32, 32, 3), dtype=np.uint8)
    for i in range(len(images)):
        with decoder.open(io.BytesIO(files[ends[i] : ends[i + 1]])) as image:
            images[i] = np.asarray(image.convert("RGB"))
    classes = tuple(str(each) for each in content["classes"])
    return images, content["label"], content["train"].astype(bool), classes
