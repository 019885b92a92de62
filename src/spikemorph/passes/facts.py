"""What is known of every value of a graph before any number is: ranges, units, constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.table import OpTable
from spikemorph.passes import patterns
from spikemorph.passes.levels import Levels

SUM_BUDGET = 2**29
"""Largest |sum| of branches that were put on one grid (`quantise.grids` lays it so)."""


RECURRENT_BUDGET = 2**28
"""The same for a recurrence, whose input may be a sum over many numbers of 8 bits."""


@final
@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a value before any number is.

    Args:
        shape: of the value.
        pattern: of its unit.
        bound: of its integers.
        counts: it holds counts of neurons or of the input, moved about at most.
        plain: its units are positive.
        offset: it may carry a constant besides unit * integer.
        signed: it may be negative.
        uneven: how many times larger the integers may be in one part of a concatenation than in another.
    """

    shape: tuple[int, ...]
    pattern: tuple[int, ...]
    bound: int
    counts: bool = False
    plain: bool = True
    offset: bool = False
    signed: bool = True
    uneven: int = 1


FactRule = Callable[[Node, tuple[Fact, ...], Graph, Levels], Fact]
FACTS: OpTable[FactRule] = OpTable("plan facts", ops.PLANNED_OPS, dict.fromkeys(ops.HOST, "outside the law"))


def facts_of(graph: Graph, levels: Levels) -> dict[str, Fact]:
    """What is known of every value of a planned graph, host ops aside."""
    facts: dict[str, Fact] = {}
    for node in graph.body:
        known = tuple(facts[name] for name in node.inputs)
        facts[node.name] = FACTS[type(node.op)](node, known, graph, levels)
    return facts


def weight_growth(node: Node, graph: Graph, levels: Levels) -> int:
    """The largest sum of |integer weights| that one output can have."""
    assert isinstance(node.op, ops.Conv | ops.Linear | ops.Recurrence)
    weight = graph.tensors[node.op.weight]
    fan_in = int(weight[0].numel())
    if isinstance(node.op, ops.Conv) and node.op.transposed:
        fan_in = weight.shape[0] // node.op.groups * weight[0, 0].numel()
    return fan_in * levels.largest_weight(node.origin.module)


@FACTS.rule(ops.Input)
def _input_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    return Fact(node.shape, (1,) * len(node.shape), 2**levels.input.bits - 1, counts=True)


@FACTS.rule(ops.Conv, ops.Linear)
def _weighted_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    (fact,) = known
    assert isinstance(node.op, ops.Conv | ops.Linear)
    channel = 0 if isinstance(node.op, ops.Conv) else len(node.shape) - 1
    pattern = tuple(n if axis == channel else 1 for axis, n in enumerate(node.shape))
    bound = fact.bound * weight_growth(node, graph, levels)
    return Fact(node.shape, pattern, bound, offset=fact.offset or node.op.bias is not None)


@FACTS.rule(ops.AxisMap)
def _axis_map_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    (fact,) = known
    assert isinstance(node.op, ops.AxisMap)
    matrix = graph.tensors[node.op.matrix]
    signed = fact.signed or bool((matrix < 0).any())
    growth = int(matrix.abs().sum(1).max())
    return replace(fact, shape=node.shape, bound=fact.bound * growth, counts=False, signed=signed)


@FACTS.rule(ops.Affine)
def _affine_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    (fact,) = known
    assert isinstance(node.op, ops.Affine)
    pattern = patterns.affine_pattern(node.op, fact.pattern, graph.tensors)
    moved = fact.shape == node.shape
    return Fact(
        node.shape,
        pattern,
        fact.bound,
        fact.counts and moved,
        plain=False,
        offset=fact.offset or node.op.offset is not None,
        uneven=fact.uneven,
    )


@FACTS.rule(ops.Add)
def _add_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    assert isinstance(node.op, ops.Add)
    signed = any(fact.signed for fact in known) or -1 in node.op.signs
    pattern = patterns.broadcast(*(fact.pattern for fact in known))
    offset = any(fact.offset for fact in known)
    return Fact(
        node.shape, patterns.lifted(pattern, len(node.shape)), SUM_BUDGET, offset=offset, signed=signed
    )


@FACTS.rule(ops.Concat)
def _concat_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    assert isinstance(node.op, ops.Concat)
    pattern = patterns.joined(
        node.op.axis, tuple(fact.shape for fact in known), tuple(fact.pattern for fact in known)
    )
    bounds = [fact.bound for fact in known]
    return Fact(
        node.shape,
        pattern,
        max(bounds),
        all(fact.counts for fact in known),
        all(fact.plain for fact in known),
        any(fact.offset for fact in known),
        any(fact.signed for fact in known),
        max(bounds) * max(fact.uneven for fact in known) // max(min(bounds), 1),
    )


@FACTS.rule(*ops.REARRANGING)
def _rearranged_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    (fact,) = known
    pattern, _ = patterns.rearranged(node.op, fact.shape, fact.pattern)
    filled = isinstance(node.op, ops.Pad) and node.op.value != 0
    return replace(
        fact, shape=node.shape, pattern=pattern, offset=fact.offset or filled, signed=fact.signed or filled
    )


@FACTS.rule(ops.Mul)
def _mul_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    a, b = known
    pattern = patterns.lifted(patterns.broadcast(a.pattern, b.pattern), len(node.shape))
    return Fact(
        node.shape, pattern, a.bound * b.bound, plain=a.plain and b.plain, signed=a.signed or b.signed
    )


@FACTS.rule(ops.MaxPool, ops.AMax)
def _maximum_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    (fact,) = known
    pattern = fact.pattern
    if isinstance(node.op, ops.AMax) and not node.op.keepdim:
        pattern = tuple(n for axis, n in enumerate(pattern) if axis not in node.op.axes)
    return replace(fact, shape=node.shape, pattern=pattern)


@FACTS.rule(ops.Recurrence)
def _recurrence_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    assert isinstance(node.op, ops.Recurrence) and isinstance(node.op.cell, ops.Quantiser)
    lo, hi = node.op.cell.lo, node.op.cell.hi
    return Fact(node.shape, (1, 1), max(-lo, hi), counts=True, signed=lo < 0)


@FACTS.rule(ops.Quantiser)
def _quantiser_fact(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> Fact:
    assert isinstance(node.op, ops.Quantiser)
    per_channel = node.op.per_channel and len(node.shape) > 0
    pattern = tuple(n if per_channel and axis == 0 else 1 for axis, n in enumerate(node.shape))
    return Fact(node.shape, pattern, max(-node.op.lo, node.op.hi), counts=True, signed=node.op.lo < 0)
