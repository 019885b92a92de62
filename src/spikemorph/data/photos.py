"""1,000 photos of ImageNet, one a class, short side 256 pixels.

O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015. They are probably
training photos: the absolute accuracy of a network trained on ImageNet is optimistic, differences count.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from spikemorph.data.archive import Archive
from spikemorph.data.dataset import Dataset, Split
from spikemorph.errors import MissingData

ARCHIVE = Archive(
    name="imagenet-photos",
    file="imagenet_1000_256.tar",
    sha256="fe546db59485c88e039b18e5be913f093f974b158dc7d6550a8a46e4f292d67c",
    do="put the archive of 1,000 photos NNNN_wnid_name.jpg there",
)
CLASSES = 1000
CROP = 224


@final
@dataclass(frozen=True, slots=True)
class Normal:
    """How a network wants its pixels: (value - mean) / spread of values in 0..1, channel by channel."""

    mean: tuple[float, float, float]
    spread: tuple[float, float, float]

    @property
    def step(self) -> tuple[float, float, float]:
        """What one step of an 8-bit pixel is, in normalised values."""
        red, green, blue = (1 / (255 * each) for each in self.spread)
        return red, green, blue


TORCHVISION = Normal((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""As torchvision's networks were trained."""
EFFICIENTNET_LITE = Normal((127 / 255,) * 3, (128 / 255,) * 3)
"""(pixel - 127) / 128 of pixels 0..255: one grid for all channels, its step 1/128."""


def load_photos(split: Split, *, samples: int | None = None, normal: Normal = TORCHVISION) -> Dataset:
    """Centre crops float32 [n, 3, 224, 224], normalised as the network wants them.

    Photos of even classes are for calibration (`Split.VALIDATION`), those of odd classes for testing; there
    are no training photos.

    Args:
        samples: at most so many, spread evenly over the classes; None: all 500.

    Raises:
        MissingData: the file is in none of the folders with data sets, or Pillow is not installed, or the
            training part is wanted.
        DataError: it has another checksum.
    """
    if split is Split.TRAIN:
        raise MissingData(
            where="data set imagenet-photos",
            got="the training part",
            known="500 photos for calibration (validation) and 500 for testing",
            do="load one of these, or bring ImageNet itself as a folder of class folders",
        )
    labels = np.arange(0 if split is Split.VALIDATION else 1, CLASSES, 2)
    if samples is not None and samples < len(labels):
        labels = labels[np.linspace(0, len(labels) - 1, samples).astype(np.int64)]
    pixels, names = _read(ARCHIVE.found(), labels.tolist())
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32).div_(255)
    x = x.sub_(torch.tensor(normal.mean).reshape(3, 1, 1)).div_(torch.tensor(normal.spread).reshape(3, 1, 1))
    return Dataset(x.contiguous(), torch.from_numpy(labels.copy()), "imagenet-photos", split, names)


def _read(path: Path, labels: list[int]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Photos [n, 224, 224, 3] of some classes, and the names of all classes."""
    with tarfile.open(path) as archive:
        members = {int(member.name[:4]): member for member in archive.getmembers() if member.isfile()}
        names = tuple(Path(members[label].name).stem.split("_", 2)[2] for label in range(CLASSES))
        photos = [_cropped(archive.extractfile(members[label])) for label in labels]
    return np.stack(photos), names


def _cropped(content: IO[bytes] | None) -> NDArray[np.uint8]:
    decoder = ARCHIVE.pillow()
    source: Any = content
    with decoder.open(source) as image:
        left, top = (round((size - CROP) / 2) for size in image.size)
        return np.asarray(image.convert("RGB").crop((left, top, left + CROP, top + CROP)), dtype=np.uint8)
