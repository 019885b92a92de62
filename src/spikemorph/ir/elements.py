"""Outer time: along which axis of every value the elements of a sequence lie, and which read which.

An axis of a value is *element* (outer time) or *position*. Recurrences say which axis is time; from there it
is followed through every op, forwards and backwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.table import OpTable

Shape = tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class Edge:
    """Input number `slot` of a node: the op, the shapes on both sides, and the shapes of all inputs."""

    op: Any
    slot: int
    before: Shape
    after: Shape
    inputs: tuple[Shape, ...]


AxesRule = Callable[[Edge], dict[int, int]]
AXES: OpTable[AxesRule] = OpTable(
    "element axes", ops.SPIKING_OPS, {ops.Input: "nothing in front", **dict.fromkeys(ops.HOST, "outside")}
)
"""edge -> axis of the input: axis of the result, where each element depends on few elements."""


def edges(graph: Graph, node: Node) -> tuple[Edge, ...]:
    """The inputs of a node."""
    shapes = tuple(graph.by_name[name].shape for name in node.inputs)
    return tuple(Edge(node.op, slot, shape, node.shape, shapes) for slot, shape in enumerate(shapes))


def is_sequence(graph: Graph) -> bool:
    """Whether anything in the graph goes element by element."""
    return any(isinstance(node.op, ops.Recurrence) for node in graph.nodes)


def with_element_axes(graph: Graph) -> Graph:
    """The integer graph with the element axis of every value noted; without recurrences nothing has one."""
    axes: dict[str, int] = {node.name: 0 for node in graph.body if isinstance(node.op, ops.Recurrence)}
    known = -1
    while known != len(axes):
        known = len(axes)
        for node in (*graph.body, *reversed(graph.body)):
            for edge, name in zip(edges(graph, node), node.inputs, strict=True):
                links = AXES[type(node.op)](edge)
                if name in axes and axes[name] in links:
                    axes.setdefault(node.name, links[axes[name]])
                elif node.name in axes and name not in axes:
                    back = [own for own, result in links.items() if result == axes[node.name]]
                    if back:
                        axes[name] = back[0]
    return graph.with_nodes(replace(node, element_axis=axes.get(node.name)) for node in graph.nodes)


# ---------------------------------------------------------------- axes
@AXES.rule(
    ops.Scale, ops.Neuron, ops.IntegrateFire, ops.Readout, ops.MaxPool, ops.Slice, ops.AxisMap, ops.Concat
)
def _same(edge: Edge) -> dict[int, int]:
    return {axis: axis for axis in range(len(edge.before))}


@AXES.rule(ops.Pad)
def _pad(edge: Edge) -> dict[int, int]:
    """One single entry that is padded to a sequence, as an initial state is, was none before."""
    return {axis: axis for axis, size in enumerate(edge.before) if size > 1 or edge.after[axis] == 1}


@AXES.rule(ops.Linear)
def _linear(edge: Edge) -> dict[int, int]:
    return {axis: axis for axis in range(len(edge.before) - 1)}


@AXES.rule(ops.Conv)
def _conv(edge: Edge) -> dict[int, int]:
    return {} if edge.op.transposed else {axis: axis for axis in range(1, len(edge.before))}


@AXES.rule(ops.Recurrence)
def _recurrence(edge: Edge) -> dict[int, int]:
    return {0: 0}


@AXES.rule(ops.Add, ops.Mul, ops.Expand)
def _broadcast(edge: Edge) -> dict[int, int]:
    more = len(edge.after) - len(edge.before)
    return {axis: axis + more for axis, size in enumerate(edge.before) if edge.after[axis + more] == size}


@AXES.rule(ops.Permute)
def _permute(edge: Edge) -> dict[int, int]:
    return {axis: place for place, axis in enumerate(edge.op.axes)}


@AXES.rule(ops.AMax)
def _amax(edge: Edge) -> dict[int, int]:
    kept = [axis for axis in range(len(edge.before)) if axis not in edge.op.axes]
    return {axis: axis if edge.op.keepdim else place for place, axis in enumerate(kept)}


@AXES.rule(ops.Reshape)
def _reshape(edge: Edge) -> dict[int, int]:
    """An axis that stays, is cut into blocks, or takes in the axes behind it."""
    found: dict[int, int] = {}
    fronts = {math.prod(edge.after[:axis]): axis for axis, n in enumerate(edge.after) if n > 1}
    for axis, size in enumerate(edge.before):
        place = fronts.get(math.prod(edge.before[:axis]))
        if size > 1 and place is not None and _divides(size, edge.after[place]):
            found[axis] = place
    return found


def _divides(a: int, b: int) -> bool:
    return a % b == 0 or b % a == 0


# ---------------------------------------------------------------- who reads whom
Sources = Callable[[int], range | list[int]]
"""Element of the result -> the elements of the input that it reads, ascending."""


def sources(edge: Edge, axes: tuple[int | None, int | None], tensors: Mapping[str, Tensor]) -> Sources:
    """Which elements each element of the result reads; an axis of None is one single element.

    Args:
        axes: element axis of the input and of the result.
    """
    before, after = axes
    if before is None and after is not None and isinstance(edge.op, ops.Pad | ops.Concat):
        first = _start(edge, after)
        if first is not None:
            return lambda j: range(1) if first <= j < first + edge.before[after] else []
    if before is None:
        return lambda j: range(1)
    size = edge.before[before]
    if after is None or AXES[type(edge.op)](edge).get(before) != after:
        return lambda j: range(size)
    return _along(edge, before, after, tensors)


def _start(edge: Edge, axis: int) -> int | None:
    """Where along an axis of a padded or joined value an input begins; None: it is along all of it."""
    if isinstance(edge.op, ops.Pad):
        return int(edge.op.pads[2 * axis])
    joined = edge.op.axis == axis
    return sum(shape[axis] for shape in edge.inputs[: edge.slot]) if joined else None


def _along(edge: Edge, before: int, after: int, tensors: Mapping[str, Tensor]) -> Sources:
    op, size = edge.op, edge.before[before]
    window = before - (len(edge.before) - _windows(op))
    match op:
        case ops.Conv() if window >= 0:
            kernel = tensors[op.weight].shape[2 + window]
            return _window(size, (kernel, op.stride[window], op.padding[window], op.dilation[window]))
        case ops.MaxPool() if window >= 0:
            sizes = op.kernel[window], op.stride[window], op.padding[window], op.dilation[window]
            return _window(size, sizes)
        case ops.Slice(axis, start, _, step) if axis == before:
            return lambda j: [start + step * j]
        case ops.Pad(pads) if pads[2 * before]:
            return lambda j: _inside(j - pads[2 * before], size)
        case ops.Pad():
            return lambda j: _inside(j, size)
        case ops.Concat(axis) if axis == before:
            start = sum(shape[axis] for shape in edge.inputs[: edge.slot])
            return lambda j: _inside(j - start, size)
        case ops.AxisMap(axis, matrix) if axis == before:
            rows = [row.nonzero().flatten().tolist() for row in tensors[matrix]]
            return lambda j: rows[j]
        case ops.Reshape() if edge.after[after] < size:
            block = size // edge.after[after]
            return lambda j: range(j * block, (j + 1) * block)
        case ops.Reshape():
            part = edge.after[after] // size
            return lambda j: [j // part]
        case _:
            return lambda j: [j]


def _windows(op: Any) -> int:
    return len(op.stride) if isinstance(op, ops.Conv | ops.MaxPool) else 0


def _window(size: int, sizes: tuple[int, int, int, int]) -> Sources:
    kernel, stride, padding, dilation = sizes

    def taps(j: int) -> list[int]:
        start = j * stride - padding
        return [n for n in range(start, start + dilation * kernel, dilation) if 0 <= n < size]

    return taps


def _inside(index: int, size: int) -> list[int]:
    return [index] if 0 <= index < size else []
