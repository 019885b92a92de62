"""Models that the command line is pointed at: one that converts, and everything that can be wrong with one."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """Conv, batch norm, ReLU, max-pool, linear on [n, 1, 8, 8]; untrained, the same numbers every time."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(1, 3, 3, padding=1)
            self.bn = nn.BatchNorm2d(3)
            self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x / 16)))
        return self.fc(torch.max_pool2d(x, 2).flatten(1))


def other() -> nn.Module:
    """The same layers, other numbers."""
    return Small(seed=1)


def talkative() -> nn.Module:
    """Prints."""
    print("a model is being made")
    return Small()


class Refused(nn.Module):
    """Two operations without a spiking form."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(torch.erfinv(x.flatten(1) / 17), 1)


def failing() -> nn.Module:
    raise RuntimeError("no such checkpoint")


def leaving() -> nn.Module:
    sys.exit(0)


def nothing() -> None:
    """Returns no module."""
