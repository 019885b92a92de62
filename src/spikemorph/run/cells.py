"""A round as a feed-forward graph: what settles together, with what earlier rounds left as inputs.

The law for sequences is thereby the law for feed-forward graphs: a cell's inputs are the elements that arrive
and the settled counts of earlier elements, and at quiescence every count is the step function of their sums.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from spikemorph.errors import GraphError
from spikemorph.evaluate.intervals import spans
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.shapes import infer
from spikemorph.run.cell_rules import LOCAL, Draft, Part, Port, whole
from spikemorph.run.schedule import Schedule, count_of, schedule


@final
@dataclass(frozen=True)
class Cell:
    """What runs in a round.

    Args:
        graph: integer dialect, without recurrences; its inputs in the order of `inputs`.
        inputs: arriving elements, and held ones.
        emitters: nodes whose counts are settled counts of the network, in data-flow order.
        recurrent: by local name of a recurrent neuron, the local name of the held state before it.
        layout: equal where the state of one cell may go on in another.
    """

    graph: Graph
    inputs: tuple[Port, ...]
    emitters: tuple[Port, ...]
    readouts: tuple[Port, ...]
    recurrent: Mapping[str, str] = field(default_factory=dict)
    layout: Hashable = None


@final
@dataclass(frozen=True)
class Plan:
    """All rounds of a network.

    Args:
        graph: the whole network.
        cells: one for each round, in order.
    """

    graph: Graph
    schedule: Schedule
    cells: tuple[Cell, ...]


class _Same:
    """A graph, compared by identity."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.graph is self.graph

    def __hash__(self) -> int:
        return id(self.graph)


def plan_of(graph: Graph, *, buffered_input: bool) -> Plan:
    """The rounds of an integer graph.

    Args:
        buffered_input: whether held input numbers are re-emitted as spikes, not injected again.
    """
    return _plan_of(_Same(graph), buffered_input=buffered_input)


@lru_cache(maxsize=2)
def _plan_of(same: _Same, *, buffered_input: bool) -> Plan:
    timing = schedule(same.graph)
    if timing.elements == 1 and not any(isinstance(node.op, ops.Recurrence) for node in same.graph.nodes):
        return Plan(same.graph, timing, (_single(same.graph),))
    shared: dict[Hashable, Graph] = {}
    cells = tuple(_cell(timing, now, shared, buffered_input) for now in range(timing.elements))
    return Plan(same.graph, timing, cells)


def _single(graph: Graph) -> Cell:
    """The one cell of a feed-forward graph: the graph itself."""

    def ports(nodes: tuple[Node, ...]) -> tuple[Port, ...]:
        return tuple(Port(node.name, node.name, tuple(range(count_of(node)))) for node in nodes)

    return Cell(graph, ports(graph.inputs), ports(graph.neurons), ports(graph.readouts))


Wanted = Mapping[str, tuple[int, ...]]


def wanted_in(timing: Schedule, now: int) -> tuple[Wanted, Wanted]:
    """Of every node the elements that a round needs, and those of emitters and readouts that it computes."""
    graph, made = timing.graph, {}
    needed: dict[str, set[int]] = {node.name: set() for node in graph.body}
    for node in reversed(graph.body):
        elements = needed[node.name]
        if isinstance(node.op, (*ops.EMITTING, ops.Readout, ops.Input)):
            elements = {j for j, at in enumerate(timing.rounds[node.name]) if at == now}
            made[node.name] = tuple(sorted(elements))
        for name, read in zip(node.inputs, timing.reads[node.name], strict=True):
            for j in elements:
                needed[name].update(read(j))
        if isinstance(node.op, ops.Recurrence):
            needed[node.name].update(j + (1 if node.op.reverse else -1) for j in elements)
    return {name: tuple(sorted(each)) for name, each in needed.items()}, made


def _cell(timing: Schedule, now: int, shared: dict[Hashable, Graph], buffered_input: bool) -> Cell:
    needed, made = wanted_in(timing, now)
    draft = Draft(timing.graph, timing.reads, needed)
    emitters: list[Port] = []
    readouts: list[Port] = []
    recurrent: dict[str, str] = {}
    for node in timing.graph.body:
        active, window = made.get(node.name, ()), needed[node.name]
        held = tuple(j for j in window if j not in active)
        if isinstance(node.op, ops.Input):
            fresh = active if buffered_input else tuple(sorted({*active, *window}))
            held = held if buffered_input else ()
            if fresh:
                _input(draft, node, Port(node.name, node.name, fresh))
        if held and isinstance(node.op, (*ops.EMITTING, ops.Input)):
            _input(draft, node, Port(f"{node.name}.held", node.name, held, held=True))
        if isinstance(node.op, ops.Recurrence) and active:
            recurrent[node.name] = f"{node.name}.held"
        if active and not isinstance(node.op, ops.Input):
            parts = LOCAL[type(node.op)](draft, node, active)
            _check_extent(draft, node, parts)
            found = readouts if isinstance(node.op, ops.Readout) else emitters
            found += [Port(part.local, node.name, part.elements) for part in parts]
            draft.stock[node.name].extend(parts)
        elif window and not isinstance(node.op, (*ops.EMITTING, ops.Input, ops.Readout)):
            mixed = draft.mixes(node)
            parts = whole(draft, node) if mixed else LOCAL[type(node.op)](draft, node, window)
            draft.stock[node.name].extend(parts)
    graph = _graph(draft, shared)
    layout = _layout(draft, (*draft.inputs, *emitters, *readouts))
    return Cell(graph, tuple(draft.inputs), tuple(emitters), tuple(readouts), recurrent, layout)


def _check_extent(draft: Draft, node: Node, parts: list[Part]) -> None:
    """Every part holds as many elements as it says; it does not where time crosses into another axis."""
    shapes = {each.name: each.shape for each in draft.nodes}
    axis = node.element_axis
    if axis is None or all(shapes[part.local][axis] == len(part.elements) for part in parts):
        return
    raise GraphError(
        where=f"'{node.name}', {node.origin}",
        got="a sequence whose time lies along one axis in front of it and along another one behind it",
        known="neurons and pools over sequences keep the axis of time",
        do="permute before the first recurrence, or pool over positions only",
    )


def _input(draft: Draft, node: Node, port: Port) -> None:
    """An input of the cell, on the grid of what it stands for."""
    op = node.op.cell if isinstance(node.op, ops.Recurrence) else node.op
    lo, hi = (op.lo, op.hi) if isinstance(op, ops.Input | ops.Neuron) else _range(draft.graph, node)
    shape = list(node.shape)
    if node.element_axis is not None:
        shape[node.element_axis] = len(port.elements)
    draft.enter(port, (lo, hi), tuple(shape), node)
    draft.stock[node.name].append(Part(port.local, port.elements))


def _range(graph: Graph, node: Node) -> tuple[int, int]:
    """The range of a pool's counts: that of what it pools, zero included."""
    ranges = []
    for name in node.inputs:
        source = graph.by_name[name]
        op = source.op.cell if isinstance(source.op, ops.Recurrence) else source.op
        if isinstance(op, ops.Input | ops.Neuron):
            ranges.append((op.lo, op.hi))
        elif isinstance(op, ops.MaxPool | ops.AMax | ops.Permute | ops.Reshape | ops.Slice | ops.Concat):
            ranges.append(_range(graph, source))
        else:
            span = spans(graph)[name]
            ranges.append((int(span.lo), int(span.hi)))
    return min(0, *(lo for lo, _ in ranges)), max(0, *(hi for _, hi in ranges))


def _graph(draft: Draft, shared: dict[Hashable, Graph]) -> Graph:
    """The cell's graph; equal ones, their own constants included, are one object."""
    own = tuple((name, _bytes(draft.tensors[name])) for name in draft.sliced)
    key = (tuple(draft.nodes), own)
    if key not in shared:
        readouts = tuple(node.name for node in draft.nodes if isinstance(node.op, ops.Readout))
        shared[key] = Graph(Dialect.INTEGER, tuple(draft.nodes), readouts, draft.tensors)
    return shared[key]


def _layout(draft: Draft, ports: tuple[Port, ...]) -> Hashable:
    """Nodes, and what maps between them hold: with these equal, sums already made stay right."""
    linear = {
        name
        for node in draft.nodes
        for name in (getattr(node.op, part, None) for part in ("weight", "matrix", "factor"))
    }
    own = tuple((name, _bytes(draft.tensors[name])) for name in draft.sliced if name in linear)
    return tuple(draft.nodes), own, tuple((port.local, len(port.elements)) for port in ports)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def gathered(values: Tensor, axis: int | None, elements: tuple[int, ...]) -> Tensor:
    """Elements of a value [batch, *shape]; those outside are zero."""
    if axis is None:
        return values
    size = values.shape[axis + 1]
    index = torch.tensor(elements, device=values.device)
    inside = (index >= 0) & (index < size)
    found = values.index_select(axis + 1, index.clamp(0, size - 1))
    if bool(inside.all()):
        return found
    return found * inside.to(found.dtype).reshape(-1, *(1,) * (values.dim() - axis - 2))


def scattered(values: Tensor, axis: int | None, elements: tuple[int, ...], part: Tensor) -> None:
    """Put elements into their places in a value [batch, *shape]."""
    if axis is None:
        values.copy_(part)
    else:
        values.index_copy_(axis + 1, torch.tensor(elements, device=values.device), part.to(values.dtype))


def node_shape(op: ops.Op, sources: tuple[tuple[int, ...], ...], tensors: Mapping[str, Tensor]) -> Node:
    """A nameless node, its shape inferred."""
    return replace(Node("", op, (), ()), shape=infer(op, sources, tensors))
