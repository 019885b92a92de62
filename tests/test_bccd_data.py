"""Blood cells: the authors' split, boxes where the cells are."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from spikemorph.data import Split
from spikemorph.data.bccd import CLASSES, HEIGHT, WIDTH, Boxed, load_bccd
from spikemorph.errors import DataError, MissingData


@cache
def part(split: Split) -> Boxed:
    try:
        return load_bccd(split)
    except MissingData as error:
        pytest.skip(str(error))


def test_the_parts_have_the_official_sizes_and_share_no_image() -> None:
    parts = [part(split) for split in Split]
    assert [len(each) for each in parts] == [205, 87, 72]
    assert sum(len(boxes) for each in parts for boxes in each.boxes) == 4888 - 2
    corners = torch.cat([each.x[:, :, ::40, ::40].flatten(1) for each in parts])
    assert len(torch.unique(corners, dim=0)) == 364


def test_boxes_lie_inside_their_images() -> None:
    made = part(Split.TEST)
    assert made.x.shape == (72, 3, HEIGHT // 2, WIDTH // 2)
    assert 0 <= float(made.x.min()) < float(made.x.max()) <= 1
    boxes = torch.cat(made.boxes)
    assert bool((boxes[:, :2] >= 0).all())
    assert bool((boxes[:, :2] < boxes[:, 2:]).all())
    assert bool((boxes[:, 2:] <= torch.tensor([WIDTH / 2, HEIGHT / 2])).all())
    assert set(torch.cat(made.labels).tolist()) == {0, 1, 2}


def test_boxes_hold_what_their_labels_say() -> None:
    """Stained nuclei and platelets are less red than what is around them; white cells are the large ones."""
    made = part(Split.VALIDATION)
    inside: dict[int, list[float]] = {0: [], 1: [], 2: []}
    widths: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for image, boxes, labels in zip(made.x, made.boxes, made.labels, strict=True):
        for (left, top, right, bottom), label in zip(boxes.tolist(), labels.tolist(), strict=True):
            cell = image[:, int(top) : int(bottom) + 1, int(left) : int(right) + 1].mean((1, 2))
            inside[label].append(float((cell[0] - cell[2]) - (image[0] - image[2]).mean()))
            widths[label].append(right - left)
    red, white, platelet = (torch.tensor(inside[CLASSES.index(name)]).mean() for name in CLASSES)
    assert white < platelet < red
    sizes = [torch.tensor(widths[CLASSES.index(name)]).median() for name in ("Platelets", "RBC", "WBC")]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 3


def test_boxes_shrink_with_their_images() -> None:
    half = part(Split.VALIDATION)
    quarter = load_bccd(Split.VALIDATION, shrink=4)
    assert quarter.x.shape == (87, 3, HEIGHT // 4, WIDTH // 4)
    for small, large in zip(quarter.boxes, half.boxes, strict=True):
        assert torch.equal(2 * small, large)
    assert float((torch.nn.functional.avg_pool2d(half.x, 2) - quarter.x).abs().max()) < 2 / 255


def test_the_first_images_keep_their_boxes() -> None:
    made = part(Split.TEST).first(3)
    assert (len(made), len(made.boxes), len(made.labels)) == (3, 3, 3)


def test_boxes_that_do_not_fit_are_refused() -> None:
    good = Boxed(torch.zeros(1, 3, 8, 8), (torch.zeros(2, 4),), (torch.zeros(2).long(),), "a", Split.TEST, ())
    for change in ({"boxes": ()}, {"labels": (torch.zeros(3).long(),)}, {"boxes": (torch.zeros(2, 5),)}):
        with pytest.raises(DataError, match="boxes"):
            replace(good, **change)


def test_a_missing_file_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SPIKEMORPH_DATA", raising=False)
    monkeypatch.delenv("SPIKEMORPH_SHARED", raising=False)
    with pytest.raises(MissingData, match=r"bccd\.tar"):
        load_bccd(Split.TEST)
