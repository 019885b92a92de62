"""Which samples calibrate and which judge; what tells one search from another."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import final

import torch
from torch import Tensor

from spikemorph.errors import DataError, expect
from spikemorph.evaluate.encode import Samples, as_inputs
from spikemorph.ir.graph import Graph
from spikemorph.tune.config import Search
from spikemorph.tune.judge import SQUARED, Held

SEED = 0
"""Of the permutation that parts the samples."""
CODE = ("ir", "evaluate", "passes", "quantise", "convert", "run", "measure", "tune")
"""What judgements come from: another version of it may judge otherwise."""

Labelled = tuple[Samples, Tensor | None]


@final
@dataclass(frozen=True)
class Parted:
    """Samples by what they are for.

    Args:
        calibration, judges: by argument number, [samples, *shape].
        labels: of those that judge.
        digest: of everything that was given.
    """

    calibration: tuple[Tensor, ...]
    judges: tuple[Tensor, ...]
    labels: Tensor | None
    digest: str


def part(graph: Graph, given: Labelled, judges: Labelled | None, held_out: float) -> Parted:
    """Samples that calibrate and others that judge: those given for it, or a part held out.

    Raises:
        DataError: unfit samples, or too few.
    """
    inputs, labels = _checked(graph, given, "tune(data)", "tune(labels)")
    if judges is None:
        judging, rest = _drawn(len(inputs[0]), held_out)
        held = tuple(each[judging] for each in inputs)
        digest = _digest(*inputs, *([] if labels is None else [labels]))
        return Parted(
            tuple(each[rest] for each in inputs), held, None if labels is None else labels[judging], digest
        )
    expect("tune(judges)", judges, (tuple,), "pass (samples, labels), or (samples, None)")
    if len(judges) != 2:
        raise DataError(
            where="tune(judges)",
            got=f"{len(judges)} values",
            known="two: samples, and their labels or None",
            do="pass judges=(x_validation, y_validation)",
        )
    own, classes = _checked(graph, judges, "tune(judges)", "the labels in tune(judges)")
    everything = [*inputs, *own, *(each for each in (labels, classes) if each is not None)]
    return Parted(inputs, own, classes, _digest(*everything))


def _checked(
    graph: Graph, given: Labelled, where: str, of_labels: str
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    samples, labels = given
    inputs = as_inputs(graph, samples)
    expect(of_labels, labels, (Tensor, type(None)), "pass a tensor, torch.tensor(labels)")
    if len(inputs[0]) < 2:
        raise DataError(
            where=where, got=f"{len(inputs[0])} samples", known="at least 2", do="pass a few hundred samples"
        )
    if labels is not None and len(labels) != len(inputs[0]):
        raise DataError(
            where=of_labels,
            got=f"{len(labels)} for {len(inputs[0])} samples",
            known="one a sample",
            do="give every sample its label, or leave all out",
        )
    return inputs, labels


def _drawn(samples: int, held_out: float) -> tuple[Tensor, Tensor]:
    """Which samples judge and which calibrate, in order; drawn, as many data sets come sorted."""
    judges = round(samples * held_out)
    if judges < 1 or samples - judges < 2:
        raise DataError(
            where="tune(data)",
            got=f"{samples} samples, of which {held_out:g} are to be held out",
            known="at least 2 that calibrate and others that judge",
            do="pass a few hundred samples",
        )
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(SEED))
    return order[:judges].sort().values, order[judges:].sort().values


def check_resolution(held: Held, search: Search, *, apart: bool) -> None:
    """The samples that judge can tell losses as small as the bound.

    Raises:
        DataError: one sample is more.
    """
    finest = 100 / len(held)
    if held.measure != SQUARED and search.max_loss and search.max_loss < finest:
        wanted = math.ceil(100 / search.max_loss / (1 if apart else search.held_out))
        raise DataError(
            where="tune(max_loss)",
            got=f"{search.max_loss:g} points on {len(held)} samples {'that judge' if apart else 'held out'}",
            known=f"one sample is {finest:.5g} points: anything finer cannot be told",
            do=f"pass at least {wanted} samples, or allow {math.ceil(100 * finest) / 100:g} points"
            + (", or judge on a part of those that calibrate (--held-out 0.5)" if apart else ""),
        )


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """Of the code that judgements come from: a journal of an older quantiser is not read on."""
    digest = hashlib.sha256()
    for layer in CODE:
        for text in _sources(resources.files("spikemorph") / layer):
            digest.update(text)
    return digest.hexdigest()


def _sources(folder: Traversable) -> list[bytes]:
    found: list[bytes] = []
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if each.is_dir():
            found += _sources(each)
        elif each.name.endswith(".py"):
            found.append(each.read_bytes())
    return found
