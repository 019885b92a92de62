"""CamVid: street scenes from a car with a label for every pixel, halved to 240 x 180.

G. Brostow, J. Fauqueur, R. Cipolla, Semantic object classes in video, Pattern Recognition Letters 2009; the
eleven classes and the split of V. Badrinarayanan et al., SegNet, TPAMI 2017. CC BY-NC: never committed.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikemorph.data.archive import Archive
from spikemorph.data.dataset import Split
from spikemorph.data.photos import TORCHVISION

ARCHIVE = Archive(
    name="camvid",
    file="camvid_240x180.tar",
    sha256="5d5b8af6839ecb09a03d6872f6d3159e95993f8deb087b5429687d1da3820176",
    do="put the archive of 701 photos {train,val,test}/NAME.png with {train,val,test}annot/NAME.png there",
)
CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
VOID = len(CLASSES)
"""The label of pixels that belong to no class."""
_FOLDERS = {Split.TRAIN: "train", Split.VALIDATION: "val", Split.TEST: "test"}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """Photos with a label for every pixel.

    Args:
        x: float32 [n, 3, 180, 240], normalised as torchvision's networks take them.
        y: int64 [n, 180, 240] in 0..11, 11 is void.
    """

    x: Tensor
    y: Tensor
    name: str
    split: Split

    def at(self, places: Tensor) -> Scenes:
        """Some scenes, by whole numbers [n] from 0 on."""
        return replace(self, x=self.x[places], y=self.y[places])

    def __len__(self) -> int:
        return len(self.x)


def load_camvid(split: Split) -> Scenes:
    """367 scenes for training, 101 for validation, 233 for testing: the usual split.

    Raises:
        MissingData: the file is in none of the folders with data sets, or Pillow is not installed.
        DataError: it has another checksum.
    """
    folder = _FOLDERS[split]
    photos, labels = _read(ARCHIVE.found(), folder), _read(ARCHIVE.found(), f"{folder}annot")
    return Scenes(normalised(photos), torch.from_numpy(labels).long(), "camvid", split)


def normalised(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels [n, height, width, 3] in 0..255 as float32 [n, 3, height, width] of a network's input."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32).div_(255)
    x = x.sub_(torch.tensor(TORCHVISION.mean).reshape(3, 1, 1))
    x = x.div_(torch.tensor(TORCHVISION.spread).reshape(3, 1, 1))
    return x.contiguous()


def _read(path: Path, folder: str) -> NDArray[np.uint8]:
    """Images of a folder in the order of their names, [n, 180, 240] or [n, 180, 240, 3]."""
    with tarfile.open(path) as archive:
        members = sorted(
            (each for each in archive.getmembers() if each.name.split("/")[-2:-1] == [folder]),
            key=lambda each: each.name,
        )
        return np.stack([_decoded(archive.extractfile(each)) for each in members if each.isfile()])


def _decoded(content: IO[bytes] | None) -> NDArray[np.uint8]:
    source: Any = content
    with ARCHIVE.pillow().open(source) as image:
        return np.asarray(image if image.mode == "L" else image.convert("RGB"), dtype=np.uint8)
