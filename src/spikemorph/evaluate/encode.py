"""From input tensors to input counts, with every check that an input deserves."""

from __future__ import annotations

import torch
from torch import Tensor

from spikemorph.errors import DataError
from spikemorph.evaluate.ends import without_rest
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.ops import Input

Samples = Tensor | tuple[Tensor, ...]


def as_inputs(graph: Graph, x: Samples, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
    """The inputs as a tuple, one tensor [batch, *shape] for each input of the graph.

    Args:
        lengths: [batch], elements of each sample; whatever stands behind them becomes zero.

    Raises:
        DataError: wrong number, type, shape, an empty batch, NaN or infinite values, unfit lengths.
    """
    if not isinstance(x, Tensor | tuple | list):
        raise DataError(
            where="the input",
            got=type(x).__name__,
            known="a torch tensor, or a tuple of them",
            do="use torch.as_tensor(...)",
        )
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    if len(inputs) != len(graph.inputs):
        raise DataError(
            where="the input",
            got=f"{len(inputs)} tensor(s)",
            known=f"the network takes {len(graph.inputs)}",
            do="pass one tensor, or a tuple with one tensor for each argument",
        )
    for node, tensor in zip(graph.inputs, inputs, strict=True):
        _check(node, tensor)
    if len({tensor.shape[0] for tensor in inputs}) > 1:
        raise DataError(
            where="the input",
            got=f"batches of {', '.join(str(tensor.shape[0]) for tensor in inputs)}",
            known="all inputs share one batch axis in front",
            do="pass as many samples in every argument",
        )
    inputs = inputs if lengths is None else without_rest(graph, inputs, lengths)
    for node, tensor in zip(graph.inputs, inputs, strict=True):
        _check_finite(node, tensor)
    return inputs


def _check(node: Node, tensor: Tensor) -> None:
    where = f"input '{node.name}'"
    if not isinstance(tensor, Tensor):
        raise DataError(
            where=where, got=type(tensor).__name__, known="a torch tensor", do="use torch.as_tensor(...)"
        )
    if tuple(tensor.shape[1:]) != node.shape or tensor.dim() != len(node.shape) + 1 or tensor.shape[0] == 0:
        raise DataError(
            where=where,
            got=f"shape {tuple(tensor.shape)}",
            known=f"[batch >= 1, {', '.join(map(str, node.shape))}]",
            do="reshape the data, or capture with an example of this shape",
        )
    if not tensor.is_floating_point():
        raise DataError(
            where=where,
            got=f"dtype {tensor.dtype}",
            known="floating-point numbers, on the scale the network was trained on",
            do="convert images with x.float() / 255, other data with x.float()",
        )


def _check_finite(node: Node, tensor: Tensor) -> None:
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).reshape(len(tensor), -1).any(1).nonzero()[0])
        raise DataError(
            where=f"input '{node.name}'",
            got=f"NaN or infinite values, first in sample {bad}",
            known="finite numbers",
            do="clean the data before quantising or running",
        )


def input_counts(graph: Graph, x: Samples, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
    """Counts int64 [batch, *shape] of each input of an integer graph: clip(round(x / unit), lo, hi).

    Args:
        lengths: [batch], elements of each sample, of which alone anything is demanded.
    """
    return tuple(
        _unclipped(graph, node, tensor).clamp(*_range(node))
        for node, tensor in zip(graph.inputs, as_inputs(graph, x, lengths), strict=True)
    )


def saturated(graph: Graph, x: Samples) -> Tensor:
    """[batch] bool: samples with at least one input number outside the grid."""
    outside = torch.zeros((), dtype=torch.bool)
    for node, tensor in zip(graph.inputs, as_inputs(graph, x), strict=True):
        counts = _unclipped(graph, node, tensor)
        lo, hi = _range(node)
        outside = outside | ((counts < lo) | (counts > hi)).reshape(len(tensor), -1).any(1)
    return outside


def _unclipped(graph: Graph, node: Node, tensor: Tensor) -> Tensor:
    assert isinstance(node.op, Input) and node.op.unit is not None
    scaled = tensor.detach().to("cpu", torch.float64) / graph.tensors[node.op.unit]
    return (scaled + 0.5).floor().clamp(-(2**40), 2**40).to(torch.int64)


def _range(node: Node) -> tuple[int, int]:
    assert isinstance(node.op, Input)
    return node.op.lo, node.op.hi
