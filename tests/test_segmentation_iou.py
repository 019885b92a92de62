"""The mean intersection over union, against torchmetrics and by hand."""

from __future__ import annotations

import pytest
import torch

from spikemorph.errors import DataError
from spikemorph.measure.segmentation import confusion, mean_iou, scenes_iou


def scored(predicted: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(predicted, classes).movedim(-1, 1).float()


def test_by_hand() -> None:
    labels = torch.tensor([[[0, 0, 1, 3]]])  # of three classes, 3 is void
    scores = scored(torch.tensor([[[0, 1, 1, 0]]]), 3)
    table = confusion(scores, labels)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    # 1/2 for class 0, 1/2 for class 1; class 2 is nowhere; void counts for nothing
    assert mean_iou(table) == 50.0
    wrong = scores.clone()
    wrong[0, 2, 0, 0] = 2.0  # a class that no label has
    assert scenes_iou(wrong, labels) == pytest.approx(100 * (0 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("seed", range(5))
def test_against_torchmetrics(seed: int) -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(12, (5, 9, 7), generator=generator)
    labels[labels == seed] = 11
    scores = torch.randn((5, 11, 9, 7), generator=generator)
    scores[:, seed] = -10.0  # in labels and predictions nowhere
    judge = classification.MulticlassJaccardIndex(11, ignore_index=11, average="macro")
    assert scenes_iou(scores, labels) == pytest.approx(100 * float(judge(scores, labels)), rel=1e-6)


def test_tables_of_parts_add_up_to_that_of_all() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(5, (6, 4, 4), generator=generator)
    scores = torch.randn((6, 4, 4, 4), generator=generator)
    parts = confusion(scores[:2], labels[:2]) + confusion(scores[2:], labels[2:])
    assert torch.equal(parts, confusion(scores, labels))
    assert int(parts.sum()) == int((labels < 4).sum())


@pytest.mark.parametrize(
    "labels", [torch.zeros(2, 3, 4), torch.full((2, 3, 3), 5), torch.full((2, 3, 3), -1)]
)
def test_labels_that_do_not_fit_are_refused(labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="labels of pixels"):
        confusion(torch.zeros(2, 4, 3, 3), labels.long())


def test_nothing_but_void_has_no_mean() -> None:
    with pytest.raises(DataError, match="no labelled pixel"):
        scenes_iou(torch.zeros(1, 4, 3, 3), torch.full((1, 3, 3), 4))
