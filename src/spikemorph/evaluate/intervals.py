"""Between which integers every value stays, at every moment of a spiking run and at rest.

Counts stay between the ends of their grids during transients too, and zero is among them at the start; linear
maps of intervals then bound every accumulator, whatever the order of the spikes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from spikemorph.evaluate import pooling
from spikemorph.evaluate.linear import LINEAR, align_ranks
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.table import OpTable

Interval = tuple[Tensor, Tensor]
"""Smallest and largest value, float64 [1, *shape]."""

IntervalRule = Callable[[Node, Sequence[Interval], Mapping[str, Tensor]], Interval]
INTERVALS: OpTable[IntervalRule] = OpTable(
    "intervals", ops.SPIKING_OPS, dict.fromkeys(ops.HOST, "outside the law")
)


@final
@dataclass(frozen=True, slots=True)
class Span:
    """The intervals of all numbers of a value, as far as anyone asks.

    Args:
        lo, hi: smallest and largest of all.
        width: largest hi - lo of one of them.
        sum: largest |integer| that the accumulator of an emitting node or readout ever holds, bias included;
            None for other nodes.
    """

    lo: float
    hi: float
    width: float
    sum: int | None = None

    @property
    def size(self) -> float:
        """The largest magnitude."""
        return max(-self.lo, self.hi)


_KNOWN: dict[int, Mapping[str, Span]] = {}
"""By id of graphs that are alive: every stage asks, and large networks take long."""


def spans(graph: Graph) -> Mapping[str, Span]:
    """Between which integers every value of an integer graph stays; of an emitting node, its count.

    Of a rate graph: the sums of all that was sent in as many steps as its counts have room for.
    """
    if id(graph) not in _KNOWN:
        _KNOWN[id(graph)] = dict(_spans(graph))
        weakref.finalize(graph, _KNOWN.pop, id(graph), None)
    return _KNOWN[id(graph)]


def _spans(graph: Graph) -> Iterator[tuple[str, Span]]:
    """In data-flow order; an interval is let go of behind its last reader."""
    last = {name: node.name for node in graph.body for name in node.inputs}
    found: dict[str, Interval] = {}
    tensors, most = driven(graph, horizon(graph)), horizon(graph)
    with torch.no_grad():
        for node in graph.body:
            sources = [found[name] for name in node.inputs]
            lo, hi = INTERVALS[type(node.op)](node, sources, tensors)
            lo, hi = (lo * most, hi * most) if isinstance(node.op, ops.Input) else (lo, hi)
            found[node.name] = lo, hi
            width = float((hi - lo).max())
            yield node.name, Span(float(lo.min()), float(hi.max()), width, _sum(node, found, tensors))
            for name in node.inputs:
                if last[name] == node.name:
                    found.pop(name, None)


def horizon(graph: Graph) -> int:
    """Steps that the counts of a rate graph have room for; 1 for others, whose drive enters once."""
    if graph.dialect is not Dialect.RATE:
        return 1
    return max((node.op.hi for node in graph.nodes if isinstance(node.op, ops.IntegrateFire)), default=1)


def driven(graph: Graph, steps: int, ramp: int = 1) -> Mapping[str, Tensor]:
    """The tensors, biases as they have added up in so many steps: of a rate graph, or over a ramp."""
    if graph.dialect is Dialect.RATE:
        return _with_biases(graph, lambda bias: bias * steps)
    return graph.tensors if steps >= ramp else _with_biases(graph, lambda bias: ramped(bias, steps, ramp))


def ramped(whole: Tensor, steps: int, ramp: int) -> Tensor:
    """What of whole numbers has entered after so many steps of a ramp: round(whole * steps / ramp)."""
    if steps >= ramp:
        return whole
    return torch.div(2 * whole * steps + ramp, 2 * ramp, rounding_mode="floor")


def _with_biases(graph: Graph, change: Callable[[Tensor], Tensor]) -> Mapping[str, Tensor]:
    with_bias = ops.Neuron | ops.IntegrateFire | ops.Readout
    names = {node.op.bias for node in graph.nodes if isinstance(node.op, with_bias)} - {None}
    return {name: change(each) if name in names else each for name, each in graph.tensors.items()}


def accumulator_bounds(graph: Graph) -> dict[str, int]:
    """The largest |integer| that each emitting node and readout ever holds, bias included."""
    return {name: span.sum for name, span in spans(graph).items() if span.sum is not None}


def _sum(node: Node, found: Mapping[str, Interval], tensors: Mapping[str, Tensor]) -> int | None:
    match node.op:
        case ops.Neuron() | ops.IntegrateFire() | ops.Readout() | ops.Recurrence():
            return _largest_sum(node, found, tensors)
        case ops.MaxPool() | ops.AMax():
            lo, hi = found[node.inputs[0]]
            return int(max(float(lo.abs().max()), float(hi.abs().max())))
        case _:
            return None


def _largest_sum(node: Node, found: Mapping[str, Interval], tensors: Mapping[str, Tensor]) -> int:
    """The largest |accumulator|, with and without the bias; of a recurrence with what it sends itself."""
    lo, hi = found[node.inputs[0]]
    op = node.op
    if isinstance(op, ops.Recurrence):
        inner = replace(node, op=ops.Linear(op.weight, None))
        own = _weighted(inner, [found[node.name]], tensors)
        lo, hi, op = lo + own[0].clamp(max=0), hi + own[1].clamp(min=0), op.cell
    sizes = [lo.abs().max(), hi.abs().max()]
    assert isinstance(op, ops.Neuron | ops.IntegrateFire | ops.Readout)
    if op.bias is not None:
        bias = tensors[op.bias].double()
        sizes += [(lo + bias).abs().max(), (hi + bias).abs().max()]
    largest = max(float(size) for size in sizes)
    if isinstance(op, ops.IntegrateFire):  # the membrane: what arrived less what was sent
        largest = 2 * largest + float(tensors[op.threshold].max())
    return int(largest)


def _with_zero(lo: Tensor, hi: Tensor) -> Interval:
    return lo.clamp(max=0), hi.clamp(min=0)


def _constant(node: Node, lo: int, hi: int) -> Interval:
    full = (1, *node.shape)
    return _with_zero(
        torch.full(full, float(lo), dtype=torch.float64), torch.full(full, float(hi), dtype=torch.float64)
    )


@INTERVALS.rule(ops.Input, ops.Neuron, ops.IntegrateFire, ops.Recurrence)
def _grid(node: Node, sources: Sequence[Interval], tensors: Mapping[str, Tensor]) -> Interval:
    op = node.op.cell if isinstance(node.op, ops.Recurrence) else node.op
    assert isinstance(op, ops.Input | ops.Neuron | ops.IntegrateFire)
    return _constant(node, op.lo, op.hi)


@INTERVALS.rule(ops.Conv, ops.Linear, ops.AxisMap, ops.Scale)
def _weighted(node: Node, sources: Sequence[Interval], tensors: Mapping[str, Tensor]) -> Interval:
    """Weights carry centre to centre, their sizes the half-widths; halves are exact in float64."""
    ((lo, hi),) = sources
    op = node.op
    assert isinstance(op, ops.Conv | ops.Linear | ops.AxisMap | ops.Scale)
    match op:
        case ops.AxisMap(matrix=name) | ops.Scale(factor=name):
            pass
        case _:
            name = op.weight
    rule, weight = LINEAR[type(op)], tensors[name].double()
    centre = rule(op, [(lo + hi) / 2], {name: weight})
    reach = rule(op, [(hi - lo) / 2], {name: weight.abs()})
    return centre - reach, centre + reach


@INTERVALS.rule(ops.Add)
def _add(node: Node, sources: Sequence[Interval], tensors: Mapping[str, Tensor]) -> Interval:
    assert isinstance(node.op, ops.Add)
    ends = [
        (lo, hi) if sign > 0 else (-hi, -lo) for (lo, hi), sign in zip(sources, node.op.signs, strict=True)
    ]
    plus = ops.Add((1,) * len(ends))
    rule = LINEAR[ops.Add]
    return rule(plus, [lo for lo, _ in ends], tensors), rule(plus, [hi for _, hi in ends], tensors)


@INTERVALS.rule(ops.Concat, *ops.REARRANGING)
def _moved(node: Node, sources: Sequence[Interval], tensors: Mapping[str, Tensor]) -> Interval:
    rule = LINEAR[type(node.op)]
    return rule(node.op, [lo for lo, _ in sources], tensors), rule(
        node.op, [hi for _, hi in sources], tensors
    )


@INTERVALS.rule(ops.Mul)
def _mul(node: Node, sources: Sequence[Interval], tensors: Mapping[str, Tensor]) -> Interval:
    corners = torch.stack([p * q for a in sources[0] for b in sources[1] for p, q in (align_ranks(a, b),)])
    return corners.amin(0), corners.amax(0)


@INTERVALS.rule(ops.MaxPool, ops.AMax)
def _maximum(node: Node, sources: Sequence[Interval], tensors: Mapping[str, Tensor]) -> Interval:
    ((lo, hi),) = sources
    assert isinstance(node.op, ops.MaxPool | ops.AMax)
    return _with_zero(pooling.maximum(node.op, lo), pooling.maximum(node.op, hi))


@INTERVALS.rule(ops.Readout)
def _readout(node: Node, sources: Sequence[Interval], tensors: Mapping[str, Tensor]) -> Interval:
    assert isinstance(node.op, ops.Readout)
    ((lo, hi),) = sources
    if node.op.bias is None:
        return lo, hi
    bias = tensors[node.op.bias].double()
    return torch.minimum(lo, lo + bias), torch.maximum(hi, hi + bias)
