"""How good boxes are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from spikemorph.errors import DataError, MissingData


@final
@dataclass(frozen=True, slots=True)
class Precision:
    """Mean average precision over classes, percent.

    Args:
        half: where a box is right that overlaps by at least 0.5 (intersection over union).
        mean: the mean over overlaps 0.5, 0.55, ... 0.95.
    """

    half: float
    mean: float


def average_precision(
    detections: Sequence[Mapping[str, Tensor]], boxes: Sequence[Tensor], labels: Sequence[Tensor]
) -> Precision:
    """As COCO defines it (T.-Y. Lin et al., 2014), computed by torchmetrics.

    Args:
        detections: of every image `boxes` [k, 4] (left, top, right, bottom), `labels` [k], `scores` [k].
        boxes, labels: of every image what is right, [k, 4] and [k].

    Raises:
        DataError: not one of each an image, or no box at all.
        MissingData: torchmetrics or pycocotools is not installed.
    """
    if not len(detections) == len(boxes) == len(labels) or not any(len(each) for each in boxes):
        raise DataError(
            where="mean average precision",
            got=f"{len(detections)} detections, {len(boxes)} images with {sum(map(len, boxes))} boxes",
            known="detections, boxes and labels of the same images, at least one box",
            do="score all images at once",
        )
    score = _metric()
    targets = [{"boxes": box, "labels": label} for box, label in zip(boxes, labels, strict=True)]
    score.update([dict(each) for each in detections], targets)
    found = score.compute()
    return Precision(100 * float(found["map_50"]), 100 * float(found["map"]))


def _metric() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the plotting library that comes with it
            from torchmetrics.detection import MeanAveragePrecision

        return MeanAveragePrecision(box_format="xyxy", iou_type="bbox")
    except ImportError as error:
        raise MissingData(
            where="mean average precision",
            got=f"not installed: {error.name or error}",
            known="torchmetrics and pycocotools compute it",
            do="pip install 'spikemorph[detection]'",
        ) from error
