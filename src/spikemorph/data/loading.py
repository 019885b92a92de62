"""Named data sets as tensors: load one, list them, fetch one."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from typing import assert_never, final

import numpy as np
import torch
from numpy.typing import NDArray

from spikemorph.data.dataset import Dataset, Split
from spikemorph.data.fetch import bring
from spikemorph.data.folders import find, read
from spikemorph.data.idx import parse
from spikemorph.data.named import NAMED, EmbeddedSource, IdxSource, Labelled, Source
from spikemorph.data.pixels import unit_range
from spikemorph.errors import DataError, MissingData

_PARTS = 10
"""Every tenth sample of a set without an official split is test, the next tenth validation."""


@final
@dataclass(frozen=True, slots=True)
class SourceRow:
    """A line of the list of data sets.

    Args:
        where: the folder it was found in, else its origin.
        samples: of all parts together.
    """

    name: str
    where: str
    licence: str
    present: bool
    samples: int


def load(name: str, split: Split) -> Dataset:
    """A part of a named data set; fetched into the cache first where it is on no disk.

    `digits` is x [n, 1, 8, 8] in 0..16, `mnist` and `fashion-mnist` are [n, 1, 28, 28] in 0..1.

    Raises:
        MissingData: not on this machine, and not to be had.
        DataError: an unknown name or split, or files with the wrong checksum.
    """
    if not isinstance(split, Split):
        raise DataError(
            where="load(split)",
            got=repr(split),
            known=", ".join(str(each) for each in Split),
            do="pass one of them",
        )
    return load_source(named(name), split)


def load_source(source: Source, split: Split) -> Dataset:
    """A part of a data set; errors as in `load`."""
    match source:
        case EmbeddedSource():
            images, labels = _digits(source)
            chosen = _committed(source.name, split)
            x = images[chosen].astype(np.float32)
            y = labels[chosen]
        case IdxSource():
            images, labels = _idx(source, source.test if split is Split.TEST else source.train)
            chosen = _official(source, split)
            x, y = unit_range(images[chosen]), labels[chosen]
        case _:
            assert_never(source)
    return Dataset(
        x=torch.from_numpy(x).unsqueeze(1),
        y=torch.from_numpy(y.astype(np.int64)),
        name=source.name,
        split=split,
        classes=source.classes,
    )


def sources() -> list[SourceRow]:
    """Every named data set, and whether it is on this machine. Nothing is fetched or read."""
    return [_row(source) for source in NAMED]


def fetch(name: str) -> SourceRow:
    """Make sure that a named data set is on this machine, with the right checksums.

    Raises:
        MissingData: it is not to be had.
        DataError: an unknown name, or files with the wrong checksum.
    """
    source = named(name)
    match source:
        case EmbeddedSource():
            _digits(source)
        case IdxSource():
            folder = find(source) or bring(source)
            for file in source.files:
                read(folder, file)
        case _:
            assert_never(source)
    return _row(source)


def named(name: str) -> Source:
    """The source of that name.

    Raises:
        DataError: no such name.
    """
    known = {source.name: source for source in NAMED}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise DataError(
        where="data set",
        got=repr(name),
        known=", ".join(known),
        do=f"did you mean {near[0]}?" if near else "choose one of them, or give a .npz with x and y",
    )


def _row(source: Source) -> SourceRow:
    match source:
        case EmbeddedSource():
            where, present = source.origin, _sklearn_is_there()
        case IdxSource():
            folder = find(source)
            where, present = str(folder or source.origin), folder is not None
        case _:
            assert_never(source)
    return SourceRow(source.name, where, source.licence, present, source.samples)


def _idx(source: IdxSource, part: Labelled) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    folder = find(source) or bring(source)
    images, labels = (
        parse(read(folder, file), str(folder / file.name)) for file in (part.images, part.labels)
    )
    return images, labels


def _official(source: IdxSource, split: Split) -> NDArray[np.int64]:
    """Indices into the official part: all of test; a tenth of train, drawn with seed 0, is validation."""
    if split is Split.TEST:
        return np.arange(source.test.samples)
    order = np.random.default_rng(0).permutation(source.train.samples)
    held_out = source.train.samples // _PARTS
    return order[:held_out] if split is Split.VALIDATION else order[held_out:]


def _committed(name: str, split: Split) -> NDArray[np.int64]:
    text = resources.files("spikemorph.data").joinpath("splits", f"{name}.json").read_text(encoding="utf-8")
    return np.array(json.loads(text)[split.value], np.int64)


def _sklearn_is_there() -> bool:
    return find_spec("sklearn") is not None


def _digits(source: EmbeddedSource) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images [n, 8, 8] in 0..16 and labels [n]."""
    if not _sklearn_is_there():
        raise MissingData(
            where=f"data set {source.name}",
            got="scikit-learn, which carries it, is not installed",
            known=source.origin,
            do="pip install 'spikemorph[recipes]'",
        )
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = found.images.astype(np.uint8), found.target.astype(np.uint8)
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    if digest != source.sha256:
        raise DataError(
            where=f"data set {source.name}",
            got=f"{len(images)} images of scikit-learn with sha256 {digest}",
            known=f"sha256 {source.sha256}",
            do="install the scikit-learn release again; results on other digits do not compare",
        )
    return images, labels
