"""Collision avoidance from lidar: convolutions on every frame, a ReLU RNN over 32 frames, steering out.

Little data, and traces that differ: what was chosen (form of the network, input, epochs, no augmentation) was
chosen by the mean over four cuts of the training traces, the levels on the validation traces; the final
training then includes all training traces. The last epoch is taken as it is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.data import Split
from spikemorph.data.lidar import METRES, LidarWindows, load_lidar, traces_of
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.passes.levels import Levels
from spikemorph.quantise import QuantisedNetwork, freeze, trainable
from spikemorph.recipes.recipe import Recipe, Trained
from spikemorph.recipes.result import Case, Metric, Progress, Result, assess, with_delta
from spikemorph.recipes.training import Report, Schedule, train

NAME = "lidar"
LEVELS = Levels(activation=6, weight_bits=8)
FLOAT = Schedule(epochs=10, rate=3e-3, batch=32, decay=0.01, seed=1)
QUANTISED = Schedule(epochs=8, rate=1e-3, batch=32, decay=0.01, seed=2)
Windows = tuple[Tensor, Tensor]
"""Nearness and steering."""
MSE = Metric("mse", lambda outputs, wanted: float((outputs - wanted).square().mean()))


@final
class LidarNet(nn.Module):
    """Four convolutions over the beams of every frame, a dense layer, ReLU RNN of 32, linear."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width, stride, pool in ((18, 3, False), (20, 2, True), (22, 1, True), (24, 1, False)):
            layers += [nn.Conv2d(channels, width, (1, 5), (1, stride)), nn.ReLU()]
            layers += [nn.MaxPool2d((1, 2))] if pool else []
            channels = width
        self.front = nn.Sequential(*layers)
        self.dense = nn.Linear(24 * 16, 32)
        self.rnn = nn.RNN(32, 32, nonlinearity="relu", batch_first=True)
        own = self.rnn.all_weights[0][1]
        own.data.copy_(0.5 * torch.eye(32))
        self.head = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Steering [batch, 32, 1] from nearness [batch, 32, 541] in 0..1."""
        y = self.front(x.unsqueeze(1)).permute(0, 2, 1, 3).flatten(2)
        states, _ = self.rnn(torch.relu(self.dense(y)))
        out: Tensor = self.head(states)
        return out


def as_it_is(x: Tensor, generator: torch.Generator) -> Tensor:
    """No augmentation beyond the mirrored copies: noise, turned beams and dropout did not help."""
    return x


def windows(split: Split) -> LidarWindows:
    """Nearness 1 / (1 + metres) of every beam, 0.1..1: what matters for steering is what is close."""
    data = load_lidar(split)
    return replace(data, x=1 / (1 + METRES * data.x))


def train_float(data: Windows, place: Path, report: Report) -> Graph:
    """The float network, trained or resumed from the checkpoint `place`."""
    torch.manual_seed(0)
    model = LidarNet().train()
    train(
        model,
        lambda x, y: F.mse_loss(model(x), y),
        data,
        FLOAT,
        augment=as_it_is,
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
        augment=as_it_is,
        checkpoint=place,
        report=lambda line: report(f"quantised {line}"),
    )
    return network


def fit(folder: Path, report: Report) -> Trained:
    """Trained without the validation traces, for the notes; then the same on all training traces."""
    part, held_out = windows(Split.TRAIN), windows(Split.VALIDATION)
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
        "test_traces": list(traces_of(Split.TEST)),
        "validation_traces": list(held_out.traces),
        "input": "1 / (1 + metres)",
    }
    return Trained(graph, integer, notes)


def measure(case: Case, progress: Progress, full: bool) -> Result:
    """All 250 test windows, every neuron after every frame, in both ways of hand-over."""
    data = windows(Split.TEST)
    return with_delta(case, data, progress, assess(case, data, progress, metric=MSE), MSE)


RECIPE = Recipe(NAME, LEVELS.activation, LEVELS.weight_bits, fit, measure, windows, LidarNet)
