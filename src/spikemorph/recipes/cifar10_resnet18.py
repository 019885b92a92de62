"""A narrow ResNet-18 for CIFAR-10 in float: the source of training-free conversions.

The layers are those of He et al., Deep residual learning for image recognition, 2016 (two basic blocks in
each of four stages), with the 3x3 stem and without the pool that images of 32x32 pixels ask for, and with 16
to 128 channels instead of 64 to 512. Every ReLU is a module of its own: some converters ask for that.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.data import Split
from spikemorph.data.cifar import load_cifar10
from spikemorph.recipes.training import Report, Schedule, flip_and_shift, train

CYCLES = (Schedule(epochs=16, rate=4e-3, seed=1), Schedule(epochs=20, rate=3e-3, seed=2))
"""One after the other, each from warm-up to rest."""
WIDTHS = (16, 32, 64, 128)
"""Channels of the four stages."""


@final
class Block(nn.Module):
    """Two convolutions and the skip around them, on [batch, channels, height, width]."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width, height / stride, width / stride]."""
        out = self.relu1(self.bn1(self.conv1(x)))
        summed: Tensor = self.relu2(self.bn2(self.conv2(out)) + self.downsample(x))
        return summed


@final
class ResNet18(nn.Module):
    """Class scores of [batch, 3, 32, 32], pixels in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        channels = WIDTHS[0]
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        blocks: list[nn.Module] = []
        for i, width in enumerate(WIDTHS):
            blocks += [Block(channels, width, 1 if i == 0 else 2), Block(width, width, 1)]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [batch, 10]."""
        out: Tensor = self.fc(self.avgpool(self.blocks(self.relu1(self.bn1(self.conv1(x))))).flatten(1))
        return out


def train_float(folder: Path, report: Report) -> ResNet18:
    """The network, trained or resumed in `folder`, at rest."""
    torch.manual_seed(0)
    data = load_cifar10(Split.TRAIN)
    model = ResNet18().to(memory_format=torch.channels_last).train()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = model(x.contiguous(memory_format=torch.channels_last))
        return F.cross_entropy(scores.float(), y, label_smoothing=0.1)

    for number, schedule in enumerate(CYCLES):
        train(
            model,
            loss,
            (data.x, data.y),
            schedule,
            augment=flip_and_shift(4),
            checkpoint=folder / f"float-{number}.pt",
            report=_named(report, f"float, cycle {number + 1}"),
        )
    return model.to(memory_format=torch.contiguous_format).eval()


def _named(report: Report, what: str) -> Report:
    return lambda line: report(f"{what}: {line}")
