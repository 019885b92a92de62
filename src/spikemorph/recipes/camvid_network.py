"""A small segmentation network of torchvision's parts: MobileNetV2 with skips under the head of an FCN."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CUTS = (4, 7, 14)
"""Where the backbone's stages end: strides 4, 8 and 16, of 24, 32 and 96 channels."""
LATERAL = ((24, 32), (32, 32), (96, 64))
"""Channels of each stage and of what is taken from it."""


@final
class Skips(nn.Module):
    """MobileNetV2 up to stride 16, and what its stages hold side by side at stride 4.

    What lies behind, three quarters of its weights, is left out: photos are six pixels high there.
    """

    def __init__(self) -> None:
        from torchvision.models import mobilenet_v2
        from torchvision.ops.misc import Conv2dNormActivation

        super().__init__()
        self.features = mobilenet_v2(weights=None).features[: CUTS[-1]]
        self.lateral = nn.ModuleList(
            Conv2dNormActivation(channels, width, kernel_size=1) for channels, width in LATERAL
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`out`: [n, 128, height / 4, width / 4]."""
        found: list[Tensor] = []
        start = 0
        for cut, lateral in zip(CUTS, self.lateral, strict=True):
            x = self.features[start:cut](x)
            start = cut
            taken = lateral(x)
            if found:
                size = found[0].shape[-2:]
                taken = F.interpolate(taken, size=size, mode="bilinear", align_corners=False)
            found.append(taken)
        return {"out": torch.cat(found, 1)}


@final
class Scores(nn.Module):
    """torchvision's FCN over `Skips`, untrained: photos [n, 3, h, w] to scores [n, classes, h, w]."""

    def __init__(self, classes: int) -> None:
        from torchvision.models.segmentation.fcn import FCN, FCNHead

        super().__init__()
        self.fcn: nn.Module = FCN(Skips(), FCNHead(sum(width for _, width in LATERAL), classes))

    def forward(self, x: Tensor) -> Tensor:
        """The one output without its dictionary."""
        scores: Tensor = self.fcn(x)["out"]
        return scores
