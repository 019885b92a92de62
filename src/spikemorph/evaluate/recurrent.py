"""A recurrence at rest: element by element, in float and integer graphs alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from spikemorph.ir import ops

Cell = Callable[[Tensor, int], Tensor]
"""cell(accumulator [batch, units], element) -> the value of that element [batch, units]."""


def order(elements: int, *, reverse: bool) -> range:
    """The elements in the order in which a recurrence takes them."""
    return range(elements - 1, -1, -1) if reverse else range(elements)


def recur(op: ops.Recurrence, x: Tensor, weight: Tensor, cell: Cell, lengths: Tensor | None = None) -> Tensor:
    """All values h [batch, elements, units] of h[n] = cell(x[n] + weight h[n - 1]).

    Args:
        x: [batch, elements, units].
        weight: [units, units], of the dtype of x.
        lengths: [batch], elements of each sample; later ones leave the state as it was.
    """
    h = x.new_zeros(x.shape[0], x.shape[2])
    found = [h] * x.shape[1]
    arriving = x.unbind(1)  # x[:, n] would make a gradient of the whole sequence for every element
    for n in order(x.shape[1], reverse=op.reverse):
        new = cell(arriving[n] + F.linear(h, weight), n)
        h = new if lengths is None else torch.where((n < lengths.to(x.device))[:, None], new, h)
        found[n] = h
    return torch.stack(found, 1)


def taken(tensor: Tensor, axis: int, rank: int, indices: Tensor, *, inner: int = 0) -> Tensor:
    """The part of a constant that belongs to some indices along an axis of the value it broadcasts against.

    Args:
        tensor: [*group, *inner axes], whose group broadcasts against a value of `rank` axes.
        axis: of the value.
        inner: number of axes behind the group.
    """
    own = axis - (rank - (tensor.dim() - inner))
    if own < 0 or tensor.shape[own] == 1:
        return tensor
    return tensor.index_select(own, indices.to(tensor.device))


def neuron_at(
    op: ops.Neuron, tensors: Mapping[str, Tensor], place: tuple[int, int], indices: Tensor
) -> dict[str, Tensor]:
    """The tensors of a neuron for some indices along an axis, under the same names.

    Args:
        place: (axis, rank) of the value.
    """
    found = {op.breakpoints: taken(tensors[op.breakpoints], *place, indices, inner=1)}
    if op.values is not None:
        found[op.values] = taken(tensors[op.values], *place, indices, inner=1)
    if op.bias is not None:
        found[op.bias] = taken(tensors[op.bias], *place, indices)
    return found


def without_bias(op: ops.Recurrence) -> ops.Neuron:
    """The neuron of an integer recurrence whose bias was added beforehand."""
    assert isinstance(op.cell, ops.Neuron)
    return replace(op.cell, bias=None)
