"""The recipe on tiny scenes: choices are made, kept and reported over steps; and its shipped network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import spikemorph as sm
from spikemorph.data import Split
from spikemorph.data.camvid import CLASSES, VOID, Scenes, load_camvid
from spikemorph.errors import MissingData
from spikemorph.measure.segmentation import scenes_iou
from spikemorph.recipes import camvid
from spikemorph.recipes.over_steps import QUIESCENT
from spikemorph.recipes.packed import halved
from spikemorph.recipes.result import Case

torch.set_num_threads(1)
RESULTS = Path(__file__).parents[1] / "results"
SIZES = {Split.TRAIN: 7, Split.VALIDATION: 2, Split.TEST: 3}


def tiny(split: Split) -> Scenes:
    generator = torch.Generator().manual_seed(len(split.value))
    n = SIZES[split]
    x = torch.rand((n, 3, 16, 16), generator=generator)
    return Scenes(x, torch.randint(VOID + 1, (n, 16, 16), generator=generator), "tiny", split)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> sm.Graph:
    monkeypatch.setattr(camvid, "load_camvid", tiny)
    monkeypatch.setattr(camvid, "CALIBRATION", 5)
    monkeypatch.setattr(camvid, "SHOWN", 2)
    monkeypatch.setattr(camvid, "TESTED", 2)
    monkeypatch.setattr(camvid, "VERIFIED", 1)
    monkeypatch.setattr(camvid, "STEPS", (4, 12))
    monkeypatch.setattr(camvid, "FULL", (4, 12, 14))
    monkeypatch.setattr(camvid, "UNITS", (camvid.Setting(3, 1), camvid.Setting(7, 4)))
    monkeypatch.setattr(camvid, "SIZED", (camvid.Setting(7, 2),))
    monkeypatch.setattr(camvid, "SHIPPED", camvid.Setting(7, 1))
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, len(CLASSES), 1), nn.Upsample(scale_factor=2))
    model = nn.Sequential(*layers).eval()
    return halved(sm.capture(model, tiny(Split.TRAIN).x[:2]))


def test_choices_of_training_photos_are_what_test_photos_see(small: sm.Graph) -> None:
    lines: list[str] = []
    trained = camvid.settle(small, lines.append)
    assert any("ramp of" in line for line in lines)
    notes = json.loads(json.dumps(trained.notes))
    assert notes["chosen"].keys() == camvid.families(lambda levels: small).keys()
    assert list(notes["chosen"][camvid.TERNARY]) == ["4", "12", "14", QUIESCENT]
    case = Case("camvid", small, trained.integer_graph, sm.convert(trained.integer_graph), 7, 8, notes)
    told: list[tuple[int, int]] = []
    result = camvid.measure(case, lambda *done: told.append(done), False)
    assert told[-1][0] == told[-1][1]
    test = tiny(Split.TEST)
    some = test.at(camvid.spread(3, 2))
    assert result.samples == 2
    assert result.float == scenes_iou(sm.evaluate(small, some.x), some.y)
    assert result.snn == result.by_method[camvid.TERNARY][QUIESCENT]
    assert list(result.by_method[camvid.TERNARY]) == ["4", "12", QUIESCENT]
    assert list(result.by_method["rate, binary"]) == ["4", "12"]
    assert result.lossless
    assert result.neurons_compared == result.neurons
    for key, method in result.notes["method"].items():
        assert result.loss[key] == result.float - result.by_method[method][key]
    assert result.loss_graded.keys() == {"4", "12", QUIESCENT}
    assert result.notes["all_test_photos"]["float"] == scenes_iou(sm.evaluate(small, test.x), test.y)


def test_photos_to_choose_on_are_not_those_to_calibrate_with(small: sm.Graph) -> None:
    calibration, shown = camvid.photos()
    assert (len(calibration), len(shown)) == (5, 2)
    both = torch.cat((calibration, shown)).flatten(1)
    assert len(torch.unique(both, dim=0)) == 7


def test_the_shipped_network_sees_streets() -> None:
    try:
        test = load_camvid(Split.TEST).at(torch.tensor(camvid.DRAWN))
    except MissingData as missing:
        pytest.skip(str(missing))
    assert scenes_iou(sm.evaluate(camvid.RECIPE.graph(None, "float"), test.x), test.y) > 45


def test_the_network_that_is_shipped_and_verified_is_the_one_reported_at_rest() -> None:
    made = json.loads((RESULTS / "camvid.json").read_text())
    assert made["notes"]["chosen"] == camvid.RECIPE.notes(None)["chosen"]
    assert made["notes"]["chosen"][camvid.TERNARY][QUIESCENT][0] == str(camvid.SHIPPED)
    assert made["qnn"] == made["snn"] == made["by_method"][camvid.TERNARY][QUIESCENT]


def test_the_shipped_file_is_small() -> None:
    folder = Path(camvid.__file__).parent / "networks"
    assert (folder / "camvid.float.safetensors").stat().st_size < 4_000_000
