"""A cell of integer ops to stages and edges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from spikemorph.evaluate.intervals import Span, accumulator_bounds, spans
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.run.event.layout import Ints, Layout, by_axis, layouts, moved
from spikemorph.run.event.links import linked, mapped
from spikemorph.run.event.program import Arrivals, Edge, Kind, Program, Stage, ordered
from spikemorph.run.event.rows import merged, places_of, sourced, windowed
from spikemorph.run.event.tracking import neuron, pool
from spikemorph.run.event.views import Term, View, added, disjoint, joined, pieces, rearranged, spread

SUMMING = (ops.Neuron, ops.IntegrateFire, ops.MaxPool, ops.AMax, ops.Mul, ops.Readout)
WEIGHTED = (ops.Conv, ops.Linear, ops.AxisMap, ops.Scale)
THROUGH = (ops.Add, ops.Concat, ops.Reshape, ops.Permute, ops.Slice, ops.Pad)
"""Ops through which a linear op can add into the sums behind them."""


def lower(graph: Graph, spikes: Mapping[str, tuple[int, int]]) -> Program:
    """Stages and edges of a feed-forward integer graph.

    Args:
        spikes: by name of what emits, the smallest and the largest spike.
    """
    return _Lowering(graph, spikes).program()


class _Lowering:
    """State of one lowering."""

    def __init__(self, graph: Graph, spikes: Mapping[str, tuple[int, int]]) -> None:
        self.graph, self.spikes = graph, spikes
        self.layouts = layouts(graph)
        self.bounds = accumulator_bounds(graph)
        self.spans = spans(graph)
        self.folds = _folds(graph)
        self.stages: list[Stage] = []
        self.number: dict[str, int] = {}
        self.views: dict[str, View] = {}
        self.arrivals: list[Arrivals] = []

    def program(self) -> Program:
        for node in self.graph.body:
            if node.name not in self.folds:
                self._visit(node)
        for stage in self.stages:
            stage.edges = merged(stage.edges)
        return ordered(Program(tuple(self.stages), self.number, tuple(self.arrivals)))

    def _visit(self, node: Node) -> None:
        op = node.op
        views = [self.views.get(name, ()) for name in node.inputs]
        shapes = [self.graph.by_name[name].shape for name in node.inputs]
        match op:
            case ops.Input():
                self._stage(node, Kind.CODED if node.name in self.spikes else Kind.ANALOG, _size_of(op))
            case ops.Add():
                self.views[node.name] = added(node, op, views, shapes)
            case ops.Concat():
                self.views[node.name] = joined(op, views, shapes)
            case ops.Reshape() | ops.Permute() | ops.Slice() | ops.Expand() | ops.Pad():
                self.views[node.name] = rearranged(op, views[0], shapes[0])
            case ops.Mul():
                self._product(node)
            case ops.Neuron() | ops.IntegrateFire() | ops.MaxPool() | ops.AMax() | ops.Readout():
                self._tracking(node)
            case _:
                number = self._stage(node, Kind.RELAY, _change(self.spans[node.name]))
                self._weighted(number, node, self.layouts[node.name].index, 1)

    # ---------------------------------------------------------------- stages
    def _stage(self, node: Node, kind: Kind, bound: int, layout: Layout | None = None) -> int:
        own = self.layouts[node.name] if layout is None else layout
        least, largest = self.spikes.get(node.name, (0, 0))
        start = np.zeros(own.size, dtype=np.int64)
        self.stages.append(Stage(kind, node.name, own, own, bound, start, largest=largest, least=least))
        number = len(self.stages) - 1
        if node.name:
            self.number[node.name] = number
            self.views[node.name] = (Term(number, own.index),)
        return number

    def _tracking(self, node: Node) -> None:
        """A neuron, a pool or a readout, with all that adds into it."""
        kind = Kind.READOUT if isinstance(node.op, ops.Readout) else Kind.STEPS
        number = self._stage(node, kind, self.bounds[node.name])
        stage, source = self.stages[number], self.graph.by_name[node.inputs[0]]
        if isinstance(node.op, ops.MaxPool | ops.AMax):
            pool(stage, node, source, self.layouts[source.name])
            stage.bound = max(stage.bound, _change(self.spans[node.name]))
        else:
            neuron(stage, node, self.graph.tensors)
        self._feed(number, source.name, stage.sums.index, 1)

    def _product(self, node: Node) -> None:
        """Both factors over the shape of the product."""
        operands = [self._apart(name) for name in node.inputs]
        number = self._stage(node, Kind.PRODUCT, 2**31 - 2)
        stage = self.stages[number]
        stage.start = np.zeros(3 * stage.layout.size, dtype=np.int64)
        counted = []
        for part, (name, view) in enumerate(zip(node.inputs, operands, strict=True)):
            shape = self.graph.by_name[name].shape
            for term in view:
                wide = Term(term.stage, spread(term.index, shape, node.shape), term.sign)
                counted.append((wide.stage, wide.index))
                target = stage.layout.index + part * stage.layout.size
                self._link(number, wide, target, part)
        self.arrivals.append(Arrivals(node.name, node.shape, tuple(counted)))

    # ---------------------------------------------------------------- edges
    def _feed(self, number: int, name: str, target: Ints, sign: int) -> None:
        """Add a value into sums: `target` is the place of each of its numbers, -1 for none."""
        node = self.graph.by_name[name]
        if name not in self.folds:
            for term in self.views[name]:
                self._link(number, replace(term, sign=term.sign * sign), target, 0)
            return
        op = node.op
        match op:
            case ops.Add():
                for source, own in zip(node.inputs, op.signs, strict=True):
                    self._feed_branch(number, source, node, target, sign * own)
            case ops.Concat():
                shapes = [self.graph.by_name[each].shape for each in node.inputs]
                for source, place in zip(node.inputs, pieces(op, shapes), strict=True):
                    self._feed(number, source, target[place], sign)
            case ops.Reshape() | ops.Permute() | ops.Slice() | ops.Pad():
                before = self.graph.by_name[node.inputs[0]].shape
                from_source = moved(op, before)
                back = np.full(math.prod(before), -1)
                used = from_source >= 0
                back[from_source[used]] = target[used]
                self._feed(number, node.inputs[0], back, sign)
            case _:
                self._weighted(number, node, target, sign)

    def _feed_branch(self, number: int, name: str, total: Node, target: Ints, sign: int) -> None:
        """A branch of a sum; a smaller one is spread over it."""
        branch = self.graph.by_name[name]
        if branch.shape == total.shape:
            self._feed(number, name, target, sign)
            return
        for term in self.views[name]:
            wide = Term(term.stage, spread(term.index, branch.shape, total.shape), term.sign * sign)
            self._link(number, wide, target, 0)

    def _link(self, number: int, term: Term, target: Ints, part: int) -> None:
        used = (term.index >= 0) & (target >= 0)
        weight = np.full(int(used.sum()), term.sign)
        before, after = self.stages[term.stage].layout, self.stages[number].sums
        edge = linked(term.stage, before, after, (term.index[used], target[used], weight))
        self.stages[number].edges.append(replace(edge, part=part))

    def _weighted(self, number: int, node: Node, target: Ints, sign: int) -> None:
        """The edges of an op with weights, from where its input comes."""
        view = self._apart(node.inputs[0])
        source = self.graph.by_name[node.inputs[0]]
        if isinstance(node.op, ops.Conv | ops.Linear):
            edges, view = self._rows(number, node, source, view, target, sign)
        else:
            matrix = mapped(node, source.shape, self.graph.tensors)
            sums = self.stages[number].sums
            links = [(term.stage, matrix.from_term(term, target, sign)) for term in view]
            edges = [linked(stage, self.stages[stage].layout, sums, each) for stage, each in links]
        self.stages[number].edges.extend(edges)
        counted = tuple((term.stage, term.index) for term in view)
        self.arrivals.append(Arrivals(node.name, source.shape, counted))

    def _rows(
        self, number: int, node: Node, source: Node, view: View, target: Ints, sign: int
    ) -> tuple[list[Edge], View]:
        form = windowed(node, source.shape, self.graph.tensors)
        place = places_of(form, target)
        if place is None:
            return self._detour(number, node, view, target, sign)
        edges: list[Edge] = []
        for term in view:
            signed = replace(term, sign=term.sign * sign)
            edge = sourced(form, signed, self.stages[term.stage].layout, place)
            if edge is None:
                relay = self._relay(source, view, by_axis(source.shape, -1 if form.last else 0))
                return self._rows(number, node, source, (relay,), target, sign)
            edges.append(edge)
        return edges, view

    def _detour(
        self, behind: int, node: Node, view: View, target: Ints, sign: int
    ) -> tuple[list[Edge], View]:
        """The op into a relay of its own, and from there to where its channels go apart."""
        own = by_axis(node.shape, -1 if isinstance(node.op, ops.Linear) else 0)
        bare = replace(node, name="")
        number = self._stage(bare, Kind.RELAY, _change(self.spans[node.name]), own)
        edges, view = self._rows(number, node, self.graph.by_name[node.inputs[0]], view, own.index, 1)
        self.stages[number].edges.extend(edges)
        used = target >= 0
        triple = own.index[used], target[used], np.full(int(used.sum()), sign)
        return [linked(number, own, self.stages[behind].sums, triple)], view

    def _apart(self, name: str) -> View:
        """A value whose numbers come from one place each; sums are made first."""
        view = self.views[name]
        if disjoint(view):
            return view
        return (self._relay(self.graph.by_name[name], view, self.layouts[name]),)

    def _relay(self, node: Node, view: View, layout: Layout) -> Term:
        """What a view stands for as a stage of its own."""
        number = self._stage(replace(node, name=""), Kind.RELAY, _change(self.spans[node.name]), layout)
        for term in view:
            self._link(number, term, layout.index, 0)
        return Term(number, layout.index)


def _folds(graph: Graph) -> set[str]:
    """Linear nodes that add straight into the sums behind them: read once, by what passes it on."""
    found: set[str] = set()
    for node in reversed(graph.body):
        users = graph.consumers[node.name]
        if not isinstance(node.op, (*WEIGHTED, *THROUGH)) or len(users) != 1:
            continue
        user = users[0]
        once = user.inputs.count(node.name) == 1
        passes = isinstance(user.op, THROUGH) and user.name in found
        if isinstance(user.op, ops.Add):
            passes = passes and node.shape == user.shape
        sums = isinstance(user.op, SUMMING) and not isinstance(user.op, ops.Mul)
        if once and (passes or sums):
            found.add(node.name)
    return found


def _change(span: Span) -> int:
    """The largest change between two moments."""
    return int(max(span.width, span.size, 1.0))


def _size_of(op: ops.Input) -> int:
    return max(abs(op.lo), abs(op.hi), op.hi - op.lo)
