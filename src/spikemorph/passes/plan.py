"""Where identity neurons must stand so that every map between two neurons is exact in int32.

Decided from shapes, levels and bits alone, never from weights: training cannot change it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import final

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.table import OpTable
from spikemorph.passes.facts import FACTS, RECURRENT_BUDGET, SUM_BUDGET, Fact, weight_growth
from spikemorph.passes.levels import Levels, PerChannel, count_range

BUDGET = 2**30
"""Largest |sum| a composed map may reach; the bias has as much again below the end of int32."""


KEPT_BITS = 4
"""Of the integer weights of what is finest side by side: they are as small as its integers are large."""


@final
@dataclass(frozen=True, slots=True)
class Need:
    """What an op asks of one input.

    Args:
        uniform: axes along which the unit must be the same.
        counts: it must hold counts with positive units.
        no_offset: it must not carry a constant.
        growth: the integers grow by this factor, and must stay inside the budget.
        uneven: how many times finer than another one of its parts may be.
        limit: largest bound the op takes.
        why: what the op is, for the reason of an identity neuron.
    """

    why: str
    uniform: tuple[int, ...] = ()
    counts: bool = False
    plain: bool = False
    no_offset: bool = False
    uneven: int | None = None
    growth: int = 1
    limit: int = BUDGET


def complaint(fact: Fact, need: Need) -> str | None:
    """Why an identity neuron must stand between, None if none must."""
    if need.counts and not fact.counts:
        return f"{need.why} works on counts"
    if need.plain and not fact.plain:
        return f"{need.why} needs positive units, a gain stands in front"
    if need.no_offset and fact.offset:
        return f"{need.why} takes no constant offset"
    if any(fact.pattern[axis] != 1 for axis in need.uniform):
        return f"{need.why} needs one unit along axis {[a for a in need.uniform if fact.pattern[a] != 1]}"
    if need.uneven is not None and fact.uneven > need.uneven and not fact.counts:
        return f"{need.why} weighs parts side by side of which one is {fact.uneven} times finer than another"
    if fact.bound * need.growth > need.limit and not fact.counts:
        composed = f"{fact.bound * need.growth:.2g}"
        return f"linear follows linear: the composed bound {composed} of {need.why} exceeds int32"
    return None


NeedRule = Callable[[Node, tuple[Fact, ...], Graph, Levels], tuple[Need, ...]]

_HOST_GAP = dict.fromkeys(ops.HOST, "outside the law")
NEEDS: OpTable[NeedRule] = OpTable(
    "plan needs", ops.PLANNED_OPS, {ops.Input: "nothing in front", **_HOST_GAP}
)


def insert_identities(graph: Graph, levels: Levels) -> Graph:
    """The planned graph with identity neurons where needed, and units per channel only where absorbed."""
    uniform: frozenset[str] = frozenset()
    while True:
        planned, blamed = _walk(graph, levels, uniform)
        if not blamed:
            return planned
        uniform |= blamed
        graph = graph.with_nodes(
            replace(node, op=replace(node.op, per_channel=False))
            if node.name in blamed and isinstance(node.op, ops.Quantiser)
            else node
            for node in graph.nodes
        )


@dataclass
class _Walk:
    """One attempt; lives inside `insert_identities` only.

    `blamed` are per-channel quantisers whose units some consumer could not absorb, `uniform` the identity
    neurons among them that earlier walks found.
    """

    graph: Graph
    levels: Levels
    uniform: frozenset[str]
    facts: dict[str, Fact] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    guards: dict[str, str] = field(default_factory=dict)
    blamed: set[str] = field(default_factory=set)

    def visit(self, node: Node) -> None:
        """Add the node, with identity neurons in front where it needs them."""
        known = tuple(self.facts[name] for name in node.inputs)
        if not isinstance(node.op, ops.Input):
            needs = NEEDS[type(node.op)](node, known, self.graph, self.levels)
            sources = tuple(self.guarded(name, need) for name, need in zip(node.inputs, needs, strict=True))
            if self.blamed:
                return
            node = replace(node, inputs=sources)
        known = tuple(self.facts[name] for name in node.inputs)
        self.facts[node.name] = FACTS[type(node.op)](node, known, self.graph, self.levels)
        self.nodes.append(node)

    def guarded(self, name: str, need: Need) -> str:
        """The value itself, or that of an identity neuron behind it."""
        fact = self.facts[name]
        reason = complaint(fact, need)
        if reason is None:
            return name
        if need.uniform:
            self.blamed |= self.per_channel_sources(name)
        if name not in self.guards:
            guard = _identity(self.graph.by_name[name], fact, self.levels, (reason, self.uniform))
            self.guards[name] = guard.name
            self.facts[guard.name] = FACTS[ops.Quantiser](guard, (fact,), self.graph, self.levels)
            self.nodes.append(guard)
        if complaint(self.facts[self.guards[name]], need) is not None:
            self.blamed |= self.per_channel_sources(self.guards[name])
        return self.guards[name]

    def per_channel_sources(self, name: str) -> set[str]:
        """Per-channel quantisers, identity neurons among them, whose units reach a value."""
        node = next(each for each in reversed(self.nodes) if each.name == name)
        if isinstance(node.op, ops.Quantiser):
            return {name} if node.op.per_channel else set()
        if isinstance(node.op, ops.Conv | ops.Linear):
            return set()
        return set().union(*map(self.per_channel_sources, node.inputs))

    def read_out(self) -> Graph:
        """The planned graph: what is read out fits the budget, too."""
        read = {name: self.guarded(name, Need("an output")) for name in sources_of_outputs(self.graph)}
        for node in self.graph.nodes:
            if isinstance(node.op, ops.HOST):
                self.nodes.append(replace(node, inputs=tuple(read.get(name, name) for name in node.inputs)))
        outputs = tuple(read.get(name, name) for name in self.graph.outputs)
        return self.graph.with_nodes(self.nodes, outputs=outputs)


def _walk(graph: Graph, levels: Levels, uniform: frozenset[str]) -> tuple[Graph, set[str]]:
    """The planned graph, or the first quantisers that need one unit for all channels."""
    walk = _Walk(graph, levels, uniform)
    for node in graph.body:
        walk.visit(node)
        if walk.blamed:
            return graph, walk.blamed
    return walk.read_out(), walk.blamed


def sources_of_outputs(graph: Graph) -> tuple[str, ...]:
    """Values that are read out: outputs, and what host ops read, host ops themselves aside."""
    hosts = {node.name for node in graph.nodes if isinstance(node.op, ops.HOST)}
    read = [*graph.outputs, *(name for node in graph.nodes if node.name in hosts for name in node.inputs)]
    return tuple(dict.fromkeys(name for name in read if name not in hosts))


def _identity(source: Node, fact: Fact, levels: Levels, why: tuple[str, frozenset[str]]) -> Node:
    """An identity neuron behind a value; `why` is the reason and the names that need one unit."""
    (reason, uniform), name = why, f"{source.name}.identity"
    lo, hi = count_range(levels.identity_of(source.origin.module), signed=fact.signed)
    per_channel = isinstance(levels.granularity, PerChannel) and name not in uniform
    op = ops.Quantiser((), lo, hi, per_channel and len(source.shape) > 0, reason)
    return replace(source, name=name, op=op, inputs=(source.name,))


# ---------------------------------------------------------------- needs
def _weighted_need(why: str, uniform: tuple[int, ...], node: Node, graph: Graph, levels: Levels) -> Need:
    spare = 2 ** (levels.weight_bits_of(node.origin.module) - KEPT_BITS)
    return Need(why, uniform, uneven=max(int(spare), 2), growth=weight_growth(node, graph, levels))


@NEEDS.rule(ops.Conv)
def _conv_need(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> tuple[Need, ...]:
    spatial = tuple(range(1, len(known[0].shape)))
    return (_weighted_need("a convolution", spatial, node, graph, levels),)


@NEEDS.rule(ops.Linear)
def _linear_need(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> tuple[Need, ...]:
    others = tuple(range(len(known[0].shape) - 1))
    return (_weighted_need("a linear layer", others, node, graph, levels),)


@NEEDS.rule(ops.AxisMap)
def _axis_map_need(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> tuple[Need, ...]:
    assert isinstance(node.op, ops.AxisMap)
    growth = int(graph.tensors[node.op.matrix].abs().sum(1).max())
    return (Need("an average or upsampling", (node.op.axis,), growth=growth),)


@NEEDS.rule(ops.Add)
def _add_need(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> tuple[Need, ...]:
    return (Need("a sum", limit=SUM_BUDGET // 4 // len(known)),) * len(known)


@NEEDS.rule(ops.Recurrence)
def _recurrence_need(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> tuple[Need, ...]:
    return (Need("a recurrence", (0,), limit=RECURRENT_BUDGET // 8),)


@NEEDS.rule(ops.Mul)
def _mul_need(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> tuple[Need, ...]:
    return (Need("a product", counts=True, no_offset=True),) * 2


@NEEDS.rule(ops.MaxPool)
def _max_pool_need(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> tuple[Need, ...]:
    assert isinstance(node.op, ops.MaxPool)
    rank = len(known[0].shape)
    pooled = tuple(range(rank - len(node.op.kernel), rank))
    return (Need("a max-pool", pooled, counts=True, plain=True, no_offset=True),)


@NEEDS.rule(ops.AMax)
def _amax_need(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> tuple[Need, ...]:
    assert isinstance(node.op, ops.AMax)
    return (Need("a maximum", node.op.axes, counts=True, plain=True, no_offset=True),)


@NEEDS.rule(ops.Affine, ops.Concat, *ops.REARRANGING, ops.Quantiser)
def _no_need(node: Node, known: tuple[Fact, ...], graph: Graph, levels: Levels) -> tuple[Need, ...]:
    return (Need("it"),) * len(known)
