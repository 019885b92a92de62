"""CRAFT, a text detector: a VGG16 with batch norm under a U-net, two heat maps out.

Y. Baek et al., Character Region Awareness for Text Detection, CVPR 2019, arXiv 1904.01941, section 3.1 and
figure 2. The names are those of its weights. Written from the paper and the weights' names and shapes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.data.photos import TORCHVISION
from spikemorph.data.pretrained import CRAFT

STAGES = (
    (0, "64 64 M 128 128"),
    (13, "M 256 256"),
    (20, "256 M 512 512"),
    (30, "512 M 512 512"),
)
"""Of VGG16, each with the number of its first layer: channels of 3x3 convolutions, M for a max-pool."""
UP = ((1536, 512, 256), (768, 256, 128), (384, 128, 64), (192, 64, 32))
"""Channels of each step up: what comes in, between its two convolutions, what goes out."""


@final
class Craft(nn.Module):
    """Pixels [batch, 3, h, w] in 0..1 to heat maps [batch, 2, h / 2, w / 2]: regions of characters, affinity.

    h and w are multiples of 16. Normalisation is part of the module.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", TORCHVISION.mean), ("spread", TORCHVISION.spread)):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1), persistent=False)
        self.basenet = nn.ModuleDict()
        channels = 3
        for number, (start, plan) in enumerate(STAGES, 1):
            stage, channels = _stage(start, plan, channels)
            # The last one ends in front of its ReLU: it is not in place there, as those of the others are.
            self.basenet[f"slice{number}"] = stage if number < len(STAGES) else stage[:-1]
        self.basenet["slice5"] = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
            nn.Conv2d(1024, 1024, 1),
        )
        for number, step in enumerate(UP, 1):
            self.add_module(f"upconv{number}", nn.ModuleDict({"conv": _step_up(*step)}))
        self.conv_cls = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 1),
            nn.ReLU(),
            nn.Conv2d(16, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The two heat maps."""
        x = (x - self.mean) / self.spread
        stages: list[Tensor] = []
        for stage in self.basenet.values():
            x = stage(x)
            stages.append(x)
        for number, skip in enumerate(reversed(stages[:-1]), 1):
            if number > 1:
                x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            step = self.get_submodule(f"upconv{number}.conv")
            x = step(torch.cat([x, skip], 1))
        out: Tensor = self.conv_cls(x)
        return out


def _stage(start: int, plan: str, channels: int) -> tuple[nn.Sequential, int]:
    """One stage of VGG16, its layers named by their numbers; and the channels that it ends with."""
    layers: list[nn.Module] = []
    for word in plan.split():
        if word == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            width = int(word)
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return nn.Sequential(OrderedDict((str(start + i), layer) for i, layer in enumerate(layers))), channels


def _step_up(incoming: int, between: int, outgoing: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(incoming, between, 1),
        nn.BatchNorm2d(between),
        nn.ReLU(),
        nn.Conv2d(between, outgoing, 3, padding=1),
        nn.BatchNorm2d(outgoing),
        nn.ReLU(),
    )


def craft() -> Craft:
    """The pretrained detector at rest.

    Raises:
        MissingData: the weights cannot be had.
    """
    module = Craft()
    state = CRAFT.state_dict()
    module.load_state_dict({name.removeprefix("module."): each for name, each in state.items()})
    return module.eval()
