"""Mean intersection over union of a class for every pixel, from one table over all pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from spikemorph.errors import DataError


def confusion(scores: Tensor, labels: Tensor) -> Tensor:
    """Pixels [classes, classes] by label (rows) and class of the largest score; tables of parts add up.

    Args:
        scores: [n, classes, height, width].
        labels: whole numbers [n, height, width] in 0..classes; `classes` itself is void and left out.

    Raises:
        DataError: labels of another shape, or outside of their range.
    """
    classes = scores.shape[1]
    lowest, highest = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
    if labels.shape != scores.shape[:1] + scores.shape[2:] or lowest < 0 or highest > classes:
        raise DataError(
            where="labels of pixels",
            got=f"{list(labels.shape)} in {lowest}..{highest} for scores {list(scores.shape)}",
            known=f"[n, height, width] in 0..{classes}, {classes} for void",
            do="give every pixel the index of its class",
        )
    valid = labels < classes
    pairs = labels[valid] * classes + scores.argmax(1)[valid]
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def mean_iou(table: Tensor) -> float:
    """Percent: intersection over union, averaged over the classes that are in labels or predictions.

    Args:
        table: [classes, classes] of `confusion`.

    Raises:
        DataError: it counts no pixel.
    """
    met = table.diagonal().double()
    union = table.sum(0) + table.sum(1) - met
    seen = union > 0
    if not seen.any():
        raise DataError(
            where="mean intersection over union",
            got="no labelled pixel",
            known="at least one pixel that is not void",
            do="give scenes with labels",
        )
    return 100 * float((met[seen] / union[seen]).mean())


def scenes_iou(scores: Tensor, labels: Tensor) -> float:
    """`mean_iou` of all scenes at once: scores [n, classes, height, width], labels [n, height, width]."""
    return mean_iou(confusion(scores, labels))
