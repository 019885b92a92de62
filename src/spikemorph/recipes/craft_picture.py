"""Rendered words side by side: the scene, and the heat maps and boxes that networks find in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from spikemorph.convert.network import Ternary
from spikemorph.data import Split
from spikemorph.data.words import load_words
from spikemorph.evaluate.integers import evaluate
from spikemorph.recipes.camvid_picture import draw
from spikemorph.recipes.craft import chosen_in, float_network, found_in, lossless_row, shipped, words_of
from spikemorph.recipes.over_steps import QUIESCENT

GREEN, RED = (0, 220, 60), (255, 60, 30)
ENLARGED = 2
SHOWN = ("8", "16", "32", QUIESCENT)


def outlined(pixels: Tensor, boxes: Sequence[Tensor], colour: tuple[int, int, int]) -> Tensor:
    """Pictures uint8 [n, h, w, 3] with boxes [k, 4] drawn on each, one pixel wide."""
    made = pixels.clone()
    ink = torch.tensor(colour, dtype=torch.uint8)
    height, width = made.shape[1:3]
    for picture, each in zip(made, boxes, strict=True):
        for left, top, right, bottom in (each * ENLARGED).tolist():
            right, bottom = min(right, width - 1), min(bottom, height - 1)
            for y in (top, bottom):
                picture[y, left : right + 1] = ink
            for x in (left, right):
                picture[top : bottom + 1, x] = ink
    return made


def coloured(heat: Tensor) -> Tensor:
    """Heat maps [n, 2, h, w] as uint8 [n, 4h, 4w, 3]: regions white on black, affinity blue."""
    region, affinity = heat.clamp(0, 1).unbind(1)
    mixed = torch.stack([region, torch.maximum(region, affinity / 2), torch.maximum(region, affinity)], 3)
    return (255 * enlarged(mixed, 2 * ENLARGED)).round().to(torch.uint8)


def enlarged(pictures: Tensor, times: int) -> Tensor:
    """[n, h, w, 3] with every pixel a square."""
    return pictures.repeat_interleave(times, 1).repeat_interleave(times, 2)


def columns(x: Tensor, y: Tensor, heat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Title -> colours: scenes with the boxes of their words, then each network's heat maps and boxes."""
    scenes = enlarged((255 * x).round().to(torch.uint8).movedim(1, 3), ENLARGED)
    found = {name: outlined(coloured(each), found_in(each), RED) for name, each in heat.items()}
    return {"words": outlined(scenes, words_of(y), GREEN), **found}


def picture(path: Path, scenes: int = 2) -> None:
    """Draw the first test scenes: float network, then ternary spikes after 8, 16, 32 steps and at rest.

    Raises:
        MissingData: the weights cannot be had, or what draws is not installed.
        FileError: the file cannot be written.
    """
    data = load_words(Split.TEST, samples=scenes)
    parts = lossless_row(chosen_in(shipped())["ternary"], Ternary(), data.x, lambda done: None)
    spiking = {key: each for part in parts for key, each in part.heat.items()}
    titles = {key: "at rest" if key == QUIESCENT else f"after {key} steps" for key in SHOWN}
    heat = {"float": evaluate(float_network(), data.x)} | {titles[key]: spiking[key] for key in SHOWN}
    draw(columns(data.x, data.y, heat), path)
