"""Sequences of different lengths in one batch: how far each sample reaches in every value.

A sample of length n is computed as if the network had been captured at that length: behind its end, neurons
in front of a recurrence stay silent (padding is count 0) and recurrences keep their state, so that the last
element holds the state at the sample's own end. What stands behind the end of a full output sequence means
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from spikemorph.errors import DataError
from spikemorph.ir import ops
from spikemorph.ir.elements import is_sequence
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.shapes import window_count


@final
@dataclass(frozen=True, slots=True)
class Valid:
    """How far the samples reach in one value.

    Args:
        lengths: [batch], elements that a network captured at the sample's own length would have.
        behind: whether a recurrence stands in front of the value.
    """

    lengths: Tensor
    behind: bool = False


def valid_lengths(graph: Graph, lengths: Tensor | None, batch: int) -> dict[str, Valid]:
    """By emitting node, how far each sample reaches; empty without lengths. Behind a recurrence: only it.

    Args:
        graph: integer dialect, element axes noted.
        lengths: [batch] whole numbers, elements of the input of each sample.

    Raises:
        DataError: lengths that do not fit, a graph without recurrences, or an op that mixes elements
            in a way that has no meaning at another length.
    """
    if lengths is None:
        return {}
    lengths = _checked(graph, lengths, batch)
    known: dict[str, Valid] = {}
    for node in graph.body:
        found = _valid(graph, node, known, lengths)
        if found is not None:
            known[node.name] = found
    timed = [node for node in graph.neurons if node.name in known]
    return {
        node.name: known[node.name]
        for node in timed
        if isinstance(node.op, ops.Recurrence) or not known[node.name].behind
    }


def _checked(graph: Graph, lengths: Tensor, batch: int) -> Tensor:
    timed = [node for node in graph.inputs if node.element_axis is not None]
    if not is_sequence(graph) or not timed:
        raise _wrong(
            "lengths for a network without recurrent layers", "recurrent networks", "leave lengths out"
        )
    longest = min(node.shape[node.element_axis] for node in timed if node.element_axis is not None)
    lengths = torch.as_tensor(lengths)
    if lengths.shape != (batch,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        got = f"{lengths.dtype} of shape {list(lengths.shape)}"
        raise _wrong(got, f"{batch} whole numbers, one a sample", "pass a tensor of int64 [batch]")
    if int(lengths.min()) < 1 or int(lengths.max()) > longest:
        got = f"lengths {int(lengths.min())}..{int(lengths.max())}"
        raise _wrong(
            got, f"1..{longest}", "leave empty samples out, cut longer ones, or capture a longer example"
        )
    return lengths.cpu().to(torch.int64)


def _wrong(got: str, known: str, do: str) -> DataError:
    return DataError(where="lengths", got=got, known=known, do=do)


def _valid(graph: Graph, node: Node, known: Mapping[str, Valid], lengths: Tensor) -> Valid | None:
    if isinstance(node.op, ops.Input):
        return None if node.element_axis is None else Valid(lengths)
    sources = [known[name] for name in node.inputs if name in known]
    if not sources:
        return None
    behind = any(each.behind for each in sources)
    shortest = torch.stack([each.lengths for each in sources]).amin(0)
    if isinstance(node.op, ops.Recurrence):
        return Valid(shortest, behind=True)
    op, (first, *_) = node.op, (graph.by_name[name] for name in node.inputs)
    axis = first.element_axis
    if behind and isinstance(op, ops.Slice) and op.axis == axis:
        ends = (0, first.shape[op.axis] - 1)
        if op.stop - op.start == 1 and op.start in ends:
            return None
        raise _mixes(node)
    if _per_element(graph, node, axis):
        return Valid(shortest, behind)
    if behind or axis is None or not isinstance(op, ops.Conv | ops.MaxPool):
        raise _mixes(node)
    return Valid(_windows(graph, op, axis - (len(node.shape) - len(op.stride)), shortest), behind)


def _per_element(graph: Graph, node: Node, axis: int | None) -> bool:
    """Whether element n of the result is made of element n of every input that has elements."""
    op, size = node.op, None if axis is None else graph.by_name[node.inputs[0]].shape[axis]
    if node.element_axis is None or node.shape[node.element_axis] != size:
        timed = [name for name in node.inputs if graph.by_name[name].element_axis is not None]
        return isinstance(op, ops.Add | ops.Mul) and node.element_axis is not None and bool(timed)
    match op:
        case ops.Conv(stride=stride) | ops.MaxPool(stride=stride):
            window = node.element_axis - (len(node.shape) - len(stride))
            kernel = op.kernel[window] if isinstance(op, ops.MaxPool) else 0
            if isinstance(op, ops.Conv) and window >= 0:
                kernel = graph.tensors[op.weight].shape[2 + window]
            return window < 0 or (kernel == 1 and stride[window] == 1)
        case ops.AxisMap(axis=own) | ops.Concat(axis=own) | ops.Slice(axis=own):
            return own != axis
        case ops.Pad(pads):
            return axis is not None and pads[2 * axis : 2 * axis + 2] == (0, 0)
        case _:
            return True


def _windows(graph: Graph, op: ops.Conv | ops.MaxPool, window: int, lengths: Tensor) -> Tensor:
    kernel = op.kernel[window] if isinstance(op, ops.MaxPool) else graph.tensors[op.weight].shape[2 + window]
    ceil = isinstance(op, ops.MaxPool) and op.ceil
    counts = [
        window_count(int(n), kernel, op.stride[window], op.padding[window], op.dilation[window], ceil=ceil)
        for n in lengths
    ]
    if min(counts) < 1:
        raise _wrong(
            f"lengths down to {int(lengths.min())}", "at least one window of every convolution", "pad"
        )
    return torch.tensor(counts)


def _mixes(node: Node) -> DataError:
    return DataError(
        where=f"lengths, at '{node.name}', {node.origin}",
        got=f"{type(node.op).__name__}, which mixes elements",
        known="windows over time in front of the recurrence, the last or first element behind it",
        do="read the last state instead of a mean, or run samples of one length together",
    )
