"""Sequences of different lengths in one batch: how far each sample reaches in every value.

A sample of length n is computed as if the network had been captured at that length: behind its end, neurons
in front of a recurrence stay silent (padding is count 0) and recurrences keep their state, so that the last
element holds the state at the sample's own end. What stands behind the end of a full output sequence means
nothing. Every value is one of three kinds:

1. Without ends (None): the same at any length, such as an input without elements or a state that was read.
2. `Valid`: its elements in front of the sample's end are those of the network captured at that length.
3. `Valid`, spread: one entry repeated over the elements or padded with zeros behind it; likewise, but it
   says nothing of where the sample ends.

Whatever cannot be shown to be one of these is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from spikemorph.evaluate import mixing
from spikemorph.evaluate.ends import checked, unfit, without_rest
from spikemorph.evaluate.intervals import spans
from spikemorph.evaluate.mixing import mixes, refused
from spikemorph.ir import ops
from spikemorph.ir.elements import AXES, Edge, edges
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.shapes import window_count


@final
@dataclass(frozen=True, slots=True)
class Valid:
    """How far the samples reach in one value.

    Args:
        lengths: [batch], elements that a network captured at the sample's own length would have.
        behind: whether a recurrence stands in front of the value.
        silent: whether all integers behind the ends are zero.
        spread: whether the elements come from one entry alone, so that `lengths` is the captured one.
        left: elements at the start whose constants may differ, as padding stands in for what is in front.
    """

    lengths: Tensor
    behind: bool = False
    silent: bool = False
    spread: bool = False
    left: int = 0


Source = tuple[Edge, Node, Valid | None]
"""An input of a node: how it is read, what it is, how far it reaches."""


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
    known = _known(graph, checked(graph, lengths, batch))
    emitting = {node.name: node.op for node in graph.neurons}
    return {
        name: each
        for name, each in known.items()
        if name in emitting and not each.spread
        if isinstance(emitting[name], ops.Recurrence) or not each.behind
    }


def ends(graph: Graph, lengths: Tensor, batch: int) -> dict[str, Tensor]:
    """By name of every node whose samples end, [batch] its elements in front of the ends.

    Raises:
        DataError: as for `valid_lengths`.
    """
    known = _known(graph, checked(graph, lengths, batch))
    return {name: each.lengths for name, each in known.items() if not each.spread}


def ended(graph: Graph, counts: tuple[Tensor, ...], lengths: Tensor | None) -> tuple[Tensor, ...]:
    """Input counts, zero behind the end of each sample."""
    return counts if lengths is None else without_rest(graph, counts, lengths)


def _known(graph: Graph, lengths: Tensor) -> dict[str, Valid]:
    """How far each sample reaches in every value that has ends."""
    known: dict[str, Valid] = {}
    for node in graph.body:
        found = _valid(graph, node, known, lengths)
        if found is not None:
            known[node.name] = found
    mixing.check_host_ops(graph, known)
    return known


def _valid(graph: Graph, node: Node, known: Mapping[str, Valid], lengths: Tensor) -> Valid | None:
    if isinstance(node.op, ops.Input):
        return None if node.element_axis is None else Valid(lengths, silent=True)
    sources = [
        (edge, graph.by_name[name], _of_several(graph.by_name[name], known.get(name)))
        for edge, name in zip(edges(graph, node), node.inputs, strict=True)
    ]
    if isinstance(node.op, ops.Expand) and node.inputs[0] in known and sources[0][0].before == node.shape:
        raise mixing.positions(node, "gain, bias")
    if all(valid is None for _, _, valid in sources):
        return _begun(node, sources[0][0], len(lengths))
    for edge, source, valid in sources:
        if valid is not None and isinstance(node.op, ops.Slice) and node.op.axis == source.element_axis:
            _check_read(graph, node, (source, valid), known)
            return None
        if valid is not None and not _carried(edge, source, node):
            raise mixes(node, behind=valid.behind)
        if valid is None and not _alike(edge, node):
            raise refused(
                node,
                "a sequence of a fixed number of elements beside one that ends",
                "values that end together, and single entries",
            )
    found = _along(graph, node, sources)
    mixing.check_constants(graph, node, found.left)
    return _emitted(node, found)


def _of_several(node: Node, valid: Valid | None) -> Valid | None:
    """One single element is whole in every sample."""
    return None if node.element_axis is not None and node.shape[node.element_axis] == 1 else valid


def _begun(node: Node, edge: Edge, batch: int) -> Valid | None:
    """A sequence made of values without ends."""
    axis, op = node.element_axis, node.op
    if axis is None or node.shape[axis] == 1 or not isinstance(op, ops.Pad | ops.Expand | ops.AxisMap):
        return None
    own = axis - (len(node.shape) - len(edge.before))
    if own >= 0 and edge.before[own] > 1:
        return None
    if isinstance(op, ops.AxisMap) or (isinstance(op, ops.Pad) and op.pads[2 * axis]):
        raise refused(
            node,
            "a state at the last of the captured elements",
            "states at the first element, where a forward recurrence starts",
        )
    return Valid(torch.full((batch,), node.shape[axis]), spread=True)


def _check_read(graph: Graph, node: Node, read: tuple[Node, Valid], known: Mapping[str, Valid]) -> None:
    """Nothing, where one single element is read that is that of every sample's own length.

    Raises:
        DataError: it is not.
    """
    (source, valid), op = read, node.op
    assert isinstance(op, ops.Slice)
    if op.stop - op.start != 1:
        raise mixes(node, behind=valid.behind)
    if op.start == 0:
        return
    if op.start != source.shape[op.axis] - 1 or not _keeps_its_end(graph, source, known):
        raise refused(
            node,
            f"element {op.start}, which is not the same element of a sample that ends early",
            "the first element, and the last one of forward recurrences",
            "read the last state of forward recurrences alone (with bidirectional layers h_n, not the "
            "last output), or run samples of one length together",
        )


def _carried(edge: Edge, source: Node, node: Node) -> bool:
    """Whether the elements of an input are those of the result, or windows of them are."""
    axis = source.element_axis
    if axis is None or node.element_axis is None or AXES[type(node.op)](edge).get(axis) != node.element_axis:
        return False
    match node.op:
        case ops.Conv() | ops.MaxPool() | ops.Pad():
            return True
        case ops.AxisMap(axis=own) | ops.Concat(axis=own) if own == axis:
            return False
        case _:
            return source.shape[axis] == node.shape[node.element_axis]


def _alike(edge: Edge, node: Node) -> bool:
    """Whether an input without ends is the same for every element of the result."""
    assert node.element_axis is not None
    axis = node.element_axis - (len(edge.after) - len(edge.before))
    return axis < 0 or (edge.before[axis] == 1 and not isinstance(node.op, ops.Concat))


def _along(graph: Graph, node: Node, sources: list[Source]) -> Valid:
    """How far the accumulator of a node reaches whose inputs are carried along."""
    valids = [valid for _, _, valid in sources if valid is not None]
    own = [valid for valid in valids if not valid.spread] or valids
    if any(not torch.equal(valid.lengths, own[0].lengths) for valid in own):
        raise refused(node, "values that reach differently far", "values that end together")
    found = Valid(
        own[0].lengths,
        behind=any(valid.behind for valid in valids),
        silent=all(valid is not None and valid.silent for _, _, valid in sources),
        spread=all(valid.spread for valid in valids),
        left=max(valid.left for valid in valids),
    )
    window = _window(graph, node, sources[0][1])
    return found if window is None else _windowed(graph, node, found, window)


def _emitted(node: Node, found: Valid) -> Valid:
    """What a node makes of its accumulator: counts are silent behind the ends, and pure of constants."""
    if isinstance(node.op, ops.Recurrence):
        if found.spread and node.op.reverse:
            raise refused(node, "a backward recurrence over one repeated entry", "forward ones")
        return Valid(found.lengths, behind=True, spread=found.spread)
    if not isinstance(node.op, ops.EMITTING):
        return found
    silent = not found.behind and not found.spread
    return replace(found, silent=silent, left=0)


# ---------------------------------------------------------------- windows
@final
@dataclass(frozen=True, slots=True)
class _Window:
    """What an element reads along time, with zeros before and after; they differ for kernels of one only."""

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    ceil: bool = False

    def count(self, elements: int) -> int:
        """Elements of the result."""
        if self.before != self.after:
            return self.before + elements + self.after
        return window_count(elements, self.kernel, self.stride, self.before, self.dilation, ceil=self.ceil)


def _window(graph: Graph, node: Node, source: Node) -> _Window | None:
    """The window of an op along the elements of its input; None for one element."""
    axis, op = source.element_axis, node.op
    if axis is None or not isinstance(op, ops.Conv | ops.MaxPool | ops.Pad):
        return None
    if isinstance(op, ops.Pad):
        found = _Window(before=op.pads[2 * axis], after=op.pads[2 * axis + 1])
        return None if found == _Window() else found
    place = axis - (len(source.shape) - len(op.stride))
    if place < 0:
        return None
    kernel = op.kernel[place] if isinstance(op, ops.MaxPool) else graph.tensors[op.weight].shape[2 + place]
    padding, ceil = op.padding[place], isinstance(op, ops.MaxPool) and op.ceil
    found = _Window(kernel, op.stride[place], op.dilation[place], padding, padding, ceil)
    return None if found in {_Window(), _Window(dilation=op.dilation[place])} else found


def _windowed(graph: Graph, node: Node, found: Valid, window: _Window) -> Valid:
    """Windows over elements in front of a recurrence; padding reads zeros, so they must stand there."""
    if found.behind or found.spread:
        raise mixes(node, behind=True)
    beyond = window.after > 0 or window.ceil
    if beyond and not found.silent:
        raise refused(
            node,
            "padding behind the end of sums that reach beyond it",
            "padding of inputs and of neurons",
            "put an activation in between, or run samples of one length together",
        )
    if beyond and isinstance(node.op, ops.MaxPool) and _negative(graph, node.inputs[0]):
        raise refused(
            node,
            "a max-pool that pads counts below zero",
            "max-pools without padding along time, or of counts from zero on",
            "put a ReLU in front, or run samples of one length together",
        )
    counts = [window.count(int(n)) for n in found.lengths]
    if min(counts) < 1:
        raise unfit(
            f"lengths down to {int(found.lengths.min())}",
            "at least one window of every convolution",
            "pad the shorter samples, or leave them out",
        )
    return replace(
        found,
        lengths=torch.tensor(counts),
        silent=found.silent and isinstance(node.op, ops.Pad),
        left=-(-(found.left + window.before) // window.stride),
    )


def _negative(graph: Graph, name: str) -> bool:
    """Whether counts may fall below the zero of what has ended."""
    return spans(graph)[name].lo < 0


# ---------------------------------------------------------------- the last element
def _keeps_its_end(graph: Graph, node: Node, known: Mapping[str, Valid]) -> bool:
    """Whether the last element is that of the sample's own end: forward recurrences alone made it."""
    valid = known.get(node.name)
    if valid is None or valid.spread:
        return False
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
