"""MNIST pixel by pixel: what the recipes on pixel sequences share.

Float training with random affine maps of the images, then quantisation-aware training that also learns from
the float network. The last epoch is taken as it is; test data chose nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.data import Dataset, Split, load
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.passes.levels import Levels
from spikemorph.quantise import QuantisedNetwork, freeze, trainable
from spikemorph.recipes.recipe import Recipe, Trained
from spikemorph.recipes.result import Case, Measure, Progress, Result, accuracy
from spikemorph.recipes.training import Augment, Report, Schedule, train

PIXELS = 784
CALIBRATION = 1024


@final
@dataclass(frozen=True)
class Front:
    """One convolution over time: Conv1d, batch norm, ReLU.

    Args:
        padding: zeros on both sides; None: as many as a window is long, all in front (no look-ahead).
    """

    channels: int
    kernel: int
    stride: int = 1
    padding: int | None = 0
    dilation: int = 1


@final
@dataclass(frozen=True)
class Task:
    """One experiment on pixel sequences.

    Args:
        front: convolutions in front of the recurrence.
        units: recurrent neurons.
        strength: of the random affine maps of training images, see `affine`.
        permuted: whether the pixels come in the committed random order.
        measure: a case, its data, and whether everything is asked for, to the result.
    """

    name: str
    front: tuple[Front, ...]
    units: int
    levels: Levels
    float_schedule: Schedule
    quantised_schedule: Schedule
    measure: Measure
    strength: float = 1.0
    permuted: bool = False

    def recipe(self) -> Recipe:
        """As the command line knows it."""
        levels, bits = self.levels.activation, self.levels.weight_bits
        return Recipe(self.name, levels, bits, self._fit, self._measure, self.data, self._module)

    def data(self, split: Split) -> Dataset:
        """Pixel sequences [n, 1, 784] in 0..1, in the order of the task."""
        images = load("mnist", split)
        return Dataset(self._flat(images.x), images.y, self.name, split, images.classes)

    def _flat(self, images: Tensor) -> Tensor:
        flat = images.flatten(2)
        return flat[:, :, permutation()] if self.permuted else flat

    def _module(self) -> nn.Module:
        return PixelNet(self.front, self.units)

    def _fit(self, folder: Path, report: Report) -> Trained:
        graph = self._float(folder, report)
        integer = freeze(self._quantised(graph, folder, report))
        held_out = self.data(Split.VALIDATION)
        notes = {
            "validation_float": accuracy(evaluate(graph, held_out.x), held_out.y),
            "validation_qnn": accuracy(evaluate(integer, held_out.x), held_out.y),
            "float_epochs": self.float_schedule.epochs,
            "quantised_epochs": self.quantised_schedule.epochs,
            "pixel_order": "recipes/ps-mnist-permutation.json" if self.permuted else "row by row",
        }
        return Trained(graph, integer, notes)

    def _float(self, folder: Path, report: Report) -> Graph:
        torch.manual_seed(0)
        images = load("mnist", Split.TRAIN)
        model = PixelNet(self.front, self.units).train()
        train(
            model,
            lambda x, y: F.cross_entropy(model(self._flat(x)), y, label_smoothing=0.05),
            (images.x, images.y),
            self.float_schedule,
            augment=affine(self.strength),
            checkpoint=folder / "float.pt",
            report=lambda line: report(f"float {line}"),
        )
        return capture(model.eval(), self._flat(images.x[:2]))

    def _quantised(self, graph: Graph, folder: Path, report: Report) -> QuantisedNetwork:
        torch.manual_seed(0)
        images = load("mnist", Split.TRAIN)
        network = trainable(graph, self.levels, self._flat(images.x[:CALIBRATION]))

        def loss(x: Tensor, y: Tensor) -> Tensor:
            x = self._flat(x)
            with torch.no_grad():
                taught = evaluate_float(graph, (x,), keep=False)[graph.outputs[0]].log_softmax(1)
            scores = network(x)
            soft = F.kl_div(scores.log_softmax(1), taught, reduction="batchmean", log_target=True)
            return soft + 0.3 * F.cross_entropy(scores, y, label_smoothing=0.05)

        train(
            network,
            loss,
            (images.x, images.y),
            self.quantised_schedule,
            augment=affine(self.strength),
            checkpoint=folder / "quantised.pt",
            report=lambda line: report(f"quantised {line}"),
        )
        return network

    def _measure(self, case: Case, progress: Progress, full: bool) -> Result:
        return self.measure(case, self.data(Split.TEST), progress, full)


@final
class PixelNet(nn.Module):
    """Convolutions over time, one ReLU recurrence, a linear layer on its last state; [batch, 1, 784]."""

    def __init__(self, front: tuple[Front, ...], units: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for each in front:
            if each.padding is None:
                layers.append(nn.ConstantPad1d((each.dilation * (each.kernel - 1), 0), 0.0))
            conv = nn.Conv1d(
                channels,
                each.channels,
                each.kernel,
                each.stride,
                each.padding or 0,
                each.dilation,
                bias=False,
            )
            layers += [conv, nn.BatchNorm1d(each.channels), nn.ReLU()]
            channels = each.channels
        self.front = nn.Sequential(*layers)
        self.rnn = nn.RNN(channels, units, nonlinearity="relu", batch_first=True)
        incoming, own = self.rnn.all_weights[0][:2]
        own.data.copy_(0.9 * torch.eye(units))  # Le, Jaitly, Hinton, arXiv 1504.00941
        nn.init.normal_(incoming, std=channels**-0.5)
        self.head = nn.Linear(units, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [batch, 10]."""
        states, _ = self.rnn(self.front(x).transpose(1, 2))
        out: Tensor = self.head(states[:, -1])
        return out


def permutation() -> Tensor:
    """The committed order of the pixels: numpy.random.default_rng(0).permutation(784)."""
    text = resources.files("spikemorph.recipes").joinpath("ps-mnist-permutation.json").read_text()
    return torch.tensor(json.loads(text))


def affine(strength: float) -> Augment:
    """Random affine maps of images [batch, 1, height, width], zero padded.

    Args:
        strength: at 1, up to 10 degrees, 10 % of scale and shear, and 2 of 28 pixels of shift.
    """
    degrees, scale, shift, shear = (strength * each for each in (10.0, 0.1, 2.0, 0.1))

    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        turn, grow_x, grow_y, lean, right, down = (
            2 * torch.rand(6, len(x), generator=generator) - 1
        ).unbind()
        angle = turn * degrees * torch.pi / 180
        wide, high = 1 + grow_x * scale, 1 + grow_y * scale
        matrix = torch.stack(
            [
                torch.stack(
                    [angle.cos() * wide, -angle.sin() * high + lean * shear, 2 * shift / 28 * right], 1
                ),
                torch.stack([angle.sin() * wide, angle.cos() * high, 2 * shift / 28 * down], 1),
            ],
            1,
        )
        grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    return augment
