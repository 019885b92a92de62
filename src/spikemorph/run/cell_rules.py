"""Every op on some elements only: what it needs of its inputs, and the op that computes just these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.evaluate.recurrent import taken
from spikemorph.ir import ops
from spikemorph.ir.elements import AXES, Edge, Sources, edges
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.shapes import infer
from spikemorph.ir.table import OpTable

Elements = tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class Part:
    """A local node that holds these elements of a value, in this order."""

    local: str
    elements: Elements


@final
@dataclass(frozen=True)
class Port:
    """A node of a cell that stands for elements of a value of the whole network.

    Args:
        local: node name in the cell.
        name: node name in the whole network, "" for zeros.
        elements: along its element axis, ascending in place; one before the first or behind the last is zero.
        held: re-emits settled counts of earlier rounds.
    """

    local: str
    name: str
    elements: tuple[int, ...]
    held: bool = False


@final
@dataclass
class Draft:
    """A cell in the making; lives inside `cells` only.

    Args:
        graph: the whole network.
        reads: which elements of its inputs an element of a node reads.
        needed: the elements of each node that the round needs.
        stock: the local nodes that hold elements of a node.
        sliced: tensors that were cut for this round.
        inputs: of the cell, so far.
    """

    graph: Graph
    reads: Mapping[str, tuple[Sources, ...]]
    needed: Mapping[str, Elements]
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    stock: dict[str, list[Part]] = field(default_factory=lambda: defaultdict(list))
    sliced: list[str] = field(default_factory=list)
    inputs: list[Port] = field(default_factory=list)

    def enter(self, port: Port, ends: tuple[int, int], shape: tuple[int, ...], like: Node) -> None:
        """An input of the cell, counts between the ends."""
        op = ops.Input(len(self.inputs), *ends)
        self.nodes.append(Node(port.local, op, (), shape, like.origin))
        self.inputs.append(port)

    def add(self, local: str, op: ops.Op, inputs: tuple[str, ...], like: Node) -> str:
        """A local node; its shape follows."""
        shapes = tuple(next(n.shape for n in reversed(self.nodes) if n.name == name) for name in inputs)
        node = Node(local, op, inputs, infer(op, shapes, self.tensors), like.origin)
        self.nodes.append(node)
        return local

    def fetch(self, name: str, elements: Elements, to: str) -> str:
        """The local node that holds exactly these elements of a value; pieces are cut and joined for it."""
        source = self.graph.by_name[name]
        parts = self.stock[name]
        if source.element_axis is None:
            return parts[0].local
        for part in parts:
            if part.elements == elements:
                return part.local
        place = {j: (part.local, i) for part in parts for i, j in enumerate(part.elements)}
        runs = _runs([place[j] for j in elements])
        axis, pieces = source.element_axis, []
        for number, (local, start, stop) in enumerate(runs):
            whole = next(len(part.elements) for part in parts if part.local == local)
            if (start, stop) != (0, whole):
                cut = ops.Slice(axis, start, stop)
                local = self.add(f"{to}.cut{number}", cut, (local,), source)
            pieces.append(local)
        if len(pieces) == 1:
            return pieces[0]
        return self.add(f"{to}.join", ops.Concat(axis), tuple(pieces), source)

    def read(self, node: Node, slot: int, elements: Elements, label: str = "") -> str:
        """What these elements of a node read of one input, in order."""
        wanted = sorted({i for j in elements for i in self.reads[node.name][slot](j)})
        return self.fetch(node.inputs[slot], tuple(wanted), f"{node.name}{label}.in{slot}")

    def mixes(self, node: Node) -> bool:
        """Whether every element of a node needs all elements of an input, whichever round it is in."""
        if node.element_axis is None:
            return False
        axes = [self.graph.by_name[name].element_axis for name in node.inputs]
        if all(axis is None for axis in axes):
            return not isinstance(node.op, ops.Pad) and not self._repeats(node)
        both, across, along = isinstance(node.op, ops.Add | ops.Mul), False, False
        for axis, edge in zip(axes, edges(self.graph, node), strict=True):
            if axis is None:
                continue
            follows = AXES[type(node.op)](edge).get(axis) == node.element_axis
            across |= not follows and (edge.before[axis] > 1 or not both)
            along |= both and follows  # an outer product over time goes along one factor, whole in the other
        return across and not along

    def _repeats(self, node: Node) -> bool:
        """Whether a node repeats one single entry along its element axis."""
        shape = self.graph.by_name[node.inputs[0]].shape
        assert node.element_axis is not None
        own = node.element_axis - (len(node.shape) - len(shape))
        return isinstance(node.op, ops.Expand) and (own < 0 or shape[own] == 1)

    def constants(self, node: Node, op: Any, elements: Elements, local: str) -> Any:
        """The op with its tensors, cut to these elements where they differ between elements."""
        rank, axis = len(node.shape), node.element_axis
        changed = {}
        for part, inner in CONSTANTS.get(type(op), {}).items():
            name = getattr(op, part)
            if name is None:
                continue
            tensor = self.graph.tensors[name]
            if axis is not None and inner is not None:
                index = torch.tensor(elements)
                tensor = taken(tensor, axis, rank, index, inner=inner)
            if tensor is not self.graph.tensors[name]:
                name = f"{local}.{part}"
                self.sliced.append(name)
            self.tensors[name] = tensor
            changed[part] = name
        return replace(op, **changed) if changed else op


CONSTANTS: Mapping[type, Mapping[str, int | None]] = {
    ops.Conv: {"weight": None},
    ops.Linear: {"weight": None},
    ops.AxisMap: {"matrix": None},
    ops.Scale: {"factor": 0},
    ops.Neuron: {"breakpoints": 1, "values": 1, "bias": 0},
    ops.Readout: {"scale": 0, "bias": 0, "offset": 0},
}
"""Tensors of ops, with the number of axes behind those that broadcast; None: the same for every element."""


def _runs(places: list[tuple[str, int]]) -> list[tuple[str, int, int]]:
    """(local node, start, stop) of stretches that follow each other."""
    runs: list[tuple[str, int, int]] = []
    for local, index in places:
        if runs and runs[-1][0] == local and runs[-1][2] == index:
            runs[-1] = (local, runs[-1][1], index + 1)
        else:
            runs.append((local, index, index + 1))
    return runs


Rule = Callable[[Draft, Node, Elements], list[Part]]
LOCAL: OpTable[Rule] = OpTable(
    "cells",
    ops.INTEGER_OPS,
    {ops.Input: "an input of the cell", **dict.fromkeys(ops.HOST, "computed after decoding")},
)


def _one(draft: Draft, node: Node, elements: Elements, op: ops.Op) -> list[Part]:
    """The op on what these elements read."""
    inputs = tuple(
        _across(draft, node, edge, elements, draft.read(node, edge.slot, elements))
        for edge in edges(draft.graph, node)
    )
    return [Part(draft.add(node.name, op, inputs, node), elements)]


ELEMENTWISE = (ops.Neuron, ops.Readout, ops.Scale, ops.Add, ops.Mul)


def _across(draft: Draft, node: Node, edge: Edge, elements: Elements, local: str) -> str:
    """Of an input whose time lies along another axis than the result's: what these elements need of it."""
    source, links = draft.graph.by_name[node.inputs[edge.slot]], AXES[type(node.op)](edge)
    if node.element_axis is None or source.element_axis is None or not isinstance(node.op, ELEMENTWISE):
        return local
    own = [axis for axis, result in links.items() if result == node.element_axis]
    if not own or own[0] == source.element_axis or len(elements) == edge.before[own[0]]:
        return local
    to = f"{node.name}.in{edge.slot}.at"
    cuts = [draft.add(f"{to}{j}", ops.Slice(own[0], j, j + 1), (local,), source) for j in elements]
    return cuts[0] if len(cuts) == 1 else draft.add(to, ops.Concat(own[0]), tuple(cuts), source)


@LOCAL.rule(ops.Linear, ops.Scale, ops.Add, ops.Mul, ops.Neuron, ops.Readout, ops.AMax, ops.Permute)
def _plain(draft: Draft, node: Node, elements: Elements) -> list[Part]:
    return _one(draft, node, elements, draft.constants(node, node.op, elements, node.name))


def whole(draft: Draft, node: Node) -> list[Part]:
    """All elements of an op that mixes them."""
    assert node.element_axis is not None
    return _plain(draft, node, tuple(range(node.shape[node.element_axis])))


@LOCAL.rule(ops.Expand)
def _expand(draft: Draft, node: Node, elements: Elements) -> list[Part]:
    return _one(draft, node, elements, ops.Expand(_cut_shape(node, len(elements))))


def _cut_shape(node: Node, size: int) -> tuple[int, ...]:
    axis = node.element_axis
    return tuple(size if i == axis else n for i, n in enumerate(node.shape))


@LOCAL.rule(ops.Reshape)
def _reshape(draft: Draft, node: Node, elements: Elements) -> list[Part]:
    """Blocks that were merged come whole; what is not needed of them stays unused."""
    source = draft.graph.by_name[node.inputs[0]]
    rows = sorted({i for j in elements for i in draft.reads[node.name][0](j)})
    axis = source.element_axis
    if node.element_axis is None or axis is None:
        return _one(draft, node, elements, node.op)
    part = max(node.shape[node.element_axis] // source.shape[axis], 1)
    whole = elements if part == 1 else tuple(i * part + k for i in rows for k in range(part))
    return _one(draft, node, whole, ops.Reshape(_cut_shape(node, len(whole))))


@LOCAL.rule(ops.Slice)
def _slice(draft: Draft, node: Node, elements: Elements) -> list[Part]:
    assert isinstance(node.op, ops.Slice)
    before = draft.graph.by_name[node.inputs[0]].element_axis
    if before is None or before != node.op.axis:
        return _one(draft, node, elements, node.op)
    return [Part(draft.read(node, 0, elements), elements)]


@LOCAL.rule(ops.Concat)
def _concat(draft: Draft, node: Node, elements: Elements) -> list[Part]:
    """Along the element axis every element is one of one input."""
    assert isinstance(node.op, ops.Concat)
    if node.op.axis != node.element_axis:
        return _one(draft, node, elements, node.op)
    parts = []
    for slot in range(len(node.inputs)):
        own = tuple(j for j in elements if len(draft.reads[node.name][slot](j)))
        if own and draft.graph.by_name[node.inputs[slot]].element_axis is None:
            own = tuple(j for j in range(node.shape[node.op.axis]) if len(draft.reads[node.name][slot](j)))
        if own:
            parts.append(Part(draft.read(node, slot, own), own))
    return parts


@LOCAL.rule(ops.Pad)
def _pad(draft: Draft, node: Node, elements: Elements) -> list[Part]:
    assert isinstance(node.op, ops.Pad)
    axis = node.element_axis
    if axis is None:
        return _one(draft, node, elements, node.op)
    first = node.op.pads[2 * axis]
    size = node.shape[axis] - first - node.op.pads[2 * axis + 1]
    pads = list(node.op.pads)
    inside = [j for j in elements if first <= j < first + size]
    pads[2 * axis] = sum(j < first for j in elements)
    pads[2 * axis + 1] = sum(j >= first + size for j in elements)
    if not inside:
        return [_zeros(draft, node, elements, node.name)]
    if draft.graph.by_name[node.inputs[0]].element_axis is None and len(inside) < size:
        every = tuple(range(node.shape[axis]))
        return _one(draft, node, every, node.op)
    return _one(draft, node, elements, ops.Pad(tuple(pads)))


def _zeros(draft: Draft, node: Node, elements: Elements, local: str) -> Part:
    """Padding alone, which no part of the network sends."""
    draft.enter(Port(local, "", ()), (0, 0), _cut_shape(node, len(elements)), node)
    return Part(local, elements)


@LOCAL.rule(ops.AxisMap)
def _axis_map(draft: Draft, node: Node, elements: Elements) -> list[Part]:
    assert isinstance(node.op, ops.AxisMap)
    axis = node.op.axis
    if axis != node.element_axis or draft.graph.by_name[node.inputs[0]].element_axis != axis:
        return _plain(draft, node, elements)
    rows = sorted({i for j in elements for i in draft.reads[node.name][0](j)})
    if not rows:
        return [_zeros(draft, node, elements, node.name)]
    name = f"{node.name}.matrix"
    matrix = draft.graph.tensors[node.op.matrix]
    draft.tensors[name] = matrix[list(elements)][:, rows].contiguous()
    draft.sliced.append(name)
    return _one(draft, node, elements, ops.AxisMap(axis, name))


@LOCAL.rule(ops.Recurrence)
def _recurrence(draft: Draft, node: Node, elements: Elements) -> list[Part]:
    """One element: what comes in, plus the weights times the held state before it, into a neuron."""
    op, (j,) = node.op, elements
    assert isinstance(op, ops.Recurrence) and isinstance(op.cell, ops.Neuron)
    own = draft.constants(node, ops.Linear(op.weight, None), elements, node.name)
    before = draft.fetch(node.name, (j + (1 if op.reverse else -1),), f"{node.name}.before")
    back = draft.add(f"{node.name}.own", own, (before,), node)
    incoming = draft.read(node, 0, elements)
    if draft.mixes(node):
        incoming = draft.add(f"{node.name}.row", ops.Slice(0, j, j + 1), (incoming,), node)
    total = draft.add(f"{node.name}.sum", ops.Add((1, 1)), (incoming, back), node)
    neuron = draft.constants(node, op.cell, elements, node.name)
    return [Part(draft.add(node.name, neuron, (total,), node), elements)]


# ---------------------------------------------------------------- windows
@LOCAL.rule(ops.Conv, ops.MaxPool)
def _windowed(draft: Draft, node: Node, elements: Elements) -> list[Part]:
    """A block of windows at once where they lie close, else window by window."""
    op, axis = node.op, node.element_axis
    assert isinstance(op, ops.Conv | ops.MaxPool)
    window = None if axis is None else axis - (len(node.shape) - len(op.stride))
    source = draft.graph.by_name[node.inputs[0]]
    if window is None or window < 0 or source.element_axis != axis:
        return _plain(draft, node, elements)
    close = all(b - a == 1 for a, b in pairwise(elements))
    kernel = _kernel(draft, op, window)
    whole = op.dilation[window] == 1 and kernel >= op.stride[window]
    if len(elements) == 1 or (close and whole and not _clipped(op, window, elements, _size(source))):
        return [_window(draft, node, elements, window, "")]
    return [_window(draft, node, (j,), window, f".{k}") for k, j in enumerate(elements)]


def _kernel(draft: Draft, op: ops.Conv | ops.MaxPool, window: int) -> int:
    if isinstance(op, ops.MaxPool):
        return op.kernel[window]
    return draft.graph.tensors[op.weight].shape[2 + window]


def _size(source: Node) -> int:
    assert source.element_axis is not None
    return source.shape[source.element_axis]


def _clipped(op: ops.Conv | ops.MaxPool, window: int, elements: Elements, size: int) -> bool:
    """Whether a block of pooling windows reaches beyond the value; zero padding of convolutions may."""
    if isinstance(op, ops.Conv):
        return False
    start = elements[0] * op.stride[window] - op.padding[window]
    return start < 0 or elements[-1] * op.stride[window] - op.padding[window] + op.kernel[window] > size


def _window(draft: Draft, node: Node, elements: Elements, window: int, label: str) -> Part:
    op, local = node.op, f"{node.name}{label}"
    assert isinstance(op, ops.Conv | ops.MaxPool) and node.element_axis is not None
    kernel, stride, dilation = _kernel(draft, op, window), op.stride[window], op.dilation[window]
    start = elements[0] * stride - op.padding[window]
    size = _size(draft.graph.by_name[node.inputs[0]])
    taps = [start + dilation * k for k in range(kernel + (len(elements) - 1) * stride)]
    before, after = sum(tap < 0 for tap in taps), sum(tap >= size for tap in taps)
    if before + after == len(taps):
        return _zeros(draft, node, elements, local)
    source = draft.read(node, 0, elements, label)

    def along(values: tuple[int, ...], value: int) -> tuple[int, ...]:
        return (*values[:window], value, *values[window + 1 :])

    step = stride if len(elements) > 1 else 1
    changes: dict[str, Any] = {
        "padding": along(op.padding, 0),
        "stride": along(op.stride, step),
        "dilation": along(op.dilation, 1),
    }
    if isinstance(op, ops.MaxPool):
        if len(elements) == 1:
            changes["kernel"] = along(op.kernel, kernel - before - after)
        return Part(draft.add(local, replace(op, **changes), (source,), node), elements)
    if before or after:
        pads = [0] * (2 * len(node.shape))
        pads[2 * node.element_axis], pads[2 * node.element_axis + 1] = before, after
        source = draft.add(f"{local}.pad", ops.Pad(tuple(pads)), (source,), node)
    made = draft.constants(node, replace(op, **changes), elements, local)
    return Part(draft.add(local, made, (source,), node), elements)
