"""Lengths as users give them, and inputs without what stands behind the ends of their samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spikemorph.errors import DataError
from spikemorph.ir.elements import is_sequence
from spikemorph.ir.graph import Graph, Node

WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def as_lengths(lengths: Any) -> Tensor:
    """Lengths as a tensor with an axis, nothing else checked, so that batches can be cut from it.

    Raises:
        DataError: no numbers, or a single one.
    """
    try:
        found = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise unfit(f"{type(lengths).__name__}: {error}", ONE_EACH, TENSOR) from error
    if found.dim() == 0:
        raise unfit(f"{found.dtype} of shape []", ONE_EACH, TENSOR)
    return found


def checked(graph: Graph, lengths: Any, batch: int) -> Tensor:
    """Lengths of a batch as int64 [batch] on the CPU.

    Raises:
        DataError: they do not fit the batch, or the inputs do not all have elements, and as many.
    """
    if not is_sequence(graph):
        got = "lengths for a network without recurrent layers"
        raise unfit(got, "recurrent networks", "leave lengths out")
    longest = _longest(graph)
    given = as_lengths(lengths)
    if given.shape != (batch,) or given.dtype not in WHOLE:
        got = f"{given.dtype} of shape {list(given.shape)}"
        raise unfit(got, f"{batch} {ONE_EACH}", TENSOR)
    if int(given.min()) < 1 or int(given.max()) > longest:
        got = f"lengths {int(given.min())}..{int(given.max())}"
        raise unfit(
            got, f"1..{longest}", "leave empty samples out, cut longer ones, or capture a longer example"
        )
    return given.cpu().to(torch.int64)


def _longest(graph: Graph) -> int:
    """Elements of the inputs."""
    timed = [(node, node.shape[node.element_axis]) for node in graph.inputs if node.element_axis is not None]
    if not timed:
        raise unfit(
            "lengths for a network whose inputs have no elements",
            "an axis of the input that reaches a recurrence as time",
            "keep what mixes the whole of time (a linear layer over it, a flatten) behind the recurrence, or "
            "run samples of one length together",
        )
    if len({size for _, size in timed}) > 1:
        raise unfit(
            "lengths for inputs of " + ", ".join(f"{size} ('{node.name}')" for node, size in timed),
            "inputs with as many elements as each other, which end together",
            "run samples of one length together",
        )
    return timed[0][1]


def without_rest(graph: Graph, inputs: tuple[Tensor, ...], lengths: Any) -> tuple[Tensor, ...]:
    """Inputs [batch, *shape] with zeros behind the end of each sample, whatever stood there."""
    lengths = checked(graph, lengths, len(inputs[0]))
    return tuple(
        each
        if node.element_axis is None
        else torch.where(inside(node, lengths).to(each.device), each, torch.zeros_like(each))
        for node, each in zip(graph.inputs, inputs, strict=True)
    )


def inside(node: Node, lengths: Tensor) -> Tensor:
    """[batch, 1.., elements, 1..] bool: where the samples have not ended."""
    axis = node.element_axis
    assert axis is not None
    found = torch.arange(node.shape[axis])[None, :] < lengths[:, None]
    return found.reshape(len(lengths), *(1,) * axis, -1, *(1,) * (len(node.shape) - axis - 1))


ONE_EACH = "whole numbers, one a sample"
TENSOR = "pass a tensor of int64 [batch]"


def unfit(got: str, known: str, do: str) -> DataError:
    """Lengths that are not what they should be."""
    return DataError(where="lengths", got=got, known=known, do=do)
