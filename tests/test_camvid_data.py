"""Street scenes: the usual split, labels beside their photos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spikemorph.data import Split
from spikemorph.data.camvid import CLASSES, VOID, Scenes, load_camvid
from spikemorph.errors import DataError, MissingData


def scenes(split: Split) -> Scenes:
    try:
        return load_camvid(split)
    except MissingData as error:
        pytest.skip(str(error))


def test_the_parts_have_the_usual_sizes_and_share_no_photo() -> None:
    parts = [scenes(split) for split in Split]
    assert [len(each) for each in parts] == [367, 101, 233]
    seen = torch.cat([each.x[:, 0, ::40, ::40].flatten(1) for each in parts])
    assert len(torch.unique(seen, dim=0)) == 701


def test_photos_are_normalised_and_every_pixel_has_a_label() -> None:
    made = scenes(Split.VALIDATION)
    assert made.x.shape == (101, 3, 180, 240)
    assert made.x.dtype == torch.float32
    assert -2.2 < float(made.x.min()) < float(made.x.max()) < 2.7
    assert made.y.shape == (101, 180, 240)
    assert made.y.dtype == torch.int64
    assert set(made.y.unique().tolist()) <= set(range(VOID + 1))
    some = made.at(torch.tensor([7, 2]))
    assert torch.equal(some.x[1], made.x[2])
    assert torch.equal(some.y[0], made.y[7])


def test_labels_belong_to_their_photos() -> None:
    made = scenes(Split.VALIDATION)
    brightness = made.x.mean(1)
    sky, road = (brightness[made.y == CLASSES.index(name)].mean() for name in ("sky", "road"))
    assert sky > road + 1
    up = [(made.y == CLASSES.index(name)).float().mean((0, 2)).argmax() for name in ("sky", "road")]
    assert up[0] < 40
    assert up[1] > 120


def test_a_missing_file_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SPIKEMORPH_DATA", raising=False)
    monkeypatch.delenv("SPIKEMORPH_SHARED", raising=False)
    with pytest.raises(MissingData, match="camvid_240x180"):
        load_camvid(Split.TEST)


def test_another_file_of_that_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "camvid_240x180.tar").write_bytes(b"")
    monkeypatch.setenv("SPIKEMORPH_DATA", str(tmp_path))
    with pytest.raises(DataError, match="sha256"):
        load_camvid(Split.TEST)
