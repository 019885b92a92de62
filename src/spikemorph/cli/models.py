"""From what a user types to a model, its data and its levels."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.cli.output import guest
from spikemorph.convert.network import Binary, Graded, Spike, Ternary
from spikemorph.data import NAMED, Split, load, load_file
from spikemorph.data.images import load_folder
from spikemorph.errors import CaptureError, UnsupportedOps, UsageError
from spikemorph.ir.graph import Graph


def load_model(reference: str, weights: Path | None) -> Any:
    """A module in eval mode from `package.module:factory`, or an exported program from a .pt2 file.

    Both run code of others: a factory is code, and torch.export.load may unpickle objects of a .pt2 file.

    Raises:
        UsageError: no such file, module or factory, weights that do not fit.
    """
    if reference.endswith(".pt2"):
        return _load_program(Path(reference), weights)
    model = _call_factory(reference)
    if weights is not None:
        _load_weights(model, weights)
    return model.eval()


def _load_program(path: Path, weights: Path | None) -> Any:
    if weights is not None:
        raise UsageError(
            where="--weights",
            got=str(weights),
            known="a .pt2 file carries its own weights",
            do="leave it out",
        )
    try:
        with guest(), _quiet():
            return torch.export.load(path)
    except Exception as error:
        raise UsageError(
            where=str(path),
            got=f"not readable: {error}",
            known="a file of torch.export.save",
            do="export the model again",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch logs the traceback of what it raises anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _call_factory(reference: str) -> nn.Module:
    module_name, _, factory = reference.partition(":")
    how = "package.module:factory, or a .pt2 file of torch.export"
    if not factory or not module_name:
        raise UsageError(
            where="MODEL", got=repr(reference), known=how, do="name a function that returns the module"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        with guest():
            model = getattr(importlib.import_module(module_name), factory)()
    except (Exception, SystemExit) as error:
        raise UsageError(
            where=f"MODEL {reference}",
            got=f"{type(error).__name__}: {error}",
            known=how,
            do=f"try it from this folder: python -c 'import {module_name}; {module_name}.{factory}()'",
        ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(
            where=f"MODEL {reference}",
            got=f"a {type(model).__name__}",
            known="a function without arguments, or a class, that gives a torch.nn.Module",
            do="wrap it in such a function",
        )
    return model


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(_state(path))
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        if type(error).__name__ == "UnpicklingError":  # torch's own words advise to execute the file
            got = "damaged, or it holds objects besides tensors, which could run code"
        raise UsageError(
            where=f"--weights {path}",
            got=got,
            known="a state dict of this model, .safetensors or a .pth that holds tensors only",
            do="save it with torch.save(model.state_dict(), path)",
        ) from error


def _state(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file as load_safetensors

        return load_safetensors(path)
    state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def load_samples(name: str, split: Split, samples: int | None) -> tuple[Tensor, Tensor | None]:
    """Inputs and perhaps labels of a registered name, a .npz file or a folder of class folders with images.

    Raises:
        UsageError: none of these.
        DataError: damaged or missing data.
    """
    if name in {source.name for source in NAMED}:
        data = load(name, split)
        x, y = data.x, data.y
    elif name.endswith(".npz"):
        x, y = load_file(name)  # type: ignore[assignment]
    elif Path(name).is_dir():
        x, y = load_folder(name)
    else:
        raise UsageError(
            where=f"--data {name}",
            got="no registered name, .npz file or folder",
            known=", ".join(source.name for source in NAMED)
            + ", FILE.npz with x and y, a folder of class folders",
            do="`spikemorph data` lists the registered names",
        )
    if samples is not None and samples < 1:
        raise UsageError(where="--samples", got=str(samples), known="at least 1", do="leave it out for all")
    return (x, y) if samples is None else (x[:samples], None if y is None else y[:samples])


def example_of(data: str | None, shape: str | None) -> Tensor:
    """Two example samples, from data or of a shape such as 3,224,224.

    Raises:
        UsageError: neither is given, or a shape that is none.
    """
    if shape is not None:
        try:
            sizes = [int(part) for part in shape.split(",")]
            if min(sizes) < 1:
                raise ValueError(shape)
        except ValueError as error:
            raise UsageError(
                where="--shape",
                got=repr(shape),
                known="sizes without the batch, such as 3,224,224",
                do="use commas",
            ) from error
        return torch.zeros(2, *sizes)
    if data is None:
        raise UsageError(
            where="the example input",
            got="neither --data nor --shape",
            known="one is needed",
            do="add --shape 1,28,28",
        )
    x, _ = load_samples(data, Split.TRAIN, 2)
    return x


def captured(model: Any, x: Tensor, data: str, batch_axis: int = 0) -> Graph:
    """The graph of a model for samples like these.

    Raises:
        CaptureError: it cannot be captured, and which samples it was given.
    """
    try:
        with guest():
            return capture(model, placed(x[:2], batch_axis), batch_axis=batch_axis)
    except UnsupportedOps:
        raise
    except CaptureError as error:
        raise CaptureError(
            where=error.where,
            got=f"{error.got}; it was given samples of shape {list(x.shape[1:])}, those of --data {data}",
            known=error.known,
            do=error.do,
        ) from error


def placed(x: Tensor, batch_axis: int) -> Tensor:
    """Samples [batch, ...] with the batch where the model has it.

    Raises:
        UsageError: they have no such axis.
    """
    if batch_axis >= x.dim():
        raise UsageError(
            where="--batch-axis",
            got=f"{batch_axis} for samples of shape {list(x.shape)}",
            known=f"an axis from 0 to {x.dim() - 1}",
            do="1 for a model that takes [elements, batch, ...]; leave it out for [batch, ...]",
        )
    return x.movedim(0, batch_axis)


def parse_spike(text: str) -> Spike:
    """Ternary() of "ternary", Binary() of "binary", Graded(m) of "graded:m".

    Raises:
        UsageError: anything else.
        LevelsError: m out of range.
    """
    kind, _, largest = text.partition(":")
    if kind in {"ternary", "binary"} and kind == text:
        return Ternary() if kind == "ternary" else Binary()
    # More digits are out of range anyway, and int() refuses thousands of them in words of its own.
    if kind == "graded" and largest.isascii() and largest.isdigit() and len(largest) <= 20:
        return Graded(int(largest))
    raise UsageError(
        where="--spike", got=repr(text), known="binary, ternary, or graded:4", do="choose one of these"
    )
