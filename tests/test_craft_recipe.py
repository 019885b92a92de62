"""The recipe of CRAFT: what is reported, and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spikemorph.recipes import RECIPES
from spikemorph.recipes.craft import MAIN, Seen, as_choices, as_notes, chosen_in, row_of, shipped
from spikemorph.recipes.craft_picture import ENLARGED, columns
from spikemorph.recipes.over_steps import QUIESCENT
from test_craft import heat

RESULT = Path(__file__).parent.parent / "results" / "craft.json"


def test_rows_put_networks_for_several_steps_together() -> None:
    pytest.importorskip("scipy")
    wanted = heat((0, slice(5, 9), slice(10, 26), 0.9)).unsqueeze(0)
    y = torch.tensor([[[16, 6, 56, 22], [-1, -1, -1, -1]]])
    early, late = Seen({"8": wanted * 0.5}, {"8": 1.0}), Seen({QUIESCENT: wanted}, {QUIESCENT: 2.0})
    row = row_of([late, early], wanted, y)
    assert row.words == {"8": 0, QUIESCENT: 100}
    assert row.agreement == {"8": 0, QUIESCENT: 100}
    assert row.spikes == {"8": 1.0, QUIESCENT: 2.0}
    assert row.heat["8"]["region"]["relative"] == pytest.approx(0.5)
    assert row.heat[QUIESCENT]["region"]["mean_absolute"] == 0
    assert row.heat["8"]["affinity"]["relative"] == 0


def test_pictures_have_the_boxes_of_words_and_of_what_was_found() -> None:
    x = torch.zeros(1, 3, 40, 80)
    y = torch.tensor([[[10, 10, 30, 20]]])
    made = columns(x, y, {"float": heat((0, slice(5, 9), slice(10, 26), 0.9)).unsqueeze(0)})
    assert list(made) == ["words", "float"]
    assert {each.shape for each in made.values()} == {(1, 40 * ENLARGED, 80 * ENLARGED, 3)}
    assert made["words"][0, 20, 40].tolist() == [0, 220, 60]
    assert made["words"][0, 21, 41].tolist() == [0, 0, 0]
    assert made["float"][0, 12, 40].tolist() == [255, 60, 30]


def test_choices_survive_being_notes() -> None:
    for each in chosen_in(shipped()).values():
        assert as_choices(json.loads(json.dumps(as_notes(each)))) == each


def test_the_committed_result_says_what_was_lost() -> None:
    if not RESULT.exists():
        pytest.skip("not measured yet: spikemorph reproduce craft --evaluate --json")
    made = json.loads(RESULT.read_text())
    assert made["recipe"] == "craft"
    assert made["neurons_different"] == 0
    assert made["snn"] == made["qnn"]
    assert set(made["by_method"]) == {"lossless", "lossless, graded(4)", "training-free"}
    for steps, value in made["by_method"]["lossless"].items():
        assert made["loss"][steps] == pytest.approx(made["float"] - value)
    assert made["notes"]["chosen"] == shipped()["chosen"]
    assert chosen_in(shipped())["ternary"][QUIESCENT].levels == MAIN
    assert RECIPES["craft"].levels == made["levels"]
