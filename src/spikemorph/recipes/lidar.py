"""Collision avoidance from lidar: convolutions on every frame, a ReLU RNN over 32 frames, steering out.

Little data, and traces that differ: the network is small and trained with strong noise. The last epoch is
taken as it is; what was chosen, was chosen on validation traces, which the final training then includes.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.data import Split
from spikemorph.data.lidar import METRES, load_lidar
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.passes.levels import Levels
from spikemorph.quantise import QuantisedNetwork, freeze, trainable
from spikemorph.recipes.recipe import Recipe, Trained
from spikemorph.recipes.result import Case, Metric, Progress, Result, assess, with_delta
from spikemorph.recipes.training import Augment, Report, Schedule, train

NAME = "lidar"
LEVELS = Levels(activation=6, weight_bits=8)
FLOAT = Schedule(epochs=40, rate=3e-3, batch=32, decay=0.3, seed=1)
QUANTISED = Schedule(epochs=20, rate=1e-3, batch=32, decay=0.05, seed=2)
NOISE = 0.1
TURN = 12
Windows = tuple[Tensor, Tensor]
"""Ranges and steering."""
MSE = Metric("mse", lambda outputs, wanted: float((outputs - wanted).square().mean()))


@final
class LidarNet(nn.Module):
    """Eight ranges averaged, two convolutions over the beams of every frame, ReLU RNN of 24, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d((1, 8))
        self.front = nn.Sequential(
            nn.Conv2d(1, 8, (1, 7), (1, 3), (0, 3), bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, (1, 5), (1, 2), bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(0.5)
        self.rnn = nn.RNN(16 * 10, 24, nonlinearity="relu", batch_first=True)
        own = self.rnn.all_weights[0][1]
        own.data.copy_(0.5 * torch.eye(24))
        self.head = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Steering [batch, 32, 1] from ranges [batch, 32, 541] in 0..1."""
        y = self.front(self.pool(x.unsqueeze(1))).permute(0, 2, 1, 3).flatten(2)
        states, _ = self.rnn(self.dropout(y))
        out: Tensor = self.head(self.dropout(states))
        return out


def disturbed(noise: float) -> Augment:
    """Windows turned by up to `TURN` beams, ranges times a random factor a window, noise on every range."""

    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        turn = torch.randint(-TURN, TURN + 1, (len(x), 1, 1), generator=generator)
        beams = (torch.arange(x.shape[2]) + turn).clamp(0, x.shape[2] - 1)
        factor = 1 + 0.1 * torch.randn(len(x), 1, 1, generator=generator)
        turned = x.gather(2, beams.expand_as(x))
        return turned * factor + noise * torch.randn(x.shape, generator=generator)

    return augment


def train_float(data: Windows, place: Path, report: Report) -> Graph:
    """The float network, trained or resumed from the checkpoint `place`."""
    torch.manual_seed(0)
    model = LidarNet().train()
    train(
        model,
        lambda x, y: F.mse_loss(model(x), y),
        data,
        FLOAT,
        augment=disturbed(NOISE),
        checkpoint=place,
        report=lambda line: report(f"float {line}"),
    )
    return capture(model.eval(), data[0][:2])


def train_quantised(graph: Graph, data: Windows, place: Path, report: Report) -> QuantisedNetwork:
    """The quantised network, trained or resumed, taught by the float network alone."""
    torch.manual_seed(0)
    network = trainable(graph, LEVELS, data[0])

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            taught = evaluate_float(graph, (x,), keep=False)[graph.outputs[0]]
        return F.mse_loss(network(x), taught)

    train(
        network,
        loss,
        data,
        QUANTISED,
        augment=disturbed(NOISE / 4),
        checkpoint=place,
        report=lambda line: report(f"quantised {line}"),
    )
    return network


def fit(folder: Path, report: Report) -> Trained:
    """Trained without the validation traces, for the notes; then the same on all training traces."""
    part, held_out = load_lidar(Split.TRAIN), load_lidar(Split.VALIDATION)
    some, whole = (part.x, part.y), (torch.cat([part.x, held_out.x]), torch.cat([part.y, held_out.y]))
    checked = train_float(some, folder / "validated.float.pt", report)
    checked_qnn = freeze(train_quantised(checked, some, folder / "validated.quantised.pt", report))
    graph = train_float(whole, folder / "float.pt", report)
    integer = freeze(train_quantised(graph, whole, folder / "quantised.pt", report))
    notes = {
        "validation_float": MSE.of(evaluate(checked, held_out.x), held_out.y),
        "validation_qnn": MSE.of(evaluate(checked_qnn, held_out.x), held_out.y),
        "validated": "the same training without the validation traces; the network itself saw them",
        "float_epochs": FLOAT.epochs,
        "quantised_epochs": QUANTISED.epochs,
        "test_traces": list(load_lidar(Split.TEST).traces),
        "validation_traces": list(held_out.traces),
        "ranges_divided_by_metres": METRES,
    }
    return Trained(graph, integer, notes)


def measure(case: Case, progress: Progress, full: bool) -> Result:
    """All 250 test windows, every neuron after every frame, in both ways of hand-over."""
    data = load_lidar(Split.TEST)
    return with_delta(case, data, progress, assess(case, data, progress, metric=MSE), MSE)


RECIPE = Recipe(NAME, LEVELS.activation, LEVELS.weight_bits, fit, measure, load_lidar)
