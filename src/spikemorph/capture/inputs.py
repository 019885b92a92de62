"""Checks of example inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from spikemorph.errors import DataError

_KNOWN = "a floating-point tensor [batch, ...], or a tuple of them"


def checked_inputs(example_inputs: object) -> tuple[Tensor, ...]:
    """Example inputs as a tuple of batches of at least two samples.

    A single sample is repeated, because export takes a batch of one for a constant.

    Raises:
        DataError: no tensors, not floating-point, empty, not finite, or batches of different sizes.
    """
    items = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if not items:
        raise _wrong("example_inputs", "an empty tuple", "pass what forward takes")
    tensors = tuple(_checked(f"example_inputs[{i}]", each) for i, each in enumerate(items))
    sizes = [each.shape[0] for each in tensors]
    if len(set(sizes)) != 1:
        raise _wrong(
            "example_inputs", f"batch sizes {sizes}", "give all inputs the same number of samples on axis 0"
        )
    return tuple(torch.cat((each, each)) if sizes[0] == 1 else each for each in tensors)


def _checked(where: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise _wrong(where, f"a value of type {type(value).__name__}", "pass a tensor, or a tuple of tensors")
    if not value.is_floating_point():
        raise _wrong(
            where,
            f"a tensor of {value.dtype}",
            "convert images with x.float() / 255; put embeddings in front of the captured model",
        )
    if value.dim() == 0 or value.numel() == 0:
        got = f"a tensor of shape {list(value.shape)}"
        raise _wrong(where, got, "pass at least one sample, [batch, ...]")
    if not bool(torch.isfinite(value).all()):
        raise _wrong(where, "NaN or infinity", "pass ordinary data, for example one batch of the test set")
    return value.detach()


def drawn_inputs(program: ExportedProgram) -> tuple[Tensor, ...]:
    """Example inputs of a program: its own, else normal random numbers for two samples."""
    stored = program.example_inputs
    if stored is not None:
        args, named = stored
        return checked_inputs((*args, *named.values()))
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn([2, *_sizes(value)[1:]], generator=generator, dtype=value.dtype)
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
