"""The score of boxes: by hand where it can be."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from spikemorph.errors import DataError, MissingData
from spikemorph.measure.detection import Precision, average_precision

Found = dict[str, Tensor]

RIGHT = torch.tensor([[10.0, 10, 30, 30], [50, 50, 90, 90]])
CLASS = torch.tensor([0, 1])


def scored(found: list[Found]) -> Precision:
    pytest.importorskip("torchmetrics.detection")
    pytest.importorskip("pycocotools", reason="torchmetrics counts with it")
    return average_precision(found, [RIGHT] * len(found), [CLASS] * len(found))


def found(boxes: Tensor, scores: tuple[float, ...] = (0.9, 0.8)) -> Found:
    return {"boxes": boxes, "labels": CLASS[: len(boxes)], "scores": torch.tensor(scores[: len(boxes)])}


def test_what_is_right_is_a_hundred_percent() -> None:
    assert scored([found(RIGHT)] * 2) == Precision(pytest.approx(100), pytest.approx(100))


def test_a_class_that_is_missed_costs_its_share() -> None:
    assert scored([found(RIGHT[:1])]).half == pytest.approx(50)


def test_a_box_that_overlaps_a_little_counts_at_small_overlaps_only() -> None:
    """Intersection over union 16/24 = 0.667 and 31/49 = 0.633: right at 0.5, 0.55, 0.6, one at 0.65."""
    moved = RIGHT + torch.tensor([[4.0, 0, 4, 0], [9, 0, 9, 0]])
    score = scored([found(moved)])
    assert score.half == pytest.approx(100)
    assert score.mean == pytest.approx(100 * (4 + 3) / 20)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="detections, boxes and labels of the same images"):
        average_precision([found(RIGHT)], [RIGHT, RIGHT], [CLASS, CLASS])
    with pytest.raises(DataError, match="at least one box"):
        average_precision([found(RIGHT)], [RIGHT[:0]], [CLASS[:0]])


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.detection", None)
    with pytest.raises(MissingData, match=r"pip install 'spikemorph\[detection\]'"):
        average_precision([found(RIGHT)], [RIGHT], [CLASS])
