"""The recipe of blood cells: its detector, its training, its score, its picture."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.data import Split
from spikemorph.data.bccd import CLASSES, Boxed
from spikemorph.errors import MissingData
from spikemorph.ir.store import graph_hash
from spikemorph.recipes import bccd, bccd_picture
from spikemorph.recipes.bccd_training import detection_loss, pretrained, turned
from spikemorph.recipes.contest import Quantised, Source
from spikemorph.recipes.over_steps import FULL, QUIESCENT

pytest.importorskip("torchvision")
from spikemorph.recipes.bccd_network import detector

torch.set_num_threads(1)
RESULTS = Path(__file__).parents[1] / "results"
BOX = torch.tensor([[2.0, 1.0, 5.0, 3.0]])


def square(boxes: Tensor, height: int = 6, width: int = 8) -> Tensor:
    """An image [3, height, width] that is 1 inside of the box."""
    image = torch.zeros(3, height, width)
    left, top, right, bottom = boxes[0].long().tolist()
    image[:, top:bottom, left:right] = 1
    return image


@pytest.mark.parametrize("turn", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
def test_boxes_turn_with_their_images(turn: tuple[int, int, int]) -> None:
    other = torch.tensor([[0.0, 0, 1, 4]])
    images = torch.stack([square(BOX), square(other)])
    turns = torch.tensor([turn, (0, 1, 0)])
    made, boxes = turned(images, [BOX, other], turns)
    for image, box in zip(made, boxes, strict=True):
        assert torch.equal(image, square(box, *image.shape[1:]))
    assert made.shape[2:] == ((8, 6) if turn[2] else (6, 8))
    assert torch.equal(boxes[0], BOX) == (turn == (0, 0, 0))


def test_the_backbone_takes_the_pretrained_weights() -> None:
    from torchvision.models import mobilenet_v2

    source, own = mobilenet_v2().state_dict(), detector().state_dict()
    taken = pretrained(source)
    fitting = {name for name in taken if name in own and taken[name].shape == own[name].shape}
    assert fitting == {name for name in own if name.startswith("backbone.body.")}
    assert torch.equal(taken["backbone.body.6.conv.2.weight"], source["features.6.conv.2.weight"])


def cells(count: int = 2) -> Boxed:
    """Images with a bright red cell and a bright platelet each."""
    generator = torch.Generator().manual_seed(2)
    x = 0.1 * torch.rand(count, 3, 120, 160, generator=generator)
    boxes = torch.tensor([[20.0, 30, 46, 58], [100.0, 60, 110, 70]])
    for left, top, right, bottom in boxes.long().tolist():
        x[:, :, top:bottom, left:right] += 0.8
    labels = torch.tensor([0, 2])
    return Boxed(x, (boxes,) * count, (labels,) * count, "cells", Split.TRAIN, CLASSES)


def test_a_few_steps_of_training_lower_the_loss() -> None:
    torch.manual_seed(0)
    model, data = detector().train(), cells()
    targets = [{"boxes": b, "labels": k} for b, k in zip(data.boxes, data.labels, strict=True)]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    seen = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = detection_loss(model, data.x, targets)
        loss.backward()
        optimiser.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.9 * seen[0]


@cache
def scored() -> tuple[Any, Tensor, dict[str, Tensor]]:
    """A detector with scores that differ, the input of its part, and what its heads give."""
    torch.manual_seed(1)
    model = detector()
    last = model.get_submodule("head.classification_head.cls_logits")
    torch.nn.init.normal_(last.weight, std=1.0)  # type: ignore[arg-type]
    torch.nn.init.constant_(last.bias, -2.5)  # type: ignore[arg-type]
    x = bccd.normalised(cells(3))
    with torch.no_grad():
        maps = list(model.eval().backbone(x).values())  # type: ignore[union-attr, operator]
        return model, x, model.head(maps)  # type: ignore[operator]


def test_outputs_become_the_boxes_of_the_detector_itself() -> None:
    model, x, outputs = scored()
    with torch.no_grad():
        wanted = model(list(cells(3).x))
    assert x.shape == (3, 3, 120, 160)
    assert sum(len(each["boxes"]) for each in wanted) > 10
    for made, own in zip(bccd.detected(outputs), wanted, strict=True):
        assert all(torch.equal(made[key], own[key]) for key in own)


def test_labels_come_back_from_their_tensor() -> None:
    data = cells(1)
    empty = (torch.zeros(0, 4), torch.zeros(0).long())
    both = Boxed(
        data.x.repeat(2, 1, 1, 1), (*data.boxes, empty[0]), (*data.labels, empty[1]), "", Split.TEST, ()
    )
    y = bccd.targets(both)
    assert y.shape == (2, 2, 5)
    found = [
        {"boxes": b, "labels": k, "scores": torch.ones(len(k))}
        for b, k in zip(both.boxes, both.labels, strict=True)
    ]
    pytest.importorskip("pycocotools")
    assert bccd.precision(found, y).half == pytest.approx(100)
    assert bccd.precision([found[1], found[1]], y).half == 0


def test_the_boxes_of_parts_are_those_of_all() -> None:
    pytest.importorskip("pycocotools")
    _, _, outputs = scored()
    found = bccd.detected(outputs)
    # What was found in the first image is right there, half of it in the second, nothing in the third.
    rows = [torch.cat((each["boxes"], each["labels"][:, None]), 1) for each in found]
    y = bccd.padded([rows[0], rows[1][::2], rows[2][:0]])
    parts: list[dict[str, Tensor]] = []
    for start in range(3):
        part = slice(start, start + 1)
        parts += bccd.boxes({key: each[part] for key, each in outputs.items()}, part)
    score = bccd.precision(parts, y)
    assert score == bccd.precision(found, y)
    assert score.half == bccd.MAP.of(outputs, y)
    assert 0 < score.mean <= score.half < 100


def test_what_the_float_network_finds_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure of choices: no labels, and worse boxes are further away."""
    pytest.importorskip("pycocotools")
    monkeypatch.setattr(bccd, "SURE", 0.05)
    _, _, outputs = scored()
    moved = [{**outputs, "bbox_regression": outputs["bbox_regression"] + shift} for shift in (0.05, 0.3)]
    same, near, far = (bccd.missed(each, outputs) for each in (outputs, *moved))
    assert same < 5 < near < far <= 100


def test_a_judge_keeps_the_means_over_overlaps() -> None:
    pytest.importorskip("pycocotools")
    _, _, outputs = scored()
    found = bccd.detected(outputs)
    y = bccd.padded([torch.cat((each["boxes"], each["labels"][:, None]), 1)[::2] for each in found])
    judge = bccd.Judge(y)
    empty = [{key: each[:0] for key, each in image.items()} for image in found]
    values = [judge(each, 3) for each in (found, empty, found)]
    assert values[0] == values[2] > values[1] == 0
    ways: Any = [
        SimpleNamespace(method="a", steps=(8, 16), rest=False),
        SimpleNamespace(method="b", steps=(), rest=True),
    ]
    mean = bccd.precision(found, y).mean
    assert judge.means(ways) == {"a": {"8": mean, "16": 0.0}, "b": {"quiescent": mean}}


def test_networks_of_a_method_share_what_is_quantised() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    x = torch.rand(4, 3, 6, 6)
    source = Source(sm.capture(model, x), x)
    made = Quantised(source)
    rows = bccd.families(made)
    fine = rows[bccd.TERNARY]["63 levels"].build(source)
    sized = rows[bccd.GRADED]["63 levels"].build(source)
    assert (fine.ramp, sized.ramp, sized.spike) == (63, 16, sm.Graded(4))
    assert fine.source == sized.source == graph_hash(made(63))
    assert made(63) is made(63)
    assert {each.steps for each in rows["least squares, ternary"].values()} == {(n,) for n in FULL}
    assert all(each.build(source).window for each in rows["rate, binary"].values())


def test_images_to_calibrate_with_and_to_choose_on_are_others() -> None:
    data = cells(205)
    marked = Boxed(
        data.x + torch.linspace(0, 0.1, 205)[:, None, None, None],
        data.boxes,
        data.labels,
        "",
        Split.TRAIN,
        (),
    )
    seen, others = bccd.apart(marked)
    assert (len(seen), len(others)) == (bccd.CALIBRATION, bccd.COMPARED)
    both = torch.cat((seen, others))[:, 0, 0, 0]
    assert len(both.unique()) == bccd.CALIBRATION + bccd.COMPARED


def test_the_parts_of_the_recipe_are_what_the_network_takes() -> None:
    try:
        test = bccd.cells(Split.TEST)
    except MissingData as missing:
        pytest.skip(str(missing))
    assert test.x.shape == (72, 3, 120, 160)
    assert test.y.shape[0] == 72
    assert -2.2 < float(test.x.min()) < float(test.x.max()) < 2.7


def test_the_picture_frames_what_is_sure(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    image = torch.full((3, 60, 80), 0.5)
    found = {
        "boxes": torch.tensor([[5.0, 5, 20, 20], [25.0, 5, 35, 20]]),
        "labels": torch.tensor([0, 1]),
        "scores": torch.tensor([0.9, 0.1]),
    }
    framed = bccd_picture.framed(image, found, 2.0)
    assert tuple(framed[10, 25].tolist()) == bccd_picture.COLOURS[0]
    assert framed[10, 60].tolist() == [128, 128, 128]
    labels = {key: found[key] for key in ("boxes", "labels")}
    assert tuple(bccd_picture.framed(image, labels, 2.0)[10, 60].tolist()) == bccd_picture.COLOURS[1]
    path = tmp_path / "cells.png"
    bccd_picture.draw(image[None], {"labels": [labels], "T = 8": [found]}, 2.0, path)
    with pillow.open(path) as made:
        pixels = np.asarray(made.convert("RGB")).astype(int)
    blue = (np.abs(pixels - bccd_picture.COLOURS[0]).sum(2) < 40).sum()
    green = (np.abs(pixels - bccd_picture.COLOURS[1]).sum(2) < 40).sum()
    assert blue > 1.3 * green > 200


def test_the_shipped_network_finds_cells() -> None:
    """Some test images; the float network finds 90 %."""
    pytest.importorskip("pycocotools")
    try:
        test = bccd.cells(Split.TEST).some(torch.arange(0, 72, 9))
    except MissingData as missing:
        pytest.skip(str(missing))
    outputs = sm.evaluate(bccd.RECIPE.graph(None, "float"), test.x)
    assert bccd.MAP.of(outputs, test.y) > 80


def test_the_network_that_is_shipped_and_verified_is_the_one_reported_at_rest() -> None:
    made = json.loads((RESULTS / "bccd.json").read_text())
    assert made["notes"]["chosen"] == bccd.RECIPE.notes(None)["chosen"]
    assert made["notes"]["chosen"][bccd.TERNARY][QUIESCENT][0] == f"{bccd.SHIPPED} levels"
    assert made["qnn"] == made["snn"] == made["by_method"][bccd.TERNARY][QUIESCENT]
