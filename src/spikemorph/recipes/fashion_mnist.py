"""Fashion-MNIST with 2-bit activations: a CNN of six convolutions, trained in float, then on integer grids.

Float training, then quantisation-aware training that also learns from the float network's outputs. The last
epoch is taken as it is; test data chose nothing. Validation accuracy is reported beside it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.data import Split, load
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.passes.levels import Levels, Override
from spikemorph.quantise import QuantisedNetwork, freeze, trainable
from spikemorph.recipes.recipe import Recipe, Trained
from spikemorph.recipes.result import Case, Progress, Result, accuracy, assess
from spikemorph.recipes.training import Report, Schedule, flip_and_shift, train

NAME = "fashion-mnist"
FLOAT = Schedule(epochs=10, rate=4e-3, seed=1)
QUANTISED = Schedule(epochs=10, rate=1.5e-3, decay=0.01, seed=2)
LEVELS = Levels(
    activation=3,
    weight_bits=4,
    overrides={"body.0.conv": Override(weight_bits=8), "head": Override(weight_bits=8)},
)


class Block(nn.Module):
    """Convolution 3x3, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, h, w] -> [batch, outputs, h, w]."""
        out: Tensor = self.relu(self.norm(self.conv(x)))
        return out


class FashionNet(nn.Module):
    """24-24-M-48-48-M-96-96-global average-10 on [batch, 1, 28, 28], pixels in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Block(1, 24),
            Block(24, 24),
            nn.MaxPool2d(2),
            Block(24, 48),
            Block(48, 48),
            nn.MaxPool2d(2),
            Block(48, 96),
            Block(96, 96),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [batch, 10]."""
        out: Tensor = self.head(self.pool(self.body(x)).flatten(1))
        return out


def train_float(folder: Path, report: Report) -> FashionNet:
    """The float network, trained or resumed in `folder`."""
    torch.manual_seed(0)
    data = load(NAME, Split.TRAIN)
    model = FashionNet().to(memory_format=torch.channels_last).train()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        scores = model(x.contiguous(memory_format=torch.channels_last))
        return F.cross_entropy(scores, y, label_smoothing=0.1)

    train(
        model,
        loss,
        (data.x, data.y),
        FLOAT,
        augment=flip_and_shift(2),
        checkpoint=folder / "float.pt",
        report=lambda line: report(f"float {line}"),
    )
    plain: FashionNet = model.to(memory_format=torch.contiguous_format).eval()
    return plain


def train_quantised(graph: Graph, folder: Path, report: Report) -> QuantisedNetwork:
    """The quantised network, trained or resumed in `folder`, taught by labels and by the float network.

    Args:
        graph: the captured float network.
    """
    torch.manual_seed(0)
    data = load(NAME, Split.TRAIN)
    network = trainable(graph, LEVELS, data.x[:512])

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            taught = evaluate_float(graph, (x,), keep=False)[graph.outputs[0]]
        scores = network(x)
        soft = F.kl_div(scores.log_softmax(1), taught.log_softmax(1), reduction="batchmean", log_target=True)
        return 0.3 * F.cross_entropy(scores, y, label_smoothing=0.1) + soft

    train(
        network,
        loss,
        (data.x, data.y),
        QUANTISED,
        augment=flip_and_shift(2),
        checkpoint=folder / "quantised.pt",
        report=lambda line: report(f"quantised {line}"),
    )
    return network


def capture_float(model: nn.Module) -> Graph:
    """The trained float network as a graph."""
    return capture(model, torch.zeros(2, 1, 28, 28))


def fit(folder: Path, report: Report) -> Trained:
    """Both trainings, and validation accuracies in percent."""
    graph = capture_float(train_float(folder, report))
    integer = freeze(train_quantised(graph, folder, report))
    held_out = load(NAME, Split.VALIDATION)
    notes = {
        "validation_float": accuracy(evaluate(graph, held_out.x), held_out.y),
        "validation_qnn": accuracy(evaluate(integer, held_out.x), held_out.y),
        "float_epochs": FLOAT.epochs,
        "quantised_epochs": QUANTISED.epochs,
    }
    return Trained(graph, integer, notes)


def measure(case: Case, progress: Progress, full: bool) -> Result:
    """All 10,000 test images, every neuron."""
    return assess(case, load(NAME, Split.TEST), progress)


RECIPE = Recipe(
    NAME, LEVELS.activation, LEVELS.weight_bits, fit, measure, lambda split: load(NAME, split), FashionNet
)
