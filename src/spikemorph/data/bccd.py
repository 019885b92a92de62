"""BCCD: microscope images of blood with a box around every cell (MIT licence).

S. Cheng and N. Anton, https://github.com/Shenggan/BCCD_Dataset. 364 images of 640x480 pixels, boxes in the
form of PASCAL VOC, the authors' split. A platelet is about 40 pixels wide, a red cell 105, a white cell 200.
"""

from __future__ import annotations

import io
import tarfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikemorph.data.archive import Archive
from spikemorph.data.dataset import Split
from spikemorph.data.pixels import unit_range
from spikemorph.errors import DataError

ARCHIVE = Archive(
    name="bccd",
    file="bccd.tar",
    sha256="facd7824f26ebbf103afe1382dbf20bdbfecca4ba61d1c0c3766efe780f03d0e",
    do="put an archive of the folders Annotations, ImageSets and JPEGImages there",
)
CLASSES = ("RBC", "WBC", "Platelets")
HEIGHT, WIDTH = 480, 640
"""Of the files."""

_LISTS = {Split.TRAIN: "train", Split.VALIDATION: "val", Split.TEST: "test"}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Boxed:
    """Images and the boxes in them.

    Args:
        x: float32 [n, 3, height, width] in 0..1.
        boxes: of every image, float32 [boxes, 4]: left, top, right, bottom in pixels of `x`.
        labels: of every image, int64 [boxes], each the index of a class.

    Raises:
        DataError: not one set of boxes and labels an image, or not one label a box.
    """

    x: Tensor
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    name: str
    split: Split
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        shapes = [(tuple(box.shape), len(label)) for box, label in zip(self.boxes, self.labels, strict=False)]
        fit = all(box == (label, 4) for box, label in shapes)
        if fit and len(self.x) == len(self.boxes) == len(self.labels):
            return
        raise DataError(
            where=f"data set {self.name}, {self.split.value}",
            got=f"{len(self.x)} images, {len(self.boxes)} sets of boxes, {len(self.labels)} of labels",
            known="for every image boxes [k, 4] and labels [k]",
            do="give an image without objects boxes [0, 4]",
        )

    def first(self, samples: int) -> Boxed:
        """The first images, in their own order."""
        part = slice(samples)
        return replace(self, x=self.x[part], boxes=self.boxes[part], labels=self.labels[part])

    def __len__(self) -> int:
        return len(self.x)


def load_bccd(split: Split, *, shrink: int = 2) -> Boxed:
    """Images [n, 3, 480 / shrink, 640 / shrink] with boxes of red cells, white cells and platelets.

    There are 205 train, 87 validation and 72 test images, as the authors split them. Two boxes of the set
    have no extent; they are left out.

    Args:
        shrink: pixels of the file along one of ours, whose mean it is; boxes shrink alike.

    Raises:
        MissingData: the file is in none of the folders with data sets, or Pillow is not installed.
        DataError: it has another checksum.
    """
    with tarfile.open(ARCHIVE.found()) as archive:
        names = _member(archive, f"ImageSets/Main/{_LISTS[split]}.txt").decode().split()
        images = [_pixels(_member(archive, f"JPEGImages/{name}.jpg"), shrink) for name in names]
        found = [_boxes(_member(archive, f"Annotations/{name}.xml"), shrink) for name in names]
    x = unit_range(np.stack(images).transpose(0, 3, 1, 2))
    boxes, labels = zip(*found, strict=True)
    return Boxed(torch.from_numpy(np.ascontiguousarray(x)), boxes, labels, "bccd", split, CLASSES)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    content: Any = archive.extractfile(name)
    return bytes(content.read())


def _pixels(content: bytes, shrink: int) -> NDArray[np.uint8]:
    """An image [height, width, 3]."""
    with ARCHIVE.pillow().open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB").reduce(shrink), dtype=np.uint8)


def _boxes(content: bytes, shrink: int) -> tuple[Tensor, Tensor]:
    """Boxes [k, 4] in our pixels and their classes [k]."""
    kept: list[tuple[list[float], int]] = []
    for each in ET.fromstring(content).iter("object"):
        sides = [float(each.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
        if sides[0] < sides[2] and sides[1] < sides[3]:
            kept.append(([side / shrink for side in sides], CLASSES.index(each.findtext("name", ""))))
    boxes = torch.tensor([box for box, _ in kept], dtype=torch.float32).reshape(-1, 4)
    return boxes, torch.tensor([label for _, label in kept], dtype=torch.int64)
