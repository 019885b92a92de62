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
    torch.manual_seed(1)
    what, convert = WAYS[way]
    with pytest.warns(CalibrationWarning) as caught:
        convert(graph, made())
    (warning,) = caught
    assert warning.filename == __file__
    text = str(warning.message)
    assert text.startswith(f"calibration: {said}")
    assert f"known: {what} fit what is seen" in text
    assert "do:    pass a few hundred different samples" in text
    if "contrast" in said and way == "quantised":
        silent = int(text.split("samples; ")[1].split(" of ", maxsplit=1)[0])
        assert silent >= 3


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
