"""From grids to the integer graph: weights, factors, breakpoints and biases as int64 tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from spikemorph.errors import GraphError, LevelsError
from spikemorph.evaluate.intervals import spans
from spikemorph.ir import ops
from spikemorph.ir.elements import with_element_axes
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.table import OpTable
from spikemorph.ir.verify import verify
from spikemorph.passes.plan import sources_of_outputs
from spikemorph.quantise.cells import Cell, accumulator
from spikemorph.quantise.grids import Grids
from spikemorph.quantise.network import QuantisedNetwork, quantiser_of
from spikemorph.quantise.tables import step_table


@final
@dataclass
class Draft:
    """An integer graph in the making; lives inside `integer_graph` only.

    Args:
        placed: by name of an expansion to the same shape, the axes along which constants differ that were
            added there, or would differ at another size.
        room: counts that integrate-and-fire neurons have room for; 0: neurons track step functions.
    """

    network: QuantisedNetwork
    cells: Mapping[str, Cell]
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    placed: dict[str, set[int]] = field(default_factory=dict)
    room: int = 0

    def keep(self, name: str, value: Tensor) -> str:
        """Store a tensor under a name."""
        self.tensors[name] = value.detach().contiguous().clone()
        return name

    def integers(self, name: str, value: Tensor | None) -> str | None:
        """Store whole numbers as int64; None stays None, and so do biases that are all zero."""
        if value is None or not bool((value != 0).any()):
            return None
        return self.keep(name, _whole(value))

    def add(self, node: Node, op: ops.Op) -> None:
        """The node with another op, its inputs renamed."""
        self.nodes.append(replace(node, op=op, inputs=tuple(self.names[name] for name in node.inputs)))
        self.names[node.name] = node.name


def _whole(value: Tensor) -> Tensor:
    return value.detach().round().to(torch.int64)


Rule = Callable[[Draft, Node, Cell], None]
FREEZE: OpTable[Rule] = OpTable(
    "freeze", ops.PLANNED_OPS, dict.fromkeys(ops.HOST, "copied behind the readouts")
)


def integer_graph(network: QuantisedNetwork) -> Graph:
    """The integer graph whose QNN the network models.

    Raises:
        DataError: the network was never calibrated, or its training diverged to NaN.
        LevelsError: some accumulator could leave int32.
        GraphError: the result breaks the rules of its dialect (a bug).
    """
    return _frozen(network, 0)


def rate_graph(network: QuantisedNetwork, room: int) -> Graph:
    """The rate graph of a network whose units are thresholds: integrate-and-fire neurons in integers.

    Args:
        room: steps that the counts have room for.

    Raises:
        DataError: the network was never calibrated, or its training diverged to NaN.
        LevelsError: some accumulator could leave int32.
        GraphError: the result breaks the rules of its dialect (a bug).
    """
    return _frozen(network, room)


def _frozen(network: QuantisedNetwork, room: int) -> Graph:
    graph = network.graph
    network.check_finite()
    with torch.no_grad():
        grids = Grids(graph, network.levels, network)
        draft = Draft(network, grids.cells, room=room)
        for node in graph.body:
            FREEZE[type(node.op)](draft, node, grids.lay(node))
        readouts = {name: _readout(draft, graph.by_name[name]) for name in sources_of_outputs(graph)}
    for node in graph.nodes:
        if isinstance(node.op, ops.HOST):
            sources = tuple(readouts.get(name, name) for name in node.inputs)
            draft.nodes.append(replace(node, inputs=sources))
    made = Graph(
        Dialect.RATE if room else Dialect.INTEGER,
        tuple(draft.nodes),
        tuple(readouts.get(name, name) for name in graph.outputs),
        draft.tensors,
        graph.structure,
    )
    made = _marked(with_element_axes(made), draft.placed)
    made = replace(made, units=_units(made, draft.cells))
    verify(made)
    _check_bounds(made)
    return made


def _units(graph: Graph, cells: Mapping[str, Cell]) -> dict[str, Tensor]:
    """What one count of each neuron stands for."""
    return {node.name: cells[node.name].unit.detach().double().clone() for node in graph.neurons}


def _marked(graph: Graph, placed: Mapping[str, set[int]]) -> Graph:
    """Of the expansions that stand for constants, those stay whose constants differ along the elements.

    `evaluate.lengths` has to know of them where the constants themselves do not show it: in the scale of a
    last element that is read, or at both borders of a sequence that is too short to have anything between.
    """
    kept: list[Node] = []
    names = {name: name for name in graph.by_name}
    for node in graph.nodes:
        inputs = tuple(names[name] for name in node.inputs)
        if node.name in placed and node.element_axis not in placed[node.name]:
            names[node.name] = inputs[0]
        else:
            kept.append(replace(node, inputs=inputs))
    return graph.with_nodes(kept)


LARGEST = 2**31 - 1


def _check_bounds(graph: Graph) -> None:
    """Every integer, at every moment of a spiking run, fits int32."""
    for name, span in spans(graph).items():
        largest = max(span.size, span.sum or 0)
        if largest > LARGEST:
            node = graph.by_name[name]
            raise LevelsError(
                where=f"'{name}', {node.origin}",
                got=f"sums of up to {largest:.3g}",
                known=f"accumulators are int32: at most {LARGEST}",
                do="use fewer levels or weight bits, there or in front of it (Levels(overrides=...))",
            )


def _readout(draft: Draft, node: Node) -> str:
    acc = accumulator(draft.cells[node.name])
    name = f"{node.name}.readout"
    scale = draft.keep(f"{name}.scale", acc.unit.double())
    bias, rest = acc.bias, acc.rest
    if draft.room and bias is not None:  # it enters at every step: means have it whole, no sum needs room
        own = bias.double() * acc.unit.double()
        bias, rest = None, own if rest is None else own + rest.double()
    live = rest is not None and bool((rest != 0).any())
    offset = draft.keep(f"{name}.offset", rest.double()) if live and rest is not None else None
    op = ops.Readout(scale, draft.integers(f"{name}.bias", bias), offset)
    draft.nodes.append(replace(node, name=name, op=op, inputs=(draft.names[node.name],)))
    return name


@FREEZE.rule(ops.Input)
def _input(draft: Draft, node: Node, cell: Cell) -> None:
    assert isinstance(node.op, ops.Input)
    lo, hi = (int(end) for end in draft.network.grid(node)[1:])
    unit = draft.keep(f"{node.name}.unit", cell.unit.double().reshape(()))
    draft.add(node, ops.Input(node.op.index, lo, hi, unit))


@FREEZE.rule(ops.Conv, ops.Linear)
def _weighted(draft: Draft, node: Node, cell: Cell) -> None:
    assert isinstance(node.op, ops.Conv | ops.Linear)
    weight = draft.keep(f"{node.name}.weight", _whole(cell.integers["weight"]))
    draft.add(node, replace(node.op, weight=weight, bias=None))
    if isinstance(node.op, ops.Conv):
        _bordered(draft, node, {1 + place for place, n in enumerate(node.op.padding) if n})


def _bordered(draft: Draft, node: Node, axes: set[int]) -> None:
    """Padding behind a value with an offset leaves an expansion to the same shape, for `_marked` to judge."""
    offset = draft.cells[node.inputs[0]].offset
    filled = isinstance(node.op, ops.Pad) and node.op.value != 0
    if axes and (filled or (offset is not None and bool((offset != 0).any()))):
        name = f"{node.name}.border"
        draft.placed[name] = axes
        draft.nodes.append(replace(node, name=name, op=ops.Expand(node.shape), inputs=(node.name,)))
        draft.names[node.name] = name


@FREEZE.rule(ops.AxisMap)
def _axis_map(draft: Draft, node: Node, cell: Cell) -> None:
    assert isinstance(node.op, ops.AxisMap)
    matrix = draft.keep(f"{node.name}.matrix", draft.network.graph.tensors[node.op.matrix])
    draft.add(node, ops.AxisMap(node.op.axis, matrix))


@FREEZE.rule(ops.Affine)
def _affine(draft: Draft, node: Node, cell: Cell) -> None:
    """Gain and constant went into the unit and the offset; a broadcast remains where the shape grew.

    Constants that differ along an axis leave an expansion to the same shape, for `_marked` to judge.
    """
    assert isinstance(node.op, ops.Affine)
    names = [name for name in (node.op.gain, node.op.offset) if name is not None]
    axes = {axis for name in names for axis in _differing(draft.network.tensor(name), len(node.shape))}
    if draft.network.graph.by_name[node.inputs[0]].shape != node.shape:
        draft.add(node, ops.Expand(node.shape))
    elif axes:
        draft.placed[node.name] = axes
        draft.add(node, ops.Expand(node.shape))
    else:
        draft.names[node.name] = draft.names[node.inputs[0]]


def _differing(constant: Tensor, rank: int) -> set[int]:
    """Axes of a value along which a constant that broadcasts against it has different entries."""
    more = rank - constant.dim()
    return {
        axis + more
        for axis in range(constant.dim())
        if axis + more >= 0 and bool((constant != constant.narrow(axis, 0, 1)).any())
    }


@FREEZE.rule(ops.Add)
def _add(draft: Draft, node: Node, cell: Cell) -> None:
    assert isinstance(node.op, ops.Add)
    terms, signs = [], []
    for i, source in enumerate(node.inputs):
        factor = _whole(cell.integers[f"factor{i}"])
        term = draft.names[source]
        alike = factor == factor.reshape(-1)[0]
        if bool(alike.all()) and abs(int(factor.reshape(-1)[0])) == 1:
            signs.append(int(factor.reshape(-1)[0]))
        else:
            term = _scaled(draft, node, f"{node.name}.branch{i}", (source, factor))
            signs.append(1)
        terms.append(term)
    draft.nodes.append(replace(node, op=ops.Add(tuple(signs)), inputs=tuple(terms)))
    draft.names[node.name] = node.name


def _scaled(draft: Draft, node: Node, name: str, branch: tuple[str, Tensor]) -> str:
    """A branch times its factor, broadcast first where the factor has more entries than the branch."""
    source, factor = draft.network.graph.by_name[branch[0]], branch[1]
    before = source.shape
    if _fits(factor, before):
        factor = factor.reshape(factor.shape[factor.dim() - len(before) :])
    shape = tuple(torch.broadcast_shapes(before, factor.shape))
    axis = source.element_axis if shape == before else node.element_axis if shape == node.shape else None
    made = replace(node, name=name, inputs=(draft.names[source.name],), shape=shape, element_axis=axis)
    if shape != before:
        wide = replace(made, name=f"{name}.wide", op=ops.Expand(shape))
        draft.nodes.append(wide)
        made = replace(made, inputs=(wide.name,))
    draft.nodes.append(replace(made, op=ops.Scale(draft.keep(f"{name}.factor", factor))))
    return name


def _fits(factor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether the axes of a factor in front of a shape are all of size one."""
    return all(size == 1 for size in factor.shape[: factor.dim() - len(shape)])


@FREEZE.rule(ops.Pad)
def _pad(draft: Draft, node: Node, cell: Cell) -> None:
    assert isinstance(node.op, ops.Pad)
    draft.add(node, ops.Pad(node.op.pads))
    _bordered(draft, node, {axis for axis, n in enumerate(node.op.pads[1::2]) if n})


@FREEZE.rule(ops.Concat, ops.Reshape, ops.Permute, ops.Slice, ops.Expand, ops.Mul, ops.MaxPool, ops.AMax)
def _unchanged(draft: Draft, node: Node, cell: Cell) -> None:
    draft.add(node, node.op)


@FREEZE.rule(ops.Quantiser)
def _quantiser(draft: Draft, node: Node, cell: Cell) -> None:
    assert isinstance(node.op, ops.Quantiser)
    made = _integrate_fire if draft.room else _neuron
    draft.add(node, made(draft, node, node.op, cell))


@FREEZE.rule(ops.Recurrence)
def _recurrence(draft: Draft, node: Node, cell: Cell) -> None:
    assert isinstance(node.op, ops.Recurrence)
    weight = draft.keep(f"{node.name}.weight", _whole(cell.integers["weight"]))
    neuron = _neuron(draft, node, quantiser_of(node.op), cell)
    factor, (source,) = _whole(cell.integers["factor0"]), node.inputs
    if bool((factor != 1).any()):
        source = _scaled(draft, node, f"{node.name}.input", (source, factor))
    else:
        source = draft.names[source]
    made = ops.Recurrence(weight, neuron, node.op.reverse)
    draft.nodes.append(replace(node, op=made, inputs=(source,), element_axis=0))
    draft.names[node.name] = node.name


def _neuron(draft: Draft, node: Node, op: ops.Quantiser, cell: Cell) -> ops.Neuron:
    acc = cell.source
    assert acc is not None
    tensors = {
        name: draft.network.tensor(name)
        for link in op.chain
        if isinstance(link, ops.Affine)
        for name in (link.gain, link.offset)
        if name is not None
    }
    table = step_table(op, acc.unit, acc.rest, cell.unit, tensors)
    values = None if table.values is None else draft.keep(f"{node.name}.values", table.values)
    breakpoints = draft.keep(f"{node.name}.breakpoints", table.breakpoints)
    bias = draft.integers(f"{node.name}.bias", acc.bias)
    return ops.Neuron(op.lo, op.hi, breakpoints, values, bias, identity=not op.chain)


def _integrate_fire(draft: Draft, node: Node, op: ops.Quantiser, cell: Cell) -> ops.IntegrateFire:
    """The unit of the count is the threshold, on the accumulator's grid; it starts at half of that."""
    acc = cell.source
    assert acc is not None
    if bool((acc.unit <= 0).any()):
        raise GraphError(
            where=f"'{node.name}', {node.origin}",
            got="a negative or zero gain in front of a neuron",
            known="integrate-and-fire neurons rise with their input",
            do="put the gain into the weights in front of it, or convert with Lossless()",
        )
    threshold = (cell.unit / acc.unit).round().clamp(min=1)
    name = draft.keep(f"{node.name}.threshold", _whole(threshold))
    first = draft.keep(f"{node.name}.first", _whole((threshold / 2).ceil()))
    bias = draft.integers(f"{node.name}.bias", acc.bias)
    lo, hi = -draft.room if op.lo < 0 else 0, draft.room
    return ops.IntegrateFire(lo, hi, name, first, bias, identity=not op.chain)
