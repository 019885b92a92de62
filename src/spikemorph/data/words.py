"""Rendered words on coloured ground, with the box of every word: made anew each time, from fixed seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from spikemorph.data.dataset import Split
from spikemorph.errors import MissingData

HEIGHT, WIDTH = 96, 192
MOST = 4
"""Words in a scene; at least one."""
SIZES = (14, 29)
"""Of the letters, pixels: from, and below."""
APART = 6
"""Pixels between two words, and from a word to the edge."""
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
)
"""Files that matplotlib brings along."""
CALIBRATION_WORDS = (
    "river window market silver garden letter number station bridge summer winter yellow orange "
    "Kitchen Doctor Flower Mountain Paper Street Music CAUTION OPEN SALE HOTEL TAXI METRO 1984 "
    "2026 25.99 No.7"
)
TEST_WORDS = (
    "castle forest island copper valley meadow harbour lantern compass thunder morning evening "
    "Bakery Library Village Teacher Journey Quarter Picture Weather EXIT STOP CLOSED MUSEUM BANK "
    "AIRPORT 1749 2051 13.50 km/h"
)
SEEDS = {Split.VALIDATION: 1, Split.TEST: 2}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Scenes with words.

    Args:
        x: float32 [n, 3, 96, 192], pixels in 0..1.
        y: int64 [n, 4, 4], left, top, right and bottom of each word; rows of -1 where there is none.
    """

    x: Tensor
    y: Tensor
    name: str
    split: Split

    def first(self, samples: int) -> Words:
        """The first scenes, in their own order."""
        return replace(self, x=self.x[:samples], y=self.y[:samples])

    def __len__(self) -> int:
        return len(self.x)


def load_words(split: Split, *, samples: int = 100) -> Words:
    """Scenes for calibration (`Split.VALIDATION`) or testing, of other words; the first ones stay the same.

    Raises:
        MissingData: Pillow or matplotlib, which has the fonts, is not installed; the training part is wanted.
    """
    if split not in SEEDS:
        raise MissingData(
            where="data set words",
            got="the training part",
            known="scenes for calibration (validation) and for testing",
            do="load one of these; nothing is trained on rendered words",
        )
    pen = _Pen()
    words = (CALIBRATION_WORDS if split is Split.VALIDATION else TEST_WORDS).split()
    generator = np.random.default_rng(SEEDS[split])
    scenes = [_scene(pen, words, generator) for _ in range(samples)]
    pixels = torch.from_numpy(np.stack([image for image, _ in scenes]))
    x = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255).contiguous()
    y = torch.full((samples, MOST, 4), -1, dtype=torch.int64)
    for row, (_, boxes) in zip(y, scenes, strict=True):
        row[: len(boxes)] = torch.tensor(boxes)
    return Words(x, y, "words", split)


class _Pen:
    """What draws: Pillow, with matplotlib's fonts."""

    def __init__(self) -> None:
        try:
            import matplotlib
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise MissingData(
                where="data set words",
                got=f"{error.name} is not installed",
                known="Pillow draws the words, in fonts of matplotlib",
                do="pip install 'spikemorph[vision,recipes]'",
            ) from error
        self.image, self.draw, self.font = Image, ImageDraw, ImageFont
        self.folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"

    def typeface(self, name: str, size: int) -> Any:
        """A font of some pixels."""
        return self.font.truetype(str(self.folder / f"{name}.ttf"), size)


Box = tuple[int, int, int, int]


def _scene(pen: _Pen, words: list[str], generator: Generator) -> tuple[NDArray[np.uint8], list[Box]]:
    """One picture uint8 [96, 192, 3] and the boxes of its words."""
    dark = generator.random() < 0.5
    made = pen.image.fromarray(_ground(dark, generator))
    canvas = pen.draw.Draw(made)
    boxes: list[Box] = []
    for _ in range(12 * MOST):
        face = pen.typeface(FONTS[generator.integers(len(FONTS))], int(generator.integers(*SIZES)))
        word = words[generator.integers(len(words))]
        left, top, right, bottom = canvas.textbbox((0, 0), word, font=face)
        room = WIDTH - (right - left) - 2 * APART, HEIGHT - (bottom - top) - 2 * APART
        if min(room) < 1:
            continue
        x, y = (APART + int(generator.integers(each)) for each in room)
        box = (x, y, x + int(right - left), y + int(bottom - top))
        colour = generator.uniform(180, 255, 3) if dark else generator.uniform(0, 70, 3)
        if any(_near(box, other) for other in boxes):
            continue
        canvas.text((x - left, y - top), word, font=face, fill=tuple(int(each) for each in colour))
        boxes.append(box)
        if len(boxes) == MOST:
            break
    return np.asarray(made, dtype=np.uint8), boxes


def _ground(dark: bool, generator: Generator) -> NDArray[np.uint8]:
    """One colour on the left, another on the right, with noise."""
    ends = generator.uniform(120, 255, (2, 3))
    ends = 255 - ends if dark else ends
    along = np.linspace(0, 1, WIDTH)[None, :, None]
    smooth = ends[0] * (1 - along) + ends[1] * along
    noisy = smooth + generator.normal(0, 6, (HEIGHT, WIDTH, 3))
    ground: NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8)
    return ground


def _near(a: Box, b: Box) -> bool:
    return a[0] < b[2] + APART and b[0] < a[2] + APART and a[1] < b[3] + APART and b[1] < a[3] + APART
