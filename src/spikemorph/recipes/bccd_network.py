"""A RetinaNet for blood cells.

T.-Y. Lin et al., Focal loss for dense object detection, ICCV 2017, as torchvision has it, on the first
blocks of MobileNetV2. Cells have known sizes, so two maps do: platelets are found at stride 4, red and white
cells at stride 8, with square anchors. What MobileNetV2 has behind stride 8 made nothing better on
validation images.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from spikemorph.data.bccd import CLASSES, HEIGHT, WIDTH

SHRINK = 4
"""The images are 160 pixels wide and 120 high."""
CHANNELS = 48
"""Of the pyramid and the heads."""
CONVOLUTIONS = 1
"""Of each head, in front of its last one."""
ANCHORS = ((7, 10, 14, 20), (22, 29, 40, 55))
"""Sides in pixels, at strides 4 and 8."""


@final
class Pyramid(nn.Module):
    """Blocks of MobileNetV2 and a feature pyramid: [n, 3, h, w] to maps of strides 4 and 8."""

    out_channels = CHANNELS

    def __init__(self) -> None:
        from torchvision.models import mobilenet_v2
        from torchvision.models._utils import IntermediateLayerGetter
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.body = IntermediateLayerGetter(mobilenet_v2().features[:7], {"3": "stride4", "6": "stride8"})
        self.fpn = FeaturePyramidNetwork([24, 32], CHANNELS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps [n, 48, h / stride, w / stride] by stride."""
        maps: dict[str, Tensor] = self.fpn(self.body(x))
        return maps


def detector() -> nn.Module:
    """An untrained `torchvision.models.detection.RetinaNet` for images [3, 120, 160] in 0..1."""
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.retinanet import RetinaNetHead

    head = RetinaNetHead(CHANNELS, len(ANCHORS[0]), len(CLASSES))
    for each in (head.classification_head, head.regression_head):
        each.conv = each.conv[:CONVOLUTIONS]
    made: nn.Module = RetinaNet(
        Pyramid(),
        len(CLASSES),
        min_size=HEIGHT // SHRINK,
        max_size=WIDTH // SHRINK,
        size_divisible=8,
        anchor_generator=AnchorGenerator(ANCHORS, ((1.0,),) * len(ANCHORS)),
        head=head,
        detections_per_img=100,
    )
    return made
