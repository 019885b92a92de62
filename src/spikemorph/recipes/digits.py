"""The demo: a plain CNN, a residual one and a CRNN on scikit-learn's 8x8 digits, trained here in seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.convert.methods import convert
from spikemorph.data import Dataset, Split, load
from spikemorph.passes.levels import Levels
from spikemorph.quantise import freeze, trainable
from spikemorph.recipes.result import Case, Progress, Result, assess
from spikemorph.recipes.training import Report, Schedule, shift, train

LEVELS = Levels(activation=3, weight_bits=4, identity=15)
SEQUENCE_LEVELS = Levels(activation=7, weight_bits=6)
FLOAT = Schedule(epochs=12, rate=1e-2, batch=64, seed=1)
QUANTISED = Schedule(epochs=12, rate=4e-3, batch=64, seed=2)


@final
class PlainNet(nn.Module):
    """16-32-M-32-linear on [batch, 1, 8, 8], pixels 0..16."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [batch, 10]."""
        out: Tensor = self.head(self.features(x / 16.0).flatten(1))
        return out


@final
class Residual(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, h, w] -> [batch, outputs, h / stride, w / stride]."""
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


@final
class ResidualNet(nn.Module):
    """A stem of 16 and two residual blocks on [batch, 1, 8, 8], pixels 0..16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.block1 = Residual(16, 16, 1)
        self.block2 = Residual(16, 32, 2)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [batch, 10]."""
        y = self.block2(self.block1(F.relu(self.norm(self.stem(x / 16.0)))))
        out: Tensor = self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))
        return out


@final
class ColumnNet(nn.Module):
    """A CRNN that reads [batch, 1, 8, 8], pixels 0..16, column by column: conv, ReLU RNN of 48, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.rnn = nn.RNN(16 * 8, 48, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [batch, 10]."""
        y = F.relu(self.norm(self.conv(x / 16.0)))
        states, _ = self.rnn(y.permute(0, 3, 1, 2).flatten(2))
        out: Tensor = self.head(states[:, -1])
        return out


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Levels]] = {
    "digits-cnn": (PlainNet, LEVELS),
    "digits-resnet": (ResidualNet, LEVELS),
    "digits-crnn": (ColumnNet, SEQUENCE_LEVELS),
}


def demo(report: Report, progress: Callable[[str], Progress]) -> list[Result]:
    """Train, quantise, convert, run and verify all networks on all test images.

    Args:
        report: gets a line for every finished part.
        progress: gives the progress callback of a network's verification.
    """
    return [demo_network(name, report, progress(name)) for name in NETWORKS]


def demo_network(name: str, report: Report, progress: Progress) -> Result:
    """One network from nothing to its verified spiking twin."""
    build, levels = NETWORKS[name]
    torch.manual_seed(0)
    data, test = load("digits", Split.TRAIN), load("digits", Split.TEST)
    with tempfile.TemporaryDirectory() as folder:
        model = build().train()
        _fit(model, lambda x, y: F.cross_entropy(model(x), y), data, FLOAT, Path(folder, "float.pt"))
        report(f"{name}: float network trained")
        graph = capture(model.eval(), data.x[:2])
        network = trainable(graph, levels, data.x[:256])
        _fit(
            network,
            lambda x, y: F.cross_entropy(network(x), y),
            data,
            QUANTISED,
            Path(folder, "quantised.pt"),
        )
        report(f"{name}: trained on integer grids, counts 0..{levels.activation}")
    integer = freeze(network)
    case = Case(name, graph, integer, convert(integer), levels.activation, levels.weight_bits)
    return assess(case, test, progress)


def _fit(
    module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], data: Dataset, schedule: Schedule, path: Path
) -> None:
    train(
        module, loss, (data.x, data.y), schedule, augment=shift(1), checkpoint=path, report=lambda line: None
    )
