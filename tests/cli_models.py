"""Models, weights and data that the command line is pointed at: what converts, and all that can be wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
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


class TimeFirst(nn.Module):
    """A recurrent layer on [elements, batch, 8], its last state to ten scores."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.rnn = nn.RNN(8, 6, nonlinearity="relu")
            self.fc = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][-1])


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


class Hostile:
    """Unpickling this writes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def lay_files(folder: Path) -> None:
    """Weights and data for Small, good and bad, beside a network file."""
    x = np.linspace(0, 16, 4 * 64, dtype=np.float32).reshape(4, 1, 8, 8)
    np.savez(folder / "x.npz", x=x)
    np.savez(folder / "no-x.npz", z=x)
    np.savez(folder / "nan.npz", x=np.where(x > 3, np.nan, x))
    np.savez(folder / "labels.npz", x=x, y=np.zeros(3, np.int64))
    np.savez(folder / "wide.npz", x=np.zeros((4, 1, 10, 10), np.float32))
    whole = (folder / "net.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    save_file({"weight": torch.zeros(2)}, folder / "foreign.safetensors")
    (folder / "broken.json").write_text('{"format": 1, "graph_')
    (folder / "list.json").write_text("[1]")
    (folder / "bytes.json").write_bytes(b"\xff\xfe\x00")
    state = Small().state_dict()
    torch.save(state, folder / "good.pth")
    save_file(state, folder / "good.safetensors")
    torch.save({"weight": torch.zeros(2)}, folder / "foreign.pth")
    torch.save({**state, "more": Hostile()}, folder / "hostile.pth")
    state["conv.weight"][1] = torch.nan
    torch.save(state, folder / "nan.pth")
    (folder / "broken.pt2").write_bytes(b"no archive")
