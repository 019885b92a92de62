"""Lidar windows and their recipe: the split, mirrored copies, errors, a training of one epoch."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spikemorph.data import Split
from spikemorph.data import lidar as source
from spikemorph.data.lidar import ARCHIVE, METRES, STRIDE, TEST, TRACES, WINDOW, load_lidar, traces_of
from spikemorph.errors import DataError, MissingData
from spikemorph.recipes import lidar as recipe

FRAMES = WINDOW + STRIDE + 1
"""Of a made-up trace: two windows, and as many mirrored ones."""
BEAMS = 541
Arrays = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]


@pytest.fixture
def made_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> Arrays:
    """29 short traces where data sets are looked for, taken for the real ones."""
    rng = np.random.default_rng(3)
    arrays = {}
    for trace in range(TRACES):
        arrays[f"lidar_{trace}"] = rng.integers(0, 62, (FRAMES, BEAMS)) / 8
        arrays[f"steer_{trace}"] = rng.integers(-8, 9, FRAMES) / 8
    np.savez(home / "own" / ARCHIVE.file, allow_pickle=False, **arrays)
    monkeypatch.setenv("SPIKEMORPH_DATA", str(home / "own"))
    digest = hashlib.sha256((home / "own" / ARCHIVE.file).read_bytes()).hexdigest()
    monkeypatch.setattr(source, "ARCHIVE", replace(ARCHIVE, sha256=digest))
    return arrays


def test_traces_are_shuffled_as_in_the_loader_of_ncps() -> None:
    assert traces_of(Split.TEST) == (6, 18, 9, 26, 7, 24, 22)
    splits = [traces_of(split) for split in Split]
    assert sorted(trace for traces in splits for trace in traces) == list(range(TRACES))
    assert [len(traces) for traces in splits] == [18, 4, TEST]


def test_the_real_file_has_the_windows_of_the_loader_of_ncps() -> None:
    try:
        train, validation, test = (load_lidar(split) for split in Split)
    except MissingData as missing:
        pytest.skip(str(missing))
    assert (len(train.x) + len(validation.x), len(test.x)) == (678, 250)
    assert (len(train.x), len(validation.x)) == (546, 132)
    for part in (train, validation, test):
        assert part.x.shape[1:] == (WINDOW, BEAMS)
        assert part.y.shape == (len(part.x), WINDOW, 1)
        assert (part.x.dtype, part.y.dtype) == (torch.float32, torch.float32)
        assert 0 <= float(part.x.min()) < float(part.x.max()) <= 1
        assert float(part.y.abs().max()) <= 1
    assert float(test.y.square().mean()) == pytest.approx(0.175, abs=5e-4), "predict-zero of PAPERS.md 1d"


@pytest.mark.parametrize("split", list(Split))
def test_windows_are_cut_and_mirrored(split: Split, made_up: Arrays) -> None:
    part = load_lidar(split)
    assert (part.name, part.split, part.traces) == ("lidar", split, traces_of(split))
    assert len(part.x) == 4 * len(part.traces)
    for at, trace in enumerate(part.traces):
        x, y = part.x[4 * at : 4 * at + 4], part.y[4 * at : 4 * at + 4]
        for window, start in enumerate((0, STRIDE)):
            assert np.array_equal(METRES * x[window], made_up[f"lidar_{trace}"][start : start + WINDOW])
            assert np.array_equal(y[window, :, 0], made_up[f"steer_{trace}"][start : start + WINDOW])
        assert torch.equal(x[2:], x[:2].flip(2))
        assert torch.equal(y[2:], -y[:2])


@pytest.mark.usefixtures("home")
def test_a_missing_file_is_an_error_that_says_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPIKEMORPH_DATA", str(tmp_path / "own"))
    with pytest.raises(MissingData) as met:
        load_lidar(Split.TEST)
    assert met.value.where == "data set lidar"
    assert met.value.got == f"no file {ARCHIVE.file}"
    assert met.value.known.startswith(str(tmp_path / "own"))
    assert "SPIKEMORPH_DATA" in met.value.do


def test_another_file_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEMORPH_DATA", str(home / "own"))
    (home / "own" / ARCHIVE.file).write_bytes(b"other")
    with pytest.raises(DataError) as met:
        load_lidar(Split.TEST)
    assert met.value.where == str(home / "own" / ARCHIVE.file)
    assert met.value.got == f"sha256 {hashlib.sha256(b'other').hexdigest()}"
    assert met.value.known == f"sha256 {source.ARCHIVE.sha256}"
    assert "fetch" in met.value.do


@pytest.mark.usefixtures("made_up")
def test_the_recipe_goes_from_training_to_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLOAT", "QUANTISED"):
        monkeypatch.setattr(recipe, name, replace(getattr(recipe, name), epochs=1))
    lines: list[str] = []
    recipe.RECIPE.train(tmp_path, lines.append)
    result = recipe.RECIPE.evaluate(tmp_path, lambda done, total: None)
    assert (result.recipe, result.metric, result.samples, result.elements) == ("lidar", "mse", 28, WINDOW)
    assert (result.lossless, result.neurons_different) == (True, 0)
    assert result.snn == result.qnn
    assert result.notes["test_traces"] == list(traces_of(Split.TEST))
    assert {"validation_float", "validation_qnn"} <= result.notes.keys()
    assert any("quantised epoch 1/1" in line for line in lines)
