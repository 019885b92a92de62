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
from spikemorph.evaluate.intervals import intervals
from spikemorph.evaluate.recurrent import taken
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


def ended(graph: Graph, counts: tuple[Tensor, ...], lengths: Tensor | None) -> tuple[Tensor, ...]:
    """Input counts, zero behind the end of each sample."""
    if lengths is None:
        return counts
    lengths = _checked(graph, lengths, len(counts[0]))
    found = []
    for node, each in zip(graph.inputs, counts, strict=True):
        if node.element_axis is not None:
            each = each * inside(node, lengths).to(each.device)
        found.append(each)
    return tuple(found)


def inside(node: Node, lengths: Tensor) -> Tensor:
    """[batch, 1.., elements, 1..] bool: where the samples have not ended."""
    axis = node.element_axis
    assert axis is not None
    found = torch.arange(node.shape[axis])[None, :] < lengths[:, None]
    return found.reshape(len(lengths), *(1,) * axis, -1, *(1,) * (len(node.shape) - axis - 1))


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
    _check_ends(graph, node)
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
        last = op.start == first.shape[op.axis] - 1 and _keeps_its_end(graph, first, known)
        if op.stop - op.start == 1 and (op.start == 0 or last):
            return None
        raise _mixes(node)
    if _per_element(graph, node, axis):
        return Valid(shortest, behind)
    if behind or axis is None or not isinstance(op, ops.Conv | ops.MaxPool):
        raise _mixes(node)
    if isinstance(op, ops.MaxPool) and (any(op.padding) or op.ceil) and _negative(graph, first.name):
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


def _keeps_its_end(graph: Graph, node: Node, known: Mapping[str, Valid]) -> bool:
    """Whether the last element is that of the sample's own end: forward recurrences alone made it."""
    if isinstance(node.op, ops.Recurrence):
        return not node.op.reverse
    names = [name for name in node.inputs if name in known]
    if isinstance(node.op, ops.Slice) and node.op.axis != node.element_axis:
        names = _pieces(graph, node.op, graph.by_name[names[0]]) or names
    return bool(names) and all(_keeps_its_end(graph, graph.by_name[name], known) for name in names)


def _pieces(graph: Graph, cut: ops.Slice, joined: Node) -> list[str]:
    """What a slice takes of a concatenation, where it is one."""
    if not isinstance(joined.op, ops.Concat) or joined.op.axis != cut.axis:
        return []
    found, start = [], 0
    for name in joined.inputs:
        stop = start + graph.by_name[name].shape[cut.axis]
        if start < cut.stop and cut.start < stop:
            found.append(name)
        start = stop
    return found


def _check_ends(graph: Graph, node: Node) -> None:
    """What belongs to the last element of the whole sequence is not that of a shorter one."""
    axis, op = node.element_axis, node.op
    cell = op.cell if isinstance(op, ops.Recurrence) else op
    if axis is None:
        return
    if isinstance(op, ops.Pad) and op.pads[2 * axis] and graph.by_name[node.inputs[0]].element_axis is None:
        raise _mixes(node)
    if isinstance(cell, ops.Neuron) and cell.bias is not None:
        size, bias = node.shape[axis], graph.tensors[cell.bias]
        places = (torch.tensor([size // 2]), torch.tensor([size - 1]))
        middle, last = (taken(bias, axis, len(node.shape), place) for place in places)
        if not torch.equal(middle, last):
            raise _mixes(node)


def _negative(graph: Graph, name: str) -> bool:
    """Whether counts may fall below the zero of what has ended."""
    return bool((intervals(graph)[name][0] < 0).any())


def _mixes(node: Node) -> DataError:
    return DataError(
        where=f"lengths, at '{node.name}', {node.origin}",
        got=f"{type(node.op).__name__}, which mixes elements",
        known="windows over time in front of the recurrence, the last or first element behind it",
        do="read the last state instead of a mean, or run samples of one length together",
    )
