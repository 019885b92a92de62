"""Blood cells side by side: the boxes of the data set, and those that networks find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikemorph.data import Split
from spikemorph.data.bccd import ARCHIVE, load_bccd
from spikemorph.evaluate.integers import evaluate
from spikemorph.files import atomic_write
from spikemorph.measure.over_steps import over_steps
from spikemorph.recipes.bccd import RECIPE, TERNARY, apart, detected, families, normalised
from spikemorph.recipes.bccd_network import SHRINK
from spikemorph.recipes.camvid_picture import GAP, HEAD, sheet
from spikemorph.recipes.contest import Quantised, Source, recorded, ways
from spikemorph.recipes.over_steps import STEPS

COLOURS = ((20, 60, 230), (0, 110, 0), (0, 0, 0))
"""Of red cells, white cells and platelets."""
SURE = 0.4
"""Boxes with smaller scores are not drawn."""
PALETTE = 96
"""Colours of the file."""
DRAWN = 3
"""How much smaller than its file an image is drawn."""


def framed(image: Tensor, found: Mapping[str, Tensor], zoom: float) -> Tensor:
    """The image with a frame around everything found, uint8 [height, width, 3].

    Args:
        image: float [3, height, width] in 0..1.
        found: `boxes` [k, 4], `labels` [k] and, of networks, `scores` [k].
        zoom: pixels of the image along one of the boxes.
    """
    pixels = (255 * image).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    picture = ARCHIVE.pillow().fromarray(pixels.numpy())
    from PIL.ImageDraw import Draw

    pen = Draw(picture)
    scores = found.get("scores", torch.ones(len(found["boxes"])))
    for box, label, score in zip(found["boxes"], found["labels"].tolist(), scores.tolist(), strict=True):
        if score >= SURE:
            pen.rectangle((box * zoom).tolist(), outline=COLOURS[label], width=2)
    return torch.from_numpy(np.array(picture))


def draw(
    images: Tensor, columns: Mapping[str, Sequence[Mapping[str, Tensor]]], zoom: float, path: Path
) -> None:
    """A PNG file: a row for each image, a column with its title for each network.

    Args:
        images: float [n, 3, height, width] in 0..1.
        columns: title -> what was found in every image.
        zoom: pixels of the images along one of the boxes.

    Raises:
        MissingData: Pillow is not installed.
        FileError: the file cannot be written.
    """
    pictures = {
        title: torch.stack([framed(image, each, zoom) for image, each in zip(images, found, strict=True)])
        for title, found in columns.items()
    }
    made = ARCHIVE.pillow().fromarray(sheet(pictures).numpy()).quantize(PALETTE, dither=0)
    from PIL.ImageDraw import Draw

    pen = Draw(made)
    dark = int(np.argmin(np.array(made.getpalette()).reshape(-1, 3).sum(1)))
    for i, title in enumerate(pictures):
        pen.text((i * (images.shape[3] + GAP) + 2, HEAD // 8), title, fill=dark)
    atomic_write(path, lambda temporary: made.save(temporary, "PNG", optimize=True))


def illustrate(path: Path, *, shown: Sequence[int] = (10, 40)) -> None:
    """Test images with the boxes of the data set, of the float network, and of spiking ones over steps.

    After T steps that network which is chosen for T, as in the results; at rest the one that is shipped.

    Raises:
        MissingData: the data set is missing, or Pillow is not installed.
        FileError: the file cannot be written.
    """
    chosen = torch.tensor(shown)
    fine = load_bccd(Split.TEST, shrink=DRAWN).x[chosen]
    data = load_bccd(Split.TEST, shrink=SHRINK)
    x = normalised(data)[chosen]
    graph = RECIPE.graph(None, "float")
    source = Source(graph, apart(load_bccd(Split.TRAIN, shrink=SHRINK))[0])
    won = recorded(RECIPE.notes(None), STEPS)[TERNARY]
    columns = {
        "data set": [{"boxes": data.boxes[i], "labels": data.labels[i]} for i in shown],
        "float": detected(evaluate(graph, x)),
    }
    for way in ways(source, TERNARY, families(Quantised(source))[TERNARY], won):
        for reached in over_steps(way.network, x, way.steps, quiescent=False) if way.steps else ():
            columns |= {f"spiking, T = {n}": detected(outputs) for n, outputs in reached.outputs.items()}
    columns["spiking, at rest"] = detected(evaluate(RECIPE.graph(None, "qnn"), x))
    draw(fine, columns, SHRINK / DRAWN, path)
