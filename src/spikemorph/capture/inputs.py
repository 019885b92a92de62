"""Checks of example inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.nn.utils.rnn import PackedSequence

from spikemorph.capture.refusals import PACKED
from spikemorph.capture.values import Ints
from spikemorph.errors import DataError

_KNOWN = "a floating-point tensor [batch, ...], or a tuple of them"


def checked_inputs(example_inputs: object, batch_axis: int | Ints) -> tuple[tuple[Tensor, ...], Ints]:
    """Example inputs as a tuple of contiguous batches of at least two samples, and the batch axis of each.

    A single sample is repeated, because export takes a batch of one for a constant.

    Raises:
        DataError: no tensors, not floating-point, empty, not finite, or batches of different sizes.
    """
    if isinstance(example_inputs, PackedSequence):
        raise _packed("example_inputs")
    items = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if not items:
        raise _wrong("example_inputs", "an empty tuple", "pass what forward takes")
    axes = _batch_axes(batch_axis, len(items))
    pairs = list(zip(items, axes, strict=True))
    for i, item in enumerate(items):
        _check_no_lengths(f"example_inputs[{i}]", item, len(items))
    tensors = tuple(_checked(f"example_inputs[{i}]", *pair) for i, pair in enumerate(pairs))
    sizes = [each.shape[axis] for each, axis in zip(tensors, axes, strict=True)]
    if len(set(sizes)) != 1:
        raise _wrong(
            "example_inputs",
            f"batch sizes {sizes} on axes {list(axes)}",
            "give all inputs the same number of samples; where the batch is not on axis 0, say so: "
            "batch_axis=(0, 1) for a sequence and an initial state [layers, batch, units]",
        )
    return repeated(tensors, axes, max(sizes[0], 2)), axes


def repeated(tensors: tuple[Tensor, ...], axes: Ints, samples: int) -> tuple[Tensor, ...]:
    """The same batches with as many samples, over and over again."""
    index = torch.arange(samples) % tensors[0].shape[axes[0]]
    return tuple(
        each.index_select(axis, index.to(each.device)) for each, axis in zip(tensors, axes, strict=True)
    )


def _batch_axes(batch_axis: int | Ints, count: int) -> Ints:
    """One axis an input."""
    axes = batch_axis if isinstance(batch_axis, tuple) else (batch_axis,) * count
    right = len(axes) == count and all(type(each) is int and each >= 0 for each in axes)
    if not right:
        raise DataError(
            where="batch_axis",
            got=f"{batch_axis!r}",
            known="an axis from 0 on for all inputs, or a tuple with one for each",
            do=f"pass a number, or a tuple of {count}",
        )
    return axes


def _packed(where: str) -> DataError:
    got, known, do = PACKED
    return DataError(where=where, got=got.removeprefix("on "), known=known, do=do)


def _check_no_lengths(where: str, item: object, inputs: int) -> None:
    """Whole numbers, one a sample, beside another input: lengths of sequences, as packing takes them."""
    if inputs > 1 and isinstance(item, Tensor) and item.dim() == 1 and not item.is_floating_point():
        known, do = PACKED[1:]
        raise DataError(
            where=where,
            got=f"a tensor of {item.dtype}, one number a sample, such as lengths of packed sequences",
            known=f"{known}; packed sequences are not captured",
            do=f"capture a forward that takes no lengths: {do}; where they are indices, put their "
            "embedding in front of the captured model",
        )


def _checked(where: str, value: object, axis: int) -> Tensor:
    if isinstance(value, PackedSequence):
        raise _packed(where)
    if not isinstance(value, Tensor):
        raise _wrong(where, f"a value of type {type(value).__name__}", "pass a tensor, or a tuple of tensors")
    if not value.is_floating_point():
        raise _wrong(
            where,
            f"a tensor of {value.dtype}",
            "convert images with x.float() / 255; put embeddings in front of the captured model",
        )
    if value.dim() <= axis:
        got = f"a tensor of shape {list(value.shape)}" + (f" with the batch on axis {axis}" if axis else "")
        raise _wrong(where, got, "pass at least one sample, [batch, ...]")
    if value.numel() == 0:
        raise _empty(where, value, axis)
    if not bool(torch.isfinite(value).all()):
        raise _wrong(where, "NaN or infinity", "pass ordinary data, for example one batch of the test set")
    return value.detach()


def _empty(where: str, value: Tensor, axis: int) -> DataError:
    """Names the axis that is empty: the batch first."""
    empty = axis if value.shape[axis] == 0 else list(value.shape).index(0)
    what = "the batch" if empty == axis else "of every sample"
    return _wrong(
        where,
        f"a tensor of shape {list(value.shape)}: axis {empty}, {what}, has size 0",
        "pass at least one sample, [batch, ...]"
        if empty == axis
        else f"pass samples with at least one number along axis {empty}, such as one element of a sequence",
    )


def drawn_inputs(program: ExportedProgram) -> tuple[Tensor, ...]:
    """Example inputs of a program: its own, else normal random numbers for two samples."""
    stored = program.example_inputs
    if stored is not None:
        args, named = stored
        return (*args, *named.values())
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(_sizes(value), generator=generator, dtype=value.dtype)
        for value in input_values(program).values()
    )


def input_values(program: ExportedProgram) -> dict[str, Any]:
    """What is known of the tensor inputs of a program, by placeholder name."""
    names = {
        spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT
    }
    return {
        node.name: node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    }


def _sizes(value: Tensor) -> list[int]:
    if not value.is_floating_point():
        raise _wrong("the program", f"an input of {value.dtype}", "export the part behind the embedding")
    return [size if isinstance(size, int) else 2 for size in value.shape]


def _wrong(where: str, got: str, do: str) -> DataError:
    return DataError(where=where, got=got, known=_KNOWN, do=do)
