"""Calibration data that says too little is reported, with what it does."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

import spikemorph as sm
from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import CalibrationWarning, DataError
from spikemorph.evaluate.batching import Batches
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.ir.store import graph_hash
from spikemorph.quantise.methods import Reconstruction

LEVELS = sm.Levels(activation=15, granularity=sm.levels.PerChannel())


def calibrated(graph: Graph, x: Batches) -> Graph:
    network = sm.trainable(graph, LEVELS)
    network.calibrate(x)
    return sm.freeze(network)


WAYS: dict[str, tuple[str, Callable[[Graph, Batches], object]]] = {
    "balanced": ("thresholds", lambda graph, x: sm.convert(graph, sm.TrainingFree(), x)),
    "rate": ("thresholds", lambda graph, x: sm.convert(graph, sm.Rate(), x)),
    "quantised": ("units", lambda graph, x: sm.quantise(graph, x, LEVELS)),
    "trainable": ("units", lambda graph, x: sm.freeze(sm.trainable(graph, LEVELS, x))),
    "calibrated": ("units", calibrated),
    "reconstructed": ("units", lambda graph, x: sm.quantise(graph, x, LEVELS, Reconstruction())),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Two layers; the first channel answers to contrast alone, and two never do."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
    with torch.no_grad():
        first.weight[0] -= first.weight[0].mean((1, 2), keepdim=True)
        first.bias[0] = -0.01
        first.bias[1:3] = -100
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)).eval()
    return sm.capture(net, torch.zeros(2, 3, 12, 12))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: torch.randn(2, 3, 12, 12), "2 samples"),
        (lambda: torch.randn(1, 3, 12, 12), "1 sample"),
        (lambda: torch.randn(1, 3, 12, 12).expand(40, -1, -1, -1), "40 samples, all alike"),
        (lambda: torch.rand(40, 3, 1, 1).expand(-1, -1, 12, 12), "40 samples without contrast"),
        (lambda: 0.5 + 1e-6 * torch.randn(40, 3, 12, 12), "40 samples without contrast"),
        (
            lambda: pad(torch.rand(40, 3, 1, 1).expand(-1, -1, 10, 10), (1, 1, 1, 1)),
            "40 samples without contrast",
        ),
        (lambda: torch.randn(2, 3, 12, 12).repeat(20, 1, 1, 1), "40 samples, 2 of them different"),
    ],
)
def test_poor_samples_are_reported_with_what_they_do(
    graph: Graph, way: str, made: Callable[[], Tensor], said: str
) -> None:
    what, convert = WAYS[way]
    with pytest.warns(CalibrationWarning) as caught:
        convert(graph, made())
    (warning,) = caught
    assert warning.filename == __file__
    text = str(warning.message)
    assert text.startswith(f"calibration: {said}")
    assert f"known: {what} fit what is seen" in text
    assert "do:    pass a few hundred different samples" in text


def text_of(way: str, graph: Graph, x: Tensor) -> str:
    with pytest.warns(CalibrationWarning) as caught:
        WAYS[way][1](graph, x)
    return str(caught[0].message)


def largest(graph: Graph, x: Tensor) -> Tensor:
    """[channels of both layers]."""
    values = evaluate_float(graph, (x,))
    relus = [node.name for node in graph.body if isinstance(node.op, ops.Elementwise)]
    return torch.cat([values[name].amax((0, 2, 3)) for name in relus])


@pytest.mark.parametrize("repeats", [1, 20])
def test_how_far_thresholds_move_between_halves_is_said(graph: Graph, repeats: int) -> None:
    x = torch.randn(4, 3, 12, 12)
    one, other = largest(graph, x[:2]), largest(graph, x[2:])
    live = torch.maximum(one, other) > 0
    apart = ((one - other).abs() / torch.maximum(one, other))[live].quantile(0.5)
    assert 0.02 < apart < 0.5
    said = f"those of one half of the samples differ from the other half's by {apart:.0%} (median)"
    assert said in text_of("balanced", graph, x.repeat(repeats, 1, 1, 1))


def test_units_move_as_their_observer_finds_them(graph: Graph) -> None:
    x = torch.randn(1, 3, 12, 12)
    x = torch.cat([x, 3 * x]) * 2**6  # beside which biases are small
    for observer in (sm.levels.Max(), sm.levels.LeastSquares(), sm.levels.Percentile(90)):
        with pytest.warns(CalibrationWarning, match=r"the other half's by (6[5-9]|70)% \(median\)"):
            sm.quantise(graph, x, sm.Levels(activation=15, observer=observer))


def test_one_sample_and_constant_ones_are_not_halved(graph: Graph) -> None:
    x = torch.randn(1, 3, 12, 12)
    for way in WAYS:
        assert "; a single sample does not show by how much; " in text_of(way, graph, x)
        assert "half" not in text_of(way, graph, torch.rand(40, 3, 1, 1).expand(-1, -1, 12, 12))


@pytest.mark.parametrize(
    ("way", "guessed"),
    [("balanced", "{} of 16 thresholds"), ("rate", "0 of 2 thresholds"), ("quantised", "{} of 16 units")],
)
def test_channels_that_were_never_active_are_counted(graph: Graph, way: str, guessed: str) -> None:
    x = torch.rand(40, 3, 1, 1).expand(-1, -1, 12, 12)
    silent = int((largest(graph, x) == 0).sum())
    assert silent >= 3
    said = f"{silent} of 16 channels never were active, and {guessed.format(silent)} are guesses"
    assert said in text_of(way, graph, x)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.linspace(-0.25, 2.5, 432), "-0.25..2.5"),
        (torch.arange(432) % 70 / 255 + 20 / 255, "20..89 of 0..255"),
        (torch.arange(432) % 200.0, "0..199"),
        (torch.arange(432) % 70 / 255 - 20 / 255, "-0.0784..0.192"),
    ],
)
def test_the_range_of_the_input_is_said(graph: Graph, x: Tensor, said: str) -> None:
    assert f"; inputs are {said}\n" in text_of("quantised", graph, x.reshape(1, 3, 12, 12))


def test_networks_of_several_inputs_and_recurrences_are_remarked_on() -> None:
    net = Two().eval()
    x = (torch.randn(2, 5, 3), torch.randn(2, 4))
    with pytest.warns(CalibrationWarning, match="of 3 units are guesses") as caught:
        sm.quantise(sm.capture(net, x), x, sm.Levels(activation=15))
    assert "inputs are" not in str(caught[0].message)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.first, self.last = nn.RNN(3, 4, batch_first=True), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.last(self.rnn(x)[0][:, -1] + torch.relu(self.first(y)))


@pytest.mark.parametrize("way", WAYS)
def test_good_samples_and_wrong_shapes_are_not_warned_of(graph: Graph, way: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CalibrationWarning)
        WAYS[way][1](graph, torch.randn(8, 3, 12, 12))
        with pytest.raises(DataError, match=r"shape \(40, 3, 10, 10\)"):
            WAYS[way][1](graph, torch.randn(40, 3, 10, 10))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([torch.full((40, 3, 12, 12), 0.5)], "40 samples without contrast"),
        ([torch.randn(1, 3, 12, 12), torch.randn(1, 3, 12, 12)], "2 samples"),
    ],
)
def test_data_that_can_be_read_once_is_reported_too(
    graph: Graph, way: str, parts: list[Tensor], said: str
) -> None:
    convert = WAYS[way][1]
    with pytest.warns(CalibrationWarning, match=f"calibration: {said}"):
        once = convert(graph, iter(parts))
    assert hashed(once) == hashed(convert(graph, parts))


def hashed(made: object) -> str:
    assert isinstance(made, Graph | SpikingNetwork)
    return graph_hash(made if isinstance(made, Graph) else made.graph)
