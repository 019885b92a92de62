"""Recurrent networks for tests: float graphs as capture makes them, random integer graphs, equal runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from torch import Tensor

import spikemorph as sm
from graphs import DRAWS, GROWN, Dice, TooLargeError, Value, network
from spikemorph.convert.network import Analog, Encoding, Graded, Spike, Spikes, SpikingNetwork, Ternary
from spikemorph.errors import GraphError
from spikemorph.evaluate.encode import input_counts
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.ir import functions as fn
from spikemorph.ir import ops
from spikemorph.ir.elements import with_element_axes
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.shapes import infer, window_count
from spikemorph.ir.structure import Items, Leaf
from spikemorph.ir.verify import named_tensors
from spikemorph.run.dense import Dense
from spikemorph.run.event import Event
from spikemorph.run.handover import Delta, Fresh, Handover
from spikemorph.run.record import Everything
from spikemorph.run.reference import Reference
from spikemorph.run.result import Run

COARSE = sm.Levels(activation=3, input=sm.Analog(bits=4))
WAYS: tuple[Handover, ...] = (Fresh(), Delta())
KINDS: tuple[tuple[Spike, Encoding], ...] = tuple(
    (spike, encoding) for spike in (Ternary(), Graded(3)) for encoding in (Analog(), Spikes())
)


# ---------------------------------------------------------------- float graphs
@dataclass(frozen=True)
class Window:
    """conv (with ReLU), max or avg, along time, in front of the recurrence."""

    kind: str
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def elements(self, before: int) -> int:
        dilation = 1 if self.kind == "avg" else self.dilation
        return window_count(before, self.kernel, self.stride, self.padding, dilation, ceil=False)


BEHIND = ("all", "linear", "last", "ends", "first", "mean", "max", "flatten", "conv", "conv and last")


@dataclass(frozen=True)
class How:
    """What a sequence goes through; windows that do not fit its length are left out."""

    elements: int = 7
    features: int = 2
    units: int = 3
    layers: int = 1
    both: bool = False
    relu: bool = True
    front: tuple[Window, ...] = ()
    behind: str = "all"
    state: bool = False
    residual: bool = False

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the inputs, without the batch."""
        x = (self.features, self.elements) if self.front else (self.elements, self.features)
        return (x, (self.layers * (1 + self.both), self.units)) if self.state else (x,)

    @property
    def axis(self) -> int:
        """Of time in a batch of the first input."""
        return 2 if self.front else 1


def windows() -> st.SearchStrategy[Window]:
    return st.one_of(
        st.builds(
            Window,
            st.just("conv"),
            st.integers(1, 3),
            stride=st.integers(1, 3),
            padding=st.integers(0, 2),
            dilation=st.integers(1, 2),
        ),
        st.builds(Window, st.just("max"), st.integers(2, 3), stride=st.integers(1, 3)),
        st.builds(Window, st.just("max"), st.just(3), stride=st.integers(1, 2), padding=st.just(1)),
        st.builds(Window, st.just("max"), st.just(2), stride=st.integers(1, 2), dilation=st.just(2)),
        st.builds(Window, st.just("avg"), st.integers(2, 3), stride=st.integers(1, 3)),
        st.builds(Window, st.just("avg"), st.just(3), stride=st.integers(1, 2), padding=st.just(1)),
    )


def hows(most: int = 40) -> st.SearchStrategy[How]:
    """All that How can say; long sequences are as rare as they are slow."""
    return st.builds(
        How,
        elements=st.one_of(st.integers(1, 8), st.integers(1, 8), st.integers(1, most)),
        features=st.integers(1, 2),
        units=st.integers(1, 3),
        layers=st.sampled_from([1, 1, 2]),
        both=st.sampled_from([False, False, True]),
        relu=st.booleans(),
        front=st.lists(windows(), max_size=2).map(tuple),
        behind=st.sampled_from(BEHIND),
        state=st.booleans(),
        residual=st.booleans(),
    )


@dataclass
class Floats:
    """Collects the nodes of a float graph with random weights."""

    rng: np.random.Generator
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def add(self, op: ops.Op, *inputs: Node, shape: tuple[int, ...] | None = None) -> Node:
        found = infer(op, tuple(each.shape for each in inputs), self.tensors) if shape is None else shape
        name = f"{type(op).__name__.lower()}{len(self.nodes)}"
        self.nodes.append(Node(name, op, tuple(each.name for each in inputs), found))
        return self.nodes[-1]

    def weight(self, *shape: int, gain: float = 1.0) -> str:
        name = f"w{len(self.tensors)}"
        drawn = self.rng.normal(0, gain / math.sqrt(math.prod(shape[1:])), shape)
        self.tensors[name] = torch.from_numpy(drawn).float()
        return name

    def bias(self, size: int) -> str:
        name = f"b{len(self.tensors)}"
        self.tensors[name] = torch.from_numpy(self.rng.normal(0.1, 0.3, size)).float()
        return name

    def linear(self, x: Node, out: int) -> Node:
        return self.add(ops.Linear(self.weight(out, x.shape[-1]), self.bias(out)), x)

    def relu(self, x: Node) -> Node:
        return self.add(ops.Elementwise(fn.Relu()), x)

    def conv(self, x: Node, out: int, window: Window) -> Node:
        weight, bias = self.weight(out, x.shape[0], window.kernel), self.bias(out)
        op = ops.Conv(weight, bias, (window.stride,), (window.padding,), (window.dilation,))
        return self.relu(self.add(op, x))

    def window(self, x: Node, units: int, window: Window) -> Node:
        sizes = (window.kernel,), (window.stride,), (window.padding,)
        match window.kind:
            case "conv":
                return self.conv(x, units, window)
            case "max":
                return self.add(ops.MaxPool(*sizes, (window.dilation,)), x)
        return self.add(ops.AvgPool(*sizes), x)

    def direction(self, x: Node, how: How, row: int, h0: Node | None) -> Node:
        own, reverse = self.weight(how.units, how.units, gain=0.7), row % 2 == 1 and how.both
        total = self.linear(x, how.units)
        if h0 is not None:
            state = self.add(ops.Slice(0, row, row + 1), h0)
            state = self.add(ops.Linear(own, None), state)
            rest = x.shape[0] - 1
            state = self.add(ops.Pad((rest, 0, 0, 0) if reverse else (0, rest, 0, 0)), state)
            total = self.add(ops.Add((1, 1)), total, state)
        function = fn.Relu() if how.relu else fn.Tanh()
        return self.add(ops.Recurrence(own, ops.Elementwise(function), reverse), total)

    def behind(self, x: Node, how: How) -> Node:
        last = x.shape[0] - 1
        match how.behind:
            case "all":
                return x
            case "linear":
                return self.linear(x, 2)
            case "last" | "first":
                place = last if how.behind == "last" else 0
                x = self.add(ops.Reshape(x.shape[1:]), self.add(ops.Slice(0, place, place + 1), x))
            case "ends":
                half = x.shape[1] // (1 + how.both)
                ends = [self.add(ops.Slice(0, last, last + 1), self.add(ops.Slice(1, 0, half), x))]
                if how.both:
                    ends.append(self.add(ops.Slice(0, 0, 1), self.add(ops.Slice(1, half, 2 * half), x)))
                x = ends[0] if len(ends) == 1 else self.add(ops.Concat(1), *ends)
            case "mean":
                x = self.add(ops.Mean((0,), False), x)
            case "max":
                x = self.add(ops.AMax((0,), False), x)
            case "flatten":
                x = self.add(ops.Reshape((math.prod(x.shape),)), x)
            case "conv":
                x = self.conv(self.add(ops.Permute((1, 0)), x), 2, Window("conv", padding=1))
                x = self.add(ops.Mean((1,), False), x)
            case "conv and last":
                x = self.conv(self.add(ops.Permute((1, 0)), x), 2, Window("conv", padding=1))
                x = self.add(ops.Reshape((2,)), self.add(ops.Slice(1, last, last + 1), x))
        return self.linear(x, 2)


def float_graph(how: How, seed: int) -> Graph:
    """A float graph, as capture would make it."""
    b = Floats(np.random.default_rng(seed))
    x, *states = [b.add(ops.Input(index), shape=shape) for index, shape in enumerate(how.shapes)]
    for window in how.front:
        if window.elements(x.shape[1]) >= 1:
            x = b.window(x, how.units, window)
    if how.front:
        x = b.add(ops.Permute((1, 0)), x)
    before, directions = x, 2 if how.both else 1
    for layer in range(how.layers):
        rows = range(layer * directions, (layer + 1) * directions)
        outs = [b.direction(x, how, row, states[0] if states else None) for row in rows]
        x = outs[0] if len(outs) == 1 else b.add(ops.Concat(1), *outs)
    if how.residual:
        x = b.relu(b.add(ops.Add((1, 1)), x, b.linear(before, x.shape[1])))
    x = b.behind(x, how)
    return Graph(Dialect.FLOAT, tuple(b.nodes), (x.name,), b.tensors)


def samples(how: How, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Noise of the network's shapes."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, *shape, generator=generator) for shape in how.shapes)


def quantised(how: How, seed: int = 0, levels: sm.Levels | None = None) -> Graph:
    """The integer graph of random weights."""
    return sm.quantise(float_graph(how, seed), samples(how, 16, seed + 1), levels or COARSE)


# ---------------------------------------------------------------- integer graphs
@dataclass(kw_only=True)
class Loops(Dice):
    """A builder that draws recurrences too."""

    def recurrence(self, x: Value) -> Value:
        """Any step function, also one an element; forwards or backwards."""
        if len(x.shape) != 2:
            x = self.add(ops.Reshape((math.prod(x.shape[:-1]), x.shape[-1])), x, bound=x.bound)
        (elements, units), bound = x.shape, x.bound
        weight = self.weight((units, units))
        lo, hi = self.pick(((0, 1), (0, 4), (-2, 2), (-1, 3), (1, 3)))
        reach = max(2, int((bound + max(-lo, hi) * int(weight.abs().sum(1).max())) * self.pick((0.1, 0.4))))
        groups = ((), (units,), (1, units), (elements, 1), (elements, units))
        group, values, count = self.pick(groups), None, hi - lo
        if self.chance(0.5):
            count = self.upto(5)
            values = self.tensor(self.rng.integers(lo, hi + 1, (*group, count + 1)))
        breakpoints = np.sort(self.rng.integers(-reach, reach + 1, (*group, count)), axis=-1)
        bias = self.tensor(self.numbers(self.pick(groups), reach // 2)) if self.chance(0.6) else None
        cell = ops.Neuron(lo, hi, self.tensor(breakpoints), values, bias)
        return self.add(ops.Recurrence(self.tensor(weight), cell, self.chance(0.4)), x, bound=max(-lo, hi))

    def graph(self, *outputs: Value) -> Graph:
        used = {name for node in self.nodes for name in named_tensors(node.op).values()}
        tensors = {name: each for name, each in self.tensors.items() if name in used}
        leaves = tuple(Leaf(index) for index in range(len(outputs)))
        structure = leaves[0] if len(leaves) == 1 else Items(leaves)
        names = tuple(each.name for each in outputs)
        made = Graph(Dialect.INTEGER, tuple(self.nodes), names, tensors, structure)
        return with_element_axes(made)


def random_recurrent_graph(rng: np.random.Generator, *, nodes: int = 6) -> Graph:
    """Any integer op anywhere around one or more recurrences; a readout on all that nobody reads."""
    b = Loops(rng=rng)
    b.input(0, (b.upto(8), b.upto(3)), -b.upto(6, 0), b.upto(6))
    if b.chance(0.4):
        b.input(1, (b.upto(3), b.upto(6)), -b.upto(6, 0), b.upto(6))
    left, due = nodes, b.upto(nodes)
    while left > 0:
        used = {name for node in b.nodes for name in node.inputs}
        leaves = [each for each in b.values if each.name not in used]
        x = b.pick(leaves if b.chance(0.7) else b.values)
        with suppress(GraphError, TooLargeError):
            x = b.at_most(x, GROWN)
            loop = left == due or b.chance(0.15)
            if loop and x.shape and math.prod(x.shape[:-1]) <= 10:
                b.recurrence(x)
            else:
                b.pick(DRAWS)(b, x)
            left -= 1
    used = {name for node in b.nodes for name in node.inputs}
    leaves = [each for each in b.values if each.name not in used]
    if not any(isinstance(node.op, ops.Recurrence) for node in b.nodes):
        leaves.append(b.recurrence(b.at_most(b.values[0], GROWN)))
    return b.graph(*(b.readout(b.at_most(each, 2**20), bias=3) for each in leaves))


# ---------------------------------------------------------------- runs
def same(left: Any, right: Any, part: str) -> None:
    """Two mappings of tensors are equal, names included."""
    assert left is not None
    assert right is not None
    assert left.keys() == right.keys(), part
    for name in left:
        assert torch.equal(left[name], right[name]), (part, name)


def assert_same_run(a: Run, b: Run) -> None:
    """Every field."""
    assert a.graph is b.graph
    assert (a.steps, a.spikes, a.events, a.elements) == (b.steps, b.spikes, b.events, b.elements)
    assert torch.equal(a.element_steps, b.element_steps)
    assert torch.equal(a.element_settled, b.element_settled)
    for part in ("raw", "layer_spikes", "layer_events", "counts", "layer_steps", "trace"):
        same(getattr(a, part), getattr(b, part), part)
    for left, right in zip(a.work, b.work, strict=True):
        assert left.graph is right.graph
        same(left.arrivals, right.arrivals, "work")
    assert a.raws is not None
    assert b.raws is not None
    for now, then in zip(a.raws, b.raws, strict=True):
        same(now, then, "raws")


def assert_at_rest(run: Run, graph: Graph, counts: tuple[Tensor, ...], lengths: Tensor | None = None) -> None:
    """Every neuron of every element, and the readouts, hold what the QNN holds."""
    rest = evaluate_counts(graph, counts, lengths)
    assert run.counts is not None
    assert bool(run.settled.all())
    for node in graph.neurons:
        assert torch.equal(run.counts[node.name], rest[node.name].long()), node.name
    for node in graph.readouts:
        assert torch.equal(run.raw[node.name], rest[node.name].long()), node.name


def all_engines(
    net: SpikingNetwork,
    counts: tuple[Tensor, ...],
    handover: Handover,
    lengths: Tensor | None = None,
    steps: int | None = None,
) -> Run:
    """What all engines give alike, in every field."""
    dense, reference, event = (
        engine.run(net, counts, steps=steps, record=(Everything(),), handover=handover, lengths=lengths)
        for engine in (Dense(), Reference(), Event())
    )
    assert_same_run(dense, reference)
    assert_same_run(event, reference)
    return dense


def exact_runs(
    net: SpikingNetwork, counts: tuple[Tensor, ...], lengths: Tensor | None = None
) -> Iterator[Run]:
    """Runs with every exact hand-over, checked: both engines alike, and at rest the QNN."""
    for handover in WAYS:
        run = all_engines(net, counts, handover, lengths)
        assert_at_rest(run, net.graph, counts, lengths)
        yield run


def converted(how: How, kind: tuple[Spike, Encoding], seed: int) -> tuple[SpikingNetwork, tuple[Tensor, ...]]:
    """A spiking network of random weights, and input counts."""
    net = replace(network(quantised(how, seed)), spike=kind[0], encoding=kind[1])
    return net, input_counts(net.graph, samples(how, 3, seed + 2))
