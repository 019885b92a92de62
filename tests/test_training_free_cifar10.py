"""The contest on CIFAR-10, with a small network and noise instead of images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import spikemorph as sm
from spikemorph.convert.methods import convert
from spikemorph.data import Dataset, Split
from spikemorph.recipes import jelly
from spikemorph.recipes import training_free_cifar10 as recipe
from spikemorph.recipes.over_steps import QUIESCENT
from spikemorph.recipes.result import Case, accuracy

pytestmark = pytest.mark.filterwarnings("ignore")  # SpikingJelly's, while it is imported


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    pytest.importorskip("spikingjelly")
    torch.manual_seed(0)
    x, y = torch.rand(20, 3, 6, 6), torch.arange(20) % 4
    small = {"CALIBRATION": 20, "BATCH": 10, "SHOWN": 8, "PASSES": (1, 8), "FULL": (4, 16), "STEPS": (4,)}
    for name, value in small.items():
        monkeypatch.setattr(recipe, name, value)
    monkeypatch.setattr(recipe, "UNITS", recipe.UNITS[1:3])
    monkeypatch.setattr(recipe, "SIZED", recipe.SIZED[:1])
    monkeypatch.setattr(recipe, "calibration", lambda: x)
    monkeypatch.setattr(recipe, "load_cifar10", lambda split: Dataset(x, y, "noise", split, ()))
    monkeypatch.setattr(jelly, "PASSES", (1, 8))
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 4))
    return nn.Sequential(*layers).eval()


def test_choices_are_made_once_and_resumed(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = sm.capture(module, recipe.calibration()[:2])
    lines: list[str] = []
    integer, notes = recipe.settle(module, graph, tmp_path, lines.append)
    assert len(lines) == len(notes["chosen"]) + 1
    for name, won in notes["chosen"].items():
        assert won.keys() - {QUIESCENT} == {"4", "16"}
        assert (QUIESCENT in won) == name.startswith("lossless")
    assert notes["chosen"]["local threshold balancing, binary"]["16"][0] == "8 passes"
    assert notes["chosen"]["least squares, ternary"]["4"][0] == "in 4"
    assert notes[recipe.THEIRS].keys() == {"4", "16"}
    assert notes["levels"] == max(each.levels for each in recipe.UNITS)
    monkeypatch.setattr(recipe, "choose", None)
    monkeypatch.setattr(recipe.Theirs, "choose", None)
    again, same = recipe.settle(module, graph, tmp_path, lines.append)
    assert same == notes
    assert torch.equal(sm.evaluate(again, recipe.calibration()), sm.evaluate(integer, recipe.calibration()))


def test_every_method_is_measured_and_losses_are_those_of_the_chosen_ones(
    module: nn.Module, tmp_path: Path
) -> None:
    graph = sm.capture(module, recipe.calibration()[:2])
    integer, notes = recipe.settle(module, graph, tmp_path, lambda line: None)
    case = Case("noise", graph, integer, convert(integer), 0, 8, notes)
    seen: list[tuple[int, int]] = []
    result = recipe.compare(module, case, lambda done, total: seen.append((done, total)), False, 12)
    assert seen[-1][0] == seen[-1][1] == max(done for done, _ in seen)
    data = recipe.load_cifar10(Split.TEST).first(12)
    assert result.float == accuracy(sm.evaluate(graph, data.x), data.y)
    assert result.by_method.keys() == {*notes["chosen"], jelly.AS_IT_IS, jelly.CHOSEN}
    for name, row in result.by_method.items():
        assert row.keys() == ({"4", QUIESCENT} if name.startswith("lossless") else {"4"})
    assert result.samples == 12
    assert result.notes["costs"].keys() == notes["chosen"].keys()
    facts = result.notes[f"{recipe.THEIRS}, run"]
    assert facts["spikes a sample, 1 passes"][4] > 0
    assert facts["seconds a sample, 1 passes"] > 0
    assert result.levels == notes["levels"]
    assert result.lossless
    for key, lost in result.loss.items():
        assert lost == result.float - result.by_method[result.notes["method"][key]][key]
    assert result.loss.keys() == result.loss_graded.keys() == {"4", QUIESCENT}
    assert recipe.GRADED not in result.notes["method"].values()
    graded = result.by_method[recipe.GRADED]
    assert result.loss_graded == {key: result.float - value for key, value in graded.items()}
    full = recipe.compare(module, case, lambda done, total: None, True, 12)
    assert full.by_method[jelly.CHOSEN].keys() == {"4", "16"}
