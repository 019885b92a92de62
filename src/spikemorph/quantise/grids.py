"""The integer grids of a planned graph: for every value its unit, for every map its integer weights.

One walk serves post-training quantisation, quantisation-aware training and freezing, so that all three mean
the same integers. A value is unit * integer + offset; gains go into units, constants into offsets, both go
forward until a neuron or a readout takes them in. Rounding passes gradients straight through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, final

import torch
from torch import Tensor

from spikemorph.evaluate.linear import LINEAR
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.table import OpTable
from spikemorph.passes import patterns
from spikemorph.passes.facts import RECURRENT_BUDGET, SUM_BUDGET, facts_of, weight_growth
from spikemorph.passes.levels import Levels
from spikemorph.quantise.cells import Cell, accumulator, round_through

LARGEST_FACTOR = 2**15 - 1


class Parameters(Protocol):
    """Where the walk takes its numbers from."""

    def tensor(self, name: str) -> Tensor:
        """A weight, bias, gain or offset of the planned graph."""

    def weight_step(self, node: Node, absorbed: Tensor, largest: int) -> Tensor:
        """Steps [out] of integer weights in -largest..largest; `absorbed` [out, ...] is what they divide."""

    def unit(self, node: Node, pattern: tuple[int, ...]) -> Tensor:
        """The unit of a quantiser or input, of this pattern."""


@final
@dataclass(frozen=True)
class Site:
    """One node with all that its rule needs."""

    node: Node
    graph: Graph
    levels: Levels
    params: Parameters
    cells: tuple[Cell, ...]
    shapes: tuple[tuple[int, ...], ...]
    bounds: tuple[int, ...]


Rule = Callable[[Site], Cell]
GRIDS: OpTable[Rule] = OpTable("quantise grids", ops.PLANNED_OPS, dict.fromkeys(ops.HOST, "outside the law"))


def lay_grids(graph: Graph, levels: Levels, params: Parameters) -> dict[str, Cell]:
    """The grid of every value of a planned graph, host ops aside."""
    grids = Grids(graph, levels, params)
    return {node.name: grids.lay(node) for node in graph.body}


@final
@dataclass
class Grids:
    """Grids laid so far, node by node in data-flow order.

    Args:
        cells: by node name, without the integers of the ops: of all layers they are twice the weights.
    """

    graph: Graph
    levels: Levels
    params: Parameters
    cells: dict[str, Cell] = field(default_factory=dict)

    @cached_property
    def _bounds(self) -> dict[str, int]:
        return {name: fact.bound for name, fact in facts_of(self.graph, self.levels).items()}

    def lay(self, node: Node) -> Cell:
        """The grid of the next value."""
        site = Site(
            node,
            self.graph,
            self.levels,
            self.params,
            tuple(self.cells[name] for name in node.inputs),
            tuple(self.graph.by_name[name].shape for name in node.inputs),
            tuple(self._bounds[name] for name in node.inputs),
        )
        cell = GRIDS[type(node.op)](site)
        self.cells[node.name] = replace(cell, integers={})
        return cell


def _through_op(site: Site, op: ops.Op, offset: Tensor) -> Tensor:
    """A constant pushed through a linear op in float64."""
    names = [name for name in (getattr(op, part, None) for part in ("weight", "bias")) if name is not None]
    tensors = {name: site.params.tensor(name).double() for name in names}
    if isinstance(op, ops.AxisMap):
        tensors[op.matrix] = site.graph.tensors[op.matrix]
    full = offset.expand(site.shapes[0]).unsqueeze(0)
    return LINEAR[type(op)](op, [full], tensors)[0]


@GRIDS.rule(ops.Input)
def _input(site: Site) -> Cell:
    return Cell(site.params.unit(site.node, (1,) * len(site.node.shape)))


@GRIDS.rule(ops.Conv)
def _conv(site: Site) -> Cell:
    op = site.node.op
    assert isinstance(op, ops.Conv)
    weight = site.params.tensor(op.weight).double()
    outer = _out_first(op, weight)
    relative, base = absorbed_units(op, site.cells[0].unit, outer, site.shapes[0][0])
    integers, step = _weights(site, outer * relative)
    unit = (step * base).reshape(-1, *(1,) * len(op.stride))
    return Cell(unit, _bias_and_offset(site, op, unit), {"weight": _in_place(op, integers, weight)})


def _out_first(op: ops.Conv, weight: Tensor) -> Tensor:
    """[out, in/groups, *kernel] whichever way the convolution goes."""
    if not op.transposed:
        return weight
    grouped = weight.reshape(op.groups, -1, *weight.shape[1:])
    return grouped.transpose(1, 2).reshape(op.groups * weight.shape[1], -1, *weight.shape[2:])


def _in_place(op: ops.Conv, outer: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `_out_first`."""
    if not op.transposed:
        return outer
    grouped = outer.reshape(op.groups, weight.shape[1], -1, *weight.shape[2:])
    return grouped.transpose(1, 2).reshape(weight.shape)


def _per_group(op: ops.Conv, relative: Tensor, outer: Tensor) -> Tensor:
    """Relative input units [out, in/groups, 1...] as each output channel's group sees them."""
    grouped = relative.reshape(op.groups, 1, -1).expand(op.groups, outer.shape[0] // op.groups, -1)
    return grouped.reshape(outer.shape[0], outer.shape[1], *(1,) * len(op.stride))


@GRIDS.rule(ops.Linear)
def _linear(site: Site) -> Cell:
    op = site.node.op
    assert isinstance(op, ops.Linear)
    weight = site.params.tensor(op.weight).double()
    relative, base = absorbed_units(op, site.cells[0].unit, weight, weight.shape[1])
    integers, step = _weights(site, weight * relative)
    unit = (step * base).reshape(*(1,) * (len(site.node.shape) - 1), -1)
    return Cell(unit, _bias_and_offset(site, op, unit), {"weight": integers})


def absorbed_units(
    op: ops.Conv | ops.Linear, unit: Tensor, outer: Tensor, channels: int
) -> tuple[Tensor, Tensor]:
    """What each weight takes in of its input's unit, relative to the largest, and the largest.

    Args:
        unit: of the input.
        outer: the weights, outputs first; the result broadcasts against them.
        channels: of the input.
    """
    relative, base = _relative_units(unit.reshape(-1), channels)
    return (_per_group(op, relative, outer) if isinstance(op, ops.Conv) else relative), base


def _relative_units(unit: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Units [channels] as multiples of their largest magnitude, and that magnitude."""
    if unit.numel() == 1:
        return torch.ones(channels, dtype=torch.float64), unit
    base = unit.abs().max().reshape(1)
    base = torch.where(base > 0, base, torch.ones_like(base))
    return unit / base, base


def _weights(site: Site, absorbed: Tensor) -> tuple[Tensor, Tensor]:
    """Integer weights [out, ...] and their steps [out]."""
    largest = site.levels.largest_weight(site.node.origin.module)
    step = site.params.weight_step(site.node, absorbed, largest)
    scaled = absorbed / step.reshape(-1, *(1,) * (absorbed.dim() - 1))
    return round_through(scaled.clamp(-largest, largest)), step


def _bias_and_offset(site: Site, op: ops.Conv | ops.Linear, unit: Tensor) -> Tensor | None:
    offset = site.cells[0].offset
    if offset is not None:
        return _through_op(site, op, offset)
    return None if op.bias is None else site.params.tensor(op.bias).double().reshape(unit.shape)


@GRIDS.rule(ops.AxisMap)
def _axis_map(site: Site) -> Cell:
    (cell,) = site.cells
    assert isinstance(site.node.op, ops.AxisMap)
    offset = None if cell.offset is None else _through_op(site, site.node.op, cell.offset)
    return Cell(cell.unit / site.node.op.denominator, offset)


@GRIDS.rule(ops.Affine)
def _affine(site: Site) -> Cell:
    (cell,) = site.cells
    op = site.node.op
    assert isinstance(op, ops.Affine)
    unit, offset = cell.unit, cell.offset
    if op.gain is not None:
        gain = site.params.tensor(op.gain).double()
        unit, offset = unit * gain, None if offset is None else offset * gain
    if op.offset is not None:
        constant = site.params.tensor(op.offset).double()
        offset = constant if offset is None else offset + constant
    return Cell(unit, offset)


@GRIDS.rule(ops.Add)
def _add(site: Site) -> Cell:
    op = site.node.op
    assert isinstance(op, ops.Add)
    rank = len(site.node.shape)
    units = [cell.unit.reshape(patterns.lifted(tuple(cell.unit.shape), rank)) for cell in site.cells]
    unit = _common_unit(units, site.bounds, (site.levels.skip_bits, SUM_BUDGET))
    factors = {
        f"factor{i}": sign * round_through(each / unit)
        for i, (each, sign) in enumerate(zip(units, op.signs, strict=True))
    }
    offsets = [
        cell.offset * sign for cell, sign in zip(site.cells, op.signs, strict=True) if cell.offset is not None
    ]
    total = None
    for each in offsets:
        total = each if total is None else total + each
    return Cell(unit, total, factors)


def _common_unit(units: list[Tensor], bounds: tuple[int, ...], limits: tuple[int, int]) -> Tensor:
    """A unit on which all branches of a sum lie, with factors of at most 16 bits.

    The finest branch keeps its grid exactly where the budget allows; the largest factor reaches
    2**skip_bits, so that rounding it costs at most 2**-(skip_bits + 1) of that branch. `limits` are skip_bits
    and the largest sum.
    """
    skip_bits, budget = limits
    sizes = torch.stack(torch.broadcast_tensors(*(unit.detach().abs() for unit in units)))
    if bool((sizes == sizes[0]).all()):
        live = torch.where(sizes[0] > 0, sizes[0], torch.ones_like(sizes[0]))
        grad = units[0].abs() - units[0].detach().abs()
        return live + grad
    largest = sizes.amax(0)
    smallest = torch.where(sizes > 0, sizes, torch.full_like(sizes, torch.inf)).amin(0)
    ratio = largest / smallest
    halvings = (skip_bits - torch.log2(ratio.clamp(min=1e-300))).ceil().clamp(min=0)
    wanted = smallest / torch.exp2(halvings)
    weights = torch.tensor(bounds, dtype=torch.float64).reshape(-1, *(1,) * largest.dim())
    floor = torch.maximum((sizes * weights).sum(0) / budget, largest / LARGEST_FACTOR)
    unit = torch.maximum(wanted.nan_to_num(posinf=0.0), floor)
    return torch.where(unit > 0, unit, torch.ones_like(unit))


@GRIDS.rule(ops.Concat)
def _concat(site: Site) -> Cell:
    op = site.node.op
    assert isinstance(op, ops.Concat)
    shape = patterns.joined(op.axis, site.shapes, tuple(tuple(cell.unit.shape) for cell in site.cells))

    def spread(part: Tensor, size: int) -> Tensor:
        return part.expand(*shape[: op.axis], size, *shape[op.axis + 1 :])

    unit = torch.cat(
        [spread(cell.unit, full[op.axis]) for cell, full in zip(site.cells, site.shapes, strict=True)],
        op.axis,
    )
    if all(cell.offset is None for cell in site.cells):
        return Cell(unit)
    zero = torch.zeros((), dtype=torch.float64)
    offsets = [
        (zero if cell.offset is None else cell.offset).expand(full)
        for cell, full in zip(site.cells, site.shapes, strict=True)
    ]
    return Cell(unit, torch.cat(offsets, op.axis))


@GRIDS.rule(*ops.REARRANGING)
def _rearranged(site: Site) -> Cell:
    (cell,) = site.cells
    _, index = patterns.rearranged(site.node.op, site.shapes[0], tuple(cell.unit.shape))
    unit = cell.unit.reshape(-1)[index]
    filled = isinstance(site.node.op, ops.Pad) and site.node.op.value != 0
    if cell.offset is None and not filled:
        return Cell(unit)
    offset = torch.zeros((), dtype=torch.float64) if cell.offset is None else cell.offset
    return Cell(unit, _through_op(site, site.node.op, offset))


@GRIDS.rule(ops.Mul)
def _mul(site: Site) -> Cell:
    rank = len(site.node.shape)
    a, b = (cell.unit.reshape(patterns.lifted(tuple(cell.unit.shape), rank)) for cell in site.cells)
    return Cell(a * b)


@GRIDS.rule(ops.Recurrence)
def _recurrence(site: Site) -> Cell:
    """What comes in and what comes back lie on one grid: a factor for each, as in a sum."""
    op, (cell,) = site.node.op, site.cells
    assert isinstance(op, ops.Recurrence) and isinstance(op.cell, ops.Quantiser)
    unit = site.params.unit(site.node, (1, 1))
    weight, step = _weights(site, site.params.tensor(op.weight).double())
    branches = [cell.unit.expand(1, site.node.shape[1]), (step * unit.reshape(-1)).reshape(1, -1)]
    largest = max(-op.cell.lo, op.cell.hi) * weight_growth(site.node, site.graph, site.levels)
    common = _common_unit(branches, (*site.bounds, largest), (site.levels.skip_bits, RECURRENT_BUDGET))
    incoming, own = (round_through(each / common) for each in branches)
    integers = {"weight": weight * own.reshape(-1, 1), "factor0": incoming}
    return Cell(unit, integers=integers, source=accumulator(Cell(common, cell.offset)))


@GRIDS.rule(ops.MaxPool, ops.AMax)
def _maximum(site: Site) -> Cell:
    unit = site.cells[0].unit
    if isinstance(site.node.op, ops.AMax) and not site.node.op.keepdim:
        unit = unit.reshape([n for axis, n in enumerate(unit.shape) if axis not in site.node.op.axes])
    return Cell(unit)


@GRIDS.rule(ops.Quantiser)
def _quantiser(site: Site) -> Cell:
    op = site.node.op
    assert isinstance(op, ops.Quantiser)
    rank = len(site.node.shape)
    pattern = tuple(
        n if op.per_channel and axis == 0 and rank else 1 for axis, n in enumerate(site.node.shape)
    )
    return Cell(site.params.unit(site.node, pattern), source=accumulator(site.cells[0]))


def with_source(cell: Cell) -> Cell:
    """The cell of an output, ready to be read out."""
    return replace(cell, source=accumulator(cell))
