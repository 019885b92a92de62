"""Pictures of scenes: colours belong to labels, columns to titles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spikemorph.data.camvid import CLASSES, VOID, normalised
from spikemorph.errors import DataError
from spikemorph.recipes.camvid_picture import COLOURS, GAP, HEAD, columns, draw, painted, photographed, sheet


def test_every_class_has_a_colour_of_its_own() -> None:
    assert len(set(COLOURS)) == len(CLASSES) + 1
    assert painted(torch.tensor([[[VOID, 3]]])).tolist() == [[[[0, 0, 0], [128, 64, 128]]]]


def test_photos_come_back_from_normalised_values() -> None:
    pixels = torch.randint(256, (2, 5, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(photographed(normalised(pixels.numpy())), pixels)


def test_void_is_black_whatever_a_network_sees() -> None:
    labels = torch.tensor([[[0, VOID]]])
    scores = torch.zeros(1, len(CLASSES), 1, 2)
    scores[:, 3] = 1
    made = columns(torch.zeros(1, 3, 1, 2), labels, {"seen": scores})
    assert list(made) == ["photo", "labels", "seen"]
    assert made["seen"].tolist() == [[[list(COLOURS[3]), [0, 0, 0]]]]
    assert made["labels"].tolist() == [[[list(COLOURS[0]), [0, 0, 0]]]]


def test_the_file_shows_columns_beside_each_other(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    numpy = pytest.importorskip("numpy")
    red, blue = torch.zeros(2, 20, 30, 3, dtype=torch.uint8), torch.zeros(2, 20, 30, 3, dtype=torch.uint8)
    red[..., 0], blue[..., 2] = 200, 100
    draw({"a": red, "b": blue}, tmp_path / "x.png")
    with image.open(tmp_path / "x.png") as opened:
        found = numpy.asarray(opened)
    assert found.shape == (HEAD + 2 * (20 + GAP), 2 * 30 + GAP, 3)
    assert (found[HEAD : HEAD + 20, :30] == [200, 0, 0]).all()
    assert (found[HEAD + 20 + GAP : HEAD + 40 + GAP, 30 + GAP :] == [0, 0, 100]).all()
    assert (found[HEAD : HEAD + 20, 30 : 30 + GAP] == 255).all()
    assert (found[:HEAD, :30] < 128).any()
    assert (found[:HEAD, 30 + GAP :] < 128).any()


def test_columns_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="pictures side by side"):
        sheet({"a": torch.zeros(1, 2, 2, 3), "b": torch.zeros(1, 2, 3, 3)})
    with pytest.raises(DataError, match="at least one column"):
        sheet({})
