"""Named data sets: found, checked, split and listed. Nothing here needs the network."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from spikemorph.data import NAMED, Dataset, Split, fetch, load, loading, sources
from spikemorph.data.folders import candidates, find, roots
from spikemorph.data.idx import parse
from spikemorph.data.loading import load_source
from spikemorph.data.named import FASHION_MNIST, MNIST, IdxSource, Web
from spikemorph.errors import DataError, MissingData
from tiny_data import TEST, TRAIN, contents, idx, lay, tiny


# ---------------------------------------------------------------- splits
def test_digits_are_the_committed_split() -> None:
    pytest.importorskip("sklearn")
    parts = {split: load("digits", split) for split in Split}
    assert {split: len(part) for split, part in parts.items()} == {
        Split.TRAIN: 1439,
        Split.VALIDATION: 179,
        Split.TEST: 179,
    }
    for part in parts.values():
        assert part.x.dtype == torch.float32
        assert part.x.shape[1:] == (1, 8, 8)
        assert part.classes == tuple("0123456789")
    everything = torch.cat([part.x for part in parts.values()])
    assert everything.unique().tolist() == [float(each) for each in range(17)]


def test_the_committed_split_is_the_rule() -> None:
    path = Path(loading.__file__).parent / "splits" / "digits.json"
    held = json.loads(path.read_text())
    order = np.random.default_rng(0).permutation(1797).tolist()
    assert (held["test"], held["validation"], held["train"]) == (order[:179], order[179:358], order[358:])


def test_digits_and_labels_stay_together() -> None:
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    part = load("digits", Split.TEST)
    chosen = np.random.default_rng(0).permutation(1797)[:179]
    assert torch.equal(part.x[:, 0].double(), torch.from_numpy(sklearn.images[chosen]))
    assert part.y.tolist() == sklearn.target[chosen].tolist()


def test_official_parts_split_without_overlap(home: Path) -> None:
    lay(home / "xdg" / "spikemorph" / "tiny")
    parts = {split: load_source(tiny(), split) for split in Split}
    pixels = {split: (part.x[:, 0, 0, 0] * 255).round().int().tolist() for split, part in parts.items()}
    assert pixels[Split.TEST] == list(range(TEST))
    order = np.random.default_rng(0).permutation(TRAIN).tolist()
    assert pixels[Split.VALIDATION] == order[: TRAIN // 10]
    assert pixels[Split.TRAIN] == order[TRAIN // 10 :]
    for split, part in parts.items():
        assert part.x.shape[1:] == (1, 3, 2)
        assert part.y.tolist() == [each % 10 for each in pixels[split]]


def test_the_validation_part_of_mnist_stays_the_same() -> None:
    chosen = loading._official(MNIST, Split.VALIDATION)
    assert len(chosen) == 6_000
    digest = hashlib.sha256(chosen.astype("<i8").tobytes()).hexdigest()
    assert digest == "56c6ddc041527eedbe8554f668467c31e85d8d6d7f9778e55614068d5b6bf4a6"


def test_pixels_are_bytes_over_255(home: Path) -> None:
    lay(home / "xdg" / "spikemorph" / "tiny")
    part = load_source(tiny(), Split.TEST)
    expected = np.arange(TEST, dtype=np.float32) / np.float32(255)
    assert part.x[:, 0, 2, 1].numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("source", [MNIST, FASHION_MNIST], ids=lambda source: source.name)
def test_the_real_files_where_they_are(source: IdxSource) -> None:
    if find(source) is None:
        pytest.skip(f"{source.name} is not on this machine: spikemorph.data.fetch({source.name!r}) gets it")
    part = load(source.name, Split.TEST)
    assert part.x.shape == (10_000, 1, 28, 28)
    assert part.x.min() == 0
    assert part.x.max() == 1
    assert len(part.y.bincount()) == len(part.classes) == 10


# ---------------------------------------------------------------- where files are
@pytest.mark.parametrize("below", ["tiny", "Tiny/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_found_plain_or_packed(home: Path, below: str, packed: bool) -> None:
    folder = lay(home / "xdg" / "spikemorph" / below, packed=packed)
    assert find(tiny()) == folder
    assert len(load_source(tiny(), Split.TEST)) == TEST


def test_folders_come_in_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, beside = home / "own" / "shared", home / "shared" / "data"
    monkeypatch.setenv("SPIKEMORPH_DATA", str(home / "own"))
    monkeypatch.setenv("SPIKEMORPH_SHARED", str(shared))
    cache = home / "xdg" / "spikemorph"
    assert [root.resolve() for root in roots()] == [home / "own", shared / "data", beside, cache]
    package = home / "usr"
    source = tiny(installed=(package,))
    assert find(source) is None
    for folder in (package, cache / "tiny", beside / "tiny", shared / "data" / "tiny", home / "own" / "tiny"):
        lay(folder)
        found = find(source)
        assert found is not None
        assert found.resolve() == folder


def test_half_a_set_is_no_set(home: Path) -> None:
    folder = lay(home / "xdg" / "spikemorph" / "tiny")
    (folder / "t10k-labels").unlink()
    assert find(tiny()) is None


@pytest.mark.parametrize("packed", [False, True])
def test_a_wrong_checksum_is_an_error(home: Path, packed: bool) -> None:
    folder = lay(home / "xdg" / "spikemorph" / "tiny", packed=packed)
    path = folder / ("t10k-images.gz" if packed else "t10k-images")
    other = contents()["t10k-images"][:-1] + b"\xff"
    path.write_bytes(gzip.compress(other) if packed else other)
    with pytest.raises(DataError) as met:
        load_source(tiny(), Split.TEST)
    assert met.value.where == str(path)
    assert hashlib.sha256(other).hexdigest() in met.value.got
    assert tiny().test.images.sha256 in met.value.known
    assert "delete the file" in met.value.do


@pytest.mark.parametrize(
    "held",
    [b"", b"no gzip", gzip.compress(contents()["t10k-images"])[:-20]],
    ids=["empty", "no gzip", "cut off"],
)
def test_a_damaged_gzip_is_an_error(home: Path, held: bytes) -> None:
    folder = lay(home / "xdg" / "spikemorph" / "tiny", packed=True)
    (folder / "t10k-images.gz").write_bytes(held)
    with pytest.raises(DataError, match=r"t10k-images\.gz"):
        load_source(tiny(), Split.TEST)


def test_bytes_after_the_right_ones_are_an_error(home: Path) -> None:
    folder = lay(home / "xdg" / "spikemorph" / "tiny", packed=True)
    (folder / "t10k-images.gz").write_bytes(gzip.compress(contents()["t10k-images"] + b"\0"))
    with pytest.raises(DataError, match="sha256"):
        load_source(tiny(), Split.TEST)


# ---------------------------------------------------------------- names
def test_rows_say_what_is_there(home: Path) -> None:
    rows = {row.name: row for row in sources()}
    assert list(rows) == ["digits", "mnist", "fashion-mnist"]
    assert (rows["mnist"].present, rows["mnist"].samples) == (False, 70_000)
    assert "LeCun" in rows["mnist"].where
    assert rows["digits"].samples == 1797
    assert all(row.licence for row in rows.values())
    folder = home / "xdg" / "spikemorph" / "mnist"
    folder.mkdir(parents=True)
    for file in MNIST.files:
        (folder / file.name).touch()
    row = next(row for row in sources() if row.name == "mnist")
    assert (row.present, row.where) == (True, str(folder))
    with pytest.raises(DataError, match="sha256"):
        fetch("mnist")


def test_fetch_brings_and_checks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny(Web(lay(home / "web", packed=True).as_uri() + "/"))
    monkeypatch.setattr(loading, "NAMED", (source,))
    row = fetch("tiny")
    assert (row.present, row.where, row.samples) == (True, str(home / "xdg" / "spikemorph" / "tiny"), 50)
    assert fetch("tiny") == row


@pytest.mark.parametrize(
    ("name", "advice"), [("minst", "did you mean mnist?"), ("zzz", "choose one of them")]
)
def test_an_unknown_name_lists_the_known(name: str, advice: str) -> None:
    with pytest.raises(DataError) as met:
        load(name, Split.TEST)
    assert met.value.got == repr(name)
    assert met.value.known == "digits, mnist, fashion-mnist"
    assert advice in met.value.do


def test_a_split_is_no_string() -> None:
    with pytest.raises(DataError, match=r"Split\.VALIDATION"):
        load("digits", "test")


def test_every_name_has_one_place() -> None:
    assert len({source.name for source in NAMED}) == len(NAMED)
    for source in (MNIST, FASHION_MNIST):
        assert len(candidates(source)) >= 2 * len(source.folders)
        assert all(len(file.sha256) == 64 for file in source.files)
        assert len({file.name for file in source.files}) == 4


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    assert not next(row for row in sources() if row.name == "digits").present
    with pytest.raises(MissingData, match=r"spikemorph\[recipes\]"):
        load("digits", Split.TEST)


def test_other_digits_are_an_error() -> None:
    pytest.importorskip("sklearn")
    other = dataclasses.replace(loading.named("digits"), sha256="0" * 64)
    with pytest.raises(DataError, match="1797 images of scikit-learn with sha256 87ff0c9e"):
        load_source(other, Split.TEST)


# ---------------------------------------------------------------- values
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64)),
    ],
)
def test_a_data_set_is_well_formed(x: torch.Tensor, y: torch.Tensor) -> None:
    with pytest.raises(DataError, match="data set tiny, test"):
        Dataset(x, y, "tiny", Split.TEST, ("a",))


def test_idx_round_trip() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(parse(idx(array), "file"), array)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "begins with nothing"),
        (b"\x1f\x8b\x08\x00", "begins with 1f 8b 08 00"),
        (b"\0\0\x0d\1\0\0\0\0", "type 0x0d"),
        (b"\0\0\x08\2\0\0\0\1", "2 axes, but the file ends"),
        (b"\0\0\x08\1\0\0\0\3ab", "sizes [3], but 2 bytes"),
        (b"\0\0\x08\1\0\0\0\3abcd", "sizes [3], but 4 bytes"),
    ],
)
def test_damaged_idx_files(content: bytes, got: str) -> None:
    with pytest.raises(DataError) as met:
        parse(content, "some/file")
    assert met.value.where == "some/file"
    assert got in met.value.got
