"""CIFAR-10 with 2-bit activations and few spikes: a VGG of six convolutions, a penalty on counts.

Float training in bfloat16, then quantisation-aware training that also learns from the float network, then
short trainings from there, each with another penalty on the mean count. The shipped network is the one with
the fewest spikes among those that lose at most half a point of validation accuracy against the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.convert.methods import convert
from spikemorph.data import Split
from spikemorph.data.cifar import load_cifar10
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.passes.levels import Levels, Override
from spikemorph.quantise import QuantisedNetwork, freeze, trainable
from spikemorph.recipes.recipe import Recipe, Trained
from spikemorph.recipes.result import Case, Progress, Result, accuracy, assess
from spikemorph.recipes.training import Report, Schedule, flip_and_shift, train
from spikemorph.run.simulate import simulate

NAME = "cifar10-vgg"
FLOAT = Schedule(epochs=14, rate=3e-3, seed=1)
QUANTISED = Schedule(epochs=4, rate=1.5e-3, decay=0.01, seed=2)
PENALISED = Schedule(epochs=1, rate=5e-4, decay=0.01, seed=3)
PENALTIES = (0.0, 0.3, 0.6, 1.0, 3.0)
"""Weights of the mean |count| of a neuron in the loss."""
LOSS = 0.5
"""Points of validation accuracy that fewer spikes may cost."""
COUNTED = 500
"""Validation images on which spikes are counted."""
LEVELS = Levels(
    activation=3,
    weight_bits=4,
    overrides={"body.0": Override(weight_bits=8), "head": Override(weight_bits=8)},
)
PLAN: tuple[int | None, ...] = (64, 64, None, 128, 128, None, 256, 256, None)
"""Channels of convolutions; None: max-pool."""


@final
class Vgg(nn.Module):
    """64-64-M-128-128-M-256-256-M, then linear, on [batch, 3, 32, 32], pixels in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in PLAN:
            if width is None:
                layers.append(nn.MaxPool2d(2))
            else:
                conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [batch, 10]."""
        out: Tensor = self.head(self.body(x).flatten(1))
        return out


@final
@dataclass(frozen=True)
class Trial:
    """A network trained with one penalty."""

    penalty: float
    network: Graph
    validation: float
    spikes_per_neuron: float


def train_float(folder: Path, report: Report) -> Graph:
    """The float network, trained or resumed in `folder`."""
    torch.manual_seed(0)
    data = load_cifar10(Split.TRAIN)
    model = Vgg().to(memory_format=torch.channels_last).train()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = model(x.contiguous(memory_format=torch.channels_last))
        return F.cross_entropy(scores.float(), y, label_smoothing=0.1)

    train(
        model,
        loss,
        (data.x, data.y),
        FLOAT,
        augment=flip_and_shift(4),
        checkpoint=folder / "float.pt",
        report=lambda line: report(f"float {line}"),
    )
    return capture(model.to(memory_format=torch.contiguous_format).eval(), data.x[:2])


def train_quantised(
    graph: Graph,
    folder: Path,
    report: Report,
    schedule: Schedule,
    *,
    penalty: float,
    start: QuantisedNetwork | None = None,
) -> QuantisedNetwork:
    """On integer grids, taught by labels and by the float network.

    Args:
        penalty: weight of the mean |count| of a neuron.
        start: the network to go on from, None: the float network.
    """
    torch.manual_seed(0)
    data = load_cifar10(Split.TRAIN)
    network = trainable(graph, LEVELS, data.x[:512])
    if start is not None:
        network.load_state_dict(start.state_dict())
    name = "quantised" if start is None else f"penalty-{penalty:g}"

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            taught = evaluate_float(graph, (x,), keep=False)[graph.outputs[0]].float()
        scores, activity = network.with_activity(x)
        soft = F.kl_div(scores.log_softmax(1), taught.log_softmax(1), reduction="batchmean", log_target=True)
        return 0.3 * F.cross_entropy(scores, y, label_smoothing=0.1) + soft + penalty * activity

    train(
        network,
        loss,
        (data.x, data.y),
        schedule,
        augment=flip_and_shift(4),
        checkpoint=folder / f"{name}.pt",
        report=lambda line: report(f"{name} {line}"),
    )
    return network


def fit(folder: Path, report: Report) -> Trained:
    """All trainings; the trade-off of accuracy and spikes on validation images."""
    graph = train_float(folder, report)
    start = train_quantised(graph, folder, report, QUANTISED, penalty=PENALTIES[1])
    trials = []
    for penalty in PENALTIES:
        network = train_quantised(graph, folder, report, PENALISED, penalty=penalty, start=start)
        trials.append(tried(penalty, freeze(network)))
        report(
            f"penalty {penalty:g}: {trials[-1].validation:.2f} %, {trials[-1].spikes_per_neuron:.3f} spikes"
        )
    chosen = choose(trials)
    held_out = load_cifar10(Split.VALIDATION)
    notes: dict[str, Any] = {
        "validation_float": accuracy(evaluate(graph, held_out.x), held_out.y),
        "validation_qnn": chosen.validation,
        "penalty": chosen.penalty,
        "trade_off": [
            {
                "penalty": each.penalty,
                "validation_qnn": each.validation,
                "spikes_per_neuron": each.spikes_per_neuron,
            }
            for each in trials
        ],
        "float_epochs": FLOAT.epochs,
        "quantised_epochs": QUANTISED.epochs + PENALISED.epochs,
        "data": "JPEG-recompressed CIFAR-10, not bit for bit the official images",
    }
    return Trained(halved(graph), chosen.network, notes)


def halved(graph: Graph) -> Graph:
    """The float network with the weights of its convolutions in float16: half the file."""
    own = {node.op.weight for node in graph.nodes if isinstance(node.op, ops.Conv)}
    tensors = {name: each.half() if name in own else each for name, each in graph.tensors.items()}
    return graph.with_nodes(graph.nodes, tensors=tensors)


def tried(penalty: float, network: Graph) -> Trial:
    """Accuracy on all validation images, spikes on some."""
    held_out = load_cifar10(Split.VALIDATION)
    right = accuracy(evaluate(network, held_out.x), held_out.y)
    run = simulate(convert(network), held_out.x[:COUNTED])
    neurons = sum(torch.Size(node.shape).numel() for node in network.neurons)
    return Trial(penalty, network, right, run.spikes / (COUNTED * neurons))


def choose(trials: list[Trial]) -> Trial:
    """The fewest spikes among those close to the best."""
    best = max(each.validation for each in trials)
    close = [each for each in trials if each.validation >= best - LOSS]
    return min(close, key=lambda each: each.spikes_per_neuron)


def measure(case: Case, progress: Progress, full: bool) -> Result:
    """All 10,000 test images, every neuron."""
    return assess(case, load_cifar10(Split.TEST), progress)


RECIPE = Recipe(NAME, LEVELS.activation, LEVELS.weight_bits, fit, measure, load_cifar10, Vgg)
