"""The user's own images: a folder with one folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikemorph.data.pixels import unit_range
from spikemorph.errors import DataError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".gif", ".webp"))


def load_folder(folder: str | Path) -> tuple[Tensor, Tensor]:
    """Images x, float32 [n, 3, h, w] in 0..1, and labels y, int64 [n]: the index of the class folder by name.

    Raises:
        DataError: no images, images of several sizes, an image that cannot be read, or Pillow is missing.
    """
    folder = Path(folder)
    classes = sorted(each for each in folder.iterdir() if each.is_dir())
    paths = [
        (path, label)
        for label, each in enumerate(classes)
        for path in sorted(each.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not paths:
        raise _bad(folder, "no images", "put them into one folder a class")
    pixels = [_pixels(path) for path, _ in paths]
    for (path, _), image in zip(paths, pixels, strict=True):
        if image.shape != pixels[0].shape:
            raise _bad(path, f"{image.shape[1]} x {image.shape[0]} pixels", "bring all images to one size")
    x = unit_range(np.stack(pixels).transpose(0, 3, 1, 2))
    return torch.from_numpy(np.ascontiguousarray(x)), torch.tensor([label for _, label in paths])


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        from PIL import Image
    except ImportError as error:
        raise _bad(path, "Pillow is not installed", "pip install 'spikemorph[vision]'") from error
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError) as error:
        raise _bad(path, f"not readable: {error}", "replace the file") from error


def _bad(path: Path, got: str, do: str) -> DataError:
    return DataError(where=str(path), got=got, known="FOLDER/CLASS/IMAGE.png, all of one size", do=do)
