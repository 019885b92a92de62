"""Street scenes side by side: the photo, its labels, and what networks see in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from spikemorph.data.camvid import ARCHIVE, VOID
from spikemorph.data.photos import TORCHVISION
from spikemorph.errors import DataError
from spikemorph.files import atomic_write

COLOURS = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
    (0, 0, 0),
)
"""Of the classes and of void, those of SegNet's pictures."""
GAP, HEAD = 4, 16
"""Pixels between pictures, and of the line of titles."""


def painted(labels: Tensor) -> Tensor:
    """Labels [n, height, width] in 0..11 as uint8 colours [n, height, width, 3]."""
    return torch.tensor(COLOURS, dtype=torch.uint8)[labels]


def photographed(x: Tensor) -> Tensor:
    """Normalised photos [n, 3, height, width] as uint8 colours [n, height, width, 3]."""
    mean, spread = (torch.tensor(each).reshape(3, 1, 1) for each in (TORCHVISION.mean, TORCHVISION.spread))
    return (255 * (x * spread + mean)).round().clamp(0, 255).to(torch.uint8).movedim(1, 3)


def columns(x: Tensor, labels: Tensor, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Title -> colours: photos, labels, then the largest scores [n, classes, height, width] of each network.

    Pixels that are void in the labels are black everywhere: nothing counts there.
    """
    found = {name: scores.argmax(1).where(labels != VOID, VOID) for name, scores in seen.items()}
    return {"photo": photographed(x), "labels": painted(labels)} | {
        name: painted(each) for name, each in found.items()
    }


def sheet(pictures: Mapping[str, Tensor]) -> Tensor:
    """One picture, uint8 [height, width, 3]: a column for each entry, white between them, room for titles.

    Args:
        pictures: uint8 [n, height, width, 3] each, all of one shape.

    Raises:
        DataError: none, or of several shapes.
    """
    shapes = {tuple(each.shape) for each in pictures.values()}
    if len(shapes) != 1:
        raise DataError(
            where="pictures side by side",
            got=f"shapes {sorted(shapes)}",
            known="at least one column, all of one shape [n, height, width, 3]",
            do="give every column the same scenes",
        )
    n, height, width, _ = shapes.pop()
    size = HEAD + n * (height + GAP), len(pictures) * (width + GAP) - GAP, 3
    made = torch.full(size, 255, dtype=torch.uint8)
    for i, column in enumerate(pictures.values()):
        for j, each in enumerate(column):
            top, left = HEAD + j * (height + GAP), i * (width + GAP)
            made[top : top + height, left : left + width] = each
    return made


def draw(pictures: Mapping[str, Tensor], path: Path) -> None:
    """A PNG file of the sheet, a title over each column.

    Raises:
        DataError: as `sheet`.
        MissingData: Pillow is not installed.
        FileError: the file cannot be written.
    """
    made = ARCHIVE.pillow().fromarray(sheet(pictures).numpy())
    from PIL.ImageDraw import Draw

    pen = Draw(made)
    width = next(iter(pictures.values())).shape[2] + GAP
    for i, title in enumerate(pictures):
        pen.text((i * width + 2, 2), title, fill=(0, 0, 0))
    atomic_write(path, lambda temporary: made.save(temporary, "PNG", optimize=True))
