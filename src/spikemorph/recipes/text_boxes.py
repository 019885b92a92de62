"""Boxes of words from heat maps, and how many of them two sets share.

Y. Baek et al., arXiv 1904.01941, section 3.3: pixels of high region or affinity are joined to components; one
without any pixel of high region is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

REGION, AFFINITY = 0.4, 0.4
"""What a pixel of a component has at least, of one or the other."""
PEAK = 0.7
"""The region score that a component reaches somewhere."""
SMALLEST = 10
"""Pixels of the heat map."""
OVERLAP = 0.5
"""Intersection over union of boxes that are the same."""


def boxes_of(heat: Tensor) -> Tensor:
    """Boxes int64 [n, 4] (left, top, right, bottom) in pixels of the picture.

    Args:
        heat: [2, h, w], region and affinity, at half the size of the picture.
    """
    from scipy import ndimage

    region, affinity = heat.detach().cpu().numpy().astype(np.float64)
    labels, n = ndimage.label((region > REGION) | (affinity > AFFINITY))
    found: list[tuple[int, int, int, int]] = []
    for number, place in enumerate(ndimage.find_objects(labels, n), 1):
        own = labels[place] == number
        if own.sum() < SMALLEST or region[place][own].max() < PEAK:
            continue
        # Between characters the affinity alone keeps a component together; its box is that of the regions.
        rows, columns = np.nonzero(own & (region[place] > REGION))
        top, left = place[0].start, place[1].start
        box = (left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1)
        found.append(_grown(box, len(rows), region.shape))
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 4)


def _grown(box: tuple[int, int, int, int], pixels: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The scores fall off towards the edge of a character: the box grows by the thickness that is cut off."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    more = round(math.sqrt(pixels * min(width, height) / (width * height)))
    ends = max(left - more, 0), max(top - more, 0), min(right + more, shape[1]), min(bottom + more, shape[0])
    return 2 * ends[0], 2 * ends[1], 2 * ends[2], 2 * ends[3]


def shared(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Percent of boxes that have a partner in the other set, both sets and all pictures together (F1).

    Args:
        found, wanted: [n, 4] a picture. Partners overlap by half of their union or more, and have no other
            partner; the pairs that overlap most are formed first.
    """
    from torchvision.ops import box_iou

    pairs = 0
    for a, b in zip(found, wanted, strict=True):
        overlap = box_iou(a.float(), b.float())
        while overlap.numel() and float(overlap.max()) >= OVERLAP:
            row, column = divmod(int(overlap.argmax()), overlap.shape[1])
            overlap[row], overlap[:, column] = -1, -1
            pairs += 1
    total = sum(len(each) for each in (*found, *wanted))
    return 200.0 * pairs / total if total else 100.0
