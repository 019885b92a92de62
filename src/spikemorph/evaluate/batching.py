"""Data in any shape users have it, as batches of float32 inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from spikemorph.errors import DataError
from spikemorph.evaluate.encode import Samples, as_inputs
from spikemorph.ir.graph import Graph

Batches = Samples | Iterable[object]
"""A tensor of samples, a tuple of tensors (several inputs), or a loader of batches, labels ignored."""


def batches(
    graph: Graph, data: Batches, *, size: int, where: str, lengths: Tensor | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """The data as tuples of float32 inputs, at most `size` samples each.

    Args:
        lengths: [samples], elements of each sample; whatever stands behind them becomes zero.

    Raises:
        DataError: nothing in it, or something that does not fit the network; `where` is named.
    """
    seen = 0
    for batch in _loader(graph, data, where):
        samples = _without_labels(graph, batch, where)
        given = as_inputs(graph, samples, None if lengths is None else _part(lengths, seen, samples))
        # Checked again: a finite float64 may be infinite in float32.
        inputs = as_inputs(graph, tuple(each.to(torch.float32) for each in given))
        for start in range(0, inputs[0].shape[0], size):
            yield tuple(each[start : start + size] for each in inputs)
        seen += inputs[0].shape[0]
    if seen == 0:
        raise DataError(
            where=where,
            got="no samples",
            known="a tensor [batch, ...], a tuple of them, or a loader that yields batches",
            do="pass a few hundred samples; labels are not needed",
        )


def kept(data: Batches) -> Batches:
    """The same data, as a list where it could be read only once."""
    return list(data) if isinstance(data, Iterator) else data


def _part(lengths: Tensor, start: int, samples: Samples) -> Tensor:
    first = samples if isinstance(samples, Tensor) else samples[0]
    return lengths[start : start + len(first)] if first.dim() else lengths


def _loader(graph: Graph, data: Batches, where: str) -> Iterable[object]:
    if isinstance(data, Tensor):
        return [data] if data.dim() == 0 or data.shape[0] else []
    if isinstance(data, tuple) and all(isinstance(each, Tensor) for each in data):
        _check_whole(graph, data, where)
        return [data] if data and (data[0].dim() == 0 or data[0].shape[0]) else []
    if not isinstance(data, Iterable):
        raise DataError(
            where=where,
            got=type(data).__name__,
            known="a tensor, a tuple of tensors, or an iterable of batches",
            do="pass samples without labels, or a DataLoader",
        )
    return data


def _check_whole(graph: Graph, data: tuple[Tensor, ...], where: str) -> None:
    """A tuple is one batch: an entry an input, and perhaps labels; nothing of it is left out silently."""
    wanted = len(graph.inputs)
    labelled = len(data) == wanted + 1 and data[-1].dim() == 1 and not data[-1].is_floating_point()
    if data and len(data) != wanted and not (labelled and len(data[-1]) == len(data[0])):
        raise DataError(
            where=where,
            got=f"a tuple of {len(data)} tensors",
            known=f"the network takes {wanted}: a tuple is one batch, with labels at most behind it",
            do="pass a list for a sequence of batches",
        )


def _without_labels(graph: Graph, batch: object, where: str) -> Samples:
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, list | tuple) and batch and all(isinstance(each, Tensor) for each in batch):
        return tuple(batch[: len(graph.inputs)])
    raise DataError(
        where=where,
        got=f"a batch of type {type(batch).__name__}",
        known="tensors, or tuples whose first entries are the inputs",
        do="let the loader yield (inputs, labels) or inputs alone",
    )
