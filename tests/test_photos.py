"""Photos of ImageNet: which are for what, and how they look to a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spikemorph.data import Split
from spikemorph.data.dataset import Dataset
from spikemorph.data.photos import CROP, load_photos
from spikemorph.errors import MissingData


def photos(split: Split, samples: int) -> Dataset:
    try:
        return load_photos(split, samples=samples)
    except MissingData as error:
        pytest.skip(str(error))


def test_calibration_and_test_share_no_class() -> None:
    parts = [photos(split, 7) for split in (Split.VALIDATION, Split.TEST)]
    classes = [set(each.y.tolist()) for each in parts]
    assert all(label % 2 == 0 for label in classes[0])
    assert all(label % 2 == 1 for label in classes[1])
    assert min(classes[0]) == 0
    assert max(classes[1]) == 999


def test_crops_are_normalised() -> None:
    made = photos(Split.VALIDATION, 4)
    assert made.x.shape == (4, 3, CROP, CROP)
    assert made.x.dtype == torch.float32
    assert made.x.min() >= -2.2
    assert made.x.max() <= 2.7
    assert len(made.classes) == 1000
    assert made.classes[0] == "tench"


def test_there_is_no_training_part() -> None:
    with pytest.raises(MissingData, match="calibration"):
        load_photos(Split.TRAIN)


def test_a_missing_file_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SPIKEMORPH_DATA", raising=False)
    monkeypatch.delenv("SPIKEMORPH_SHARED", raising=False)
    with pytest.raises(MissingData, match="imagenet_1000_256"):
        load_photos(Split.TEST)
