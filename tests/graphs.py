"""Integer graphs for tests: small ones by hand, and random ones of every integer op."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import TypeVar

import hypothesis.strategies as st
import numpy as np
import torch
from torch import Tensor

from spikemorph.convert.network import Analog, Encoding, Spike, SpikingNetwork, Ternary
from spikemorph.errors import GraphError
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.shapes import Shape, broadcast, infer
from spikemorph.ir.structure import Items, Leaf

T = TypeVar("T")
TERNARY, ANALOG = Ternary(), Analog()


def network(graph: Graph, spike: Spike = TERNARY, encoding: Encoding = ANALOG) -> SpikingNetwork:
    """The graph as a network that was converted from nothing."""
    return SpikingNetwork(graph, spike, encoding, source="")


def rounding(step: int, lo: int, hi: int) -> Tensor:
    """Breakpoints of clip(floor(1/2 + a/step), lo, hi)."""
    return torch.tensor([-(-step * (2 * k - 1) // 2) for k in range(lo + 1, hi + 1)], dtype=torch.int64)


# ---------------------------------------------------------------- building
class TooLargeError(Exception):
    """A node whose numbers, or whose number of numbers, are more than tests want."""


@dataclass(frozen=True)
class Value:
    """A node's result, which exceeds the bound in absolute value at no moment."""

    name: str
    shape: Shape
    bound: int


@dataclass
class Builder:
    """Collects nodes and tensors under running names."""

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def tensor(self, numbers: object) -> str:
        """The name of a new tensor, int64 unless it holds fractions."""
        name = f"t{len(self.tensors)}"
        self.tensors[name] = torch.as_tensor(numbers)
        return name

    def real(self, numbers: object) -> str:
        """The name of a new float64 tensor."""
        return self.tensor(torch.as_tensor(numbers, dtype=torch.float64))

    def maybe(self, numbers: object) -> str | None:
        """The name of a new tensor, unless there is none."""
        return None if numbers is None else self.tensor(numbers)

    def add(self, op: ops.Op, *inputs: Value, bound: int, shape: Shape | None = None) -> Value:
        """One more node; the shape is given for an input only."""
        if bound >= 2**31:
            raise TooLargeError
        found = infer(op, tuple(each.shape for each in inputs), self.tensors) if shape is None else shape
        name = f"{type(op).__name__.lower()}{len(self.nodes)}"
        self.nodes.append(Node(name, op, tuple(each.name for each in inputs), found))
        return Value(name, found, bound)

    def input(self, index: int, shape: Shape, lo: int, hi: int) -> Value:
        """Argument number `index`."""
        return self.add(ops.Input(index, lo, hi, self.real(0.5)), shape=shape, bound=max(-lo, hi))

    def linear(self, x: Value, weight: object) -> Value:
        """Over the last axis."""
        name = self.tensor(weight)
        return self.add(ops.Linear(name, None), x, bound=x.bound * _gain(self.tensors[name]))

    def neuron(
        self, x: Value, lo: int, hi: int, breakpoints: object, values: object = None, bias: object = None
    ) -> Value:
        """Tracks a step function."""
        op = ops.Neuron(lo, hi, self.tensor(breakpoints), self.maybe(values), self.maybe(bias))
        return self.add(op, x, bound=max(-lo, hi))

    def readout(self, x: Value, scale: object = 0.25, bias: object = None, offset: object = None) -> Value:
        """One output."""
        most = 0 if bias is None else int(torch.as_tensor(bias).abs().max())
        op = ops.Readout(self.real(scale), self.maybe(bias), None if offset is None else self.real(offset))
        return self.add(op, x, bound=x.bound + most)

    def graph(self, *outputs: Value) -> Graph:
        """The network with these outputs."""
        leaves = tuple(Leaf(index) for index in range(len(outputs)))
        structure = leaves[0] if len(leaves) == 1 else Items(leaves)
        used = {getattr(node.op, each.name) for node in self.nodes for each in fields(node.op)}
        tensors = {name: each for name, each in self.tensors.items() if name in used}
        names = tuple(each.name for each in outputs)
        return Graph(Dialect.INTEGER, tuple(self.nodes), names, tensors, structure)


def _gain(rows: Tensor) -> int:
    """The largest sum of absolute weights into one output; axis 0 is outputs."""
    return int(rows.abs().flatten(1).sum(1).max())


# ---------------------------------------------------------------- by hand
def weighted_neuron(weights: Sequence[int], step: int, lo: int, hi: int, most: int = 12) -> Graph:
    """Inputs, weighted and summed, into one neuron that rounds sum / step: linear1, neuron2, readout3."""
    b = Builder()
    x = b.input(0, (len(weights),), -most, most)
    return b.graph(b.readout(b.neuron(b.linear(x, [list(weights)]), lo, hi, rounding(step, lo, hi))))


def two_layers() -> Graph:
    """input0 [2] -> linear1 -> neuron2 (0..2) -> linear3 -> neuron4 (-1..1) -> linear5 -> readout6 [1]."""
    b = Builder()
    x = b.input(0, (2,), -3, 3)
    hidden = b.neuron(b.linear(x, [[2, -1], [1, 1]]), 0, 2, [2, 4], bias=[0, 1])
    out = b.neuron(b.linear(hidden, [[4, -2]]), -1, 1, [0, 2])
    return b.graph(b.readout(b.linear(out, [[3]]), bias=[5]))


def product() -> Graph:
    """input0 [2, 3] -> neuron2, input1 [3] -> neuron3, their mul4 [2, 3] -> readout5. Counts are -3..4."""
    b = Builder()
    x, y = b.input(0, (2, 3), -5, 5), b.input(1, (3,), -5, 5)
    x, y = (b.neuron(each, -3, 4, rounding(1, -3, 4)) for each in (x, y))
    return b.graph(b.readout(b.add(ops.Mul(), x, y, bound=16)))


def pooled() -> Graph:
    """input0 [1, 4, 4] -> neuron1 (-2..3) -> maxpool2 [1, 2, 2] -> amax3 [1] -> readout4."""
    b = Builder()
    x = b.neuron(b.input(0, (1, 4, 4), -4, 4), -2, 3, rounding(1, -2, 3))
    pool = b.add(ops.MaxPool((2, 2), (2, 2), (0, 0), (1, 1)), x, bound=x.bound)
    return b.graph(b.readout(b.add(ops.AMax((1, 2), False), pool, bound=pool.bound)))


# ---------------------------------------------------------------- at random
GROWN = 2**12  # larger values pass an identity neuron before anything else is done with them
FEW = 24  # counts that pools can afford to follow one by one
LARGE = 400  # ops that make more numbers than they take stop here
ENLARGING = (ops.Conv, ops.Linear, ops.AxisMap, ops.Add, ops.Mul, ops.Expand, ops.Pad)


@dataclass(kw_only=True)
class Dice(Builder):
    """A builder that draws."""

    rng: np.random.Generator
    values: list[Value] = field(default_factory=list)

    def upto(self, high: int, low: int = 1) -> int:
        """A whole number in low..high."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, items: Sequence[T]) -> T:
        return items[self.upto(len(items) - 1, 0)]

    def numbers(self, shape: Sequence[int], most: int) -> Tensor:
        """Whole numbers in -most..most, a fifth of them 0 at least."""
        drawn = self.rng.integers(-most, most + 1, tuple(shape))
        return torch.as_tensor(np.where(self.rng.random(tuple(shape)) < 0.8, drawn, 0))

    def weight(self, shape: Sequence[int]) -> Tensor:
        """Mostly small, sometimes large."""
        return self.numbers(shape, self.pick((1, 3, 3, 50)))

    def add(self, op: ops.Op, *inputs: Value, bound: int, shape: Shape | None = None) -> Value:
        """One more node, offered to later ones."""
        made = super().add(op, *inputs, bound=bound, shape=shape)
        if isinstance(op, ENLARGING) and math.prod(made.shape) > LARGE:
            self.nodes.pop()
            raise TooLargeError
        if not isinstance(op, ops.Readout):
            self.values.append(made)
        return made

    def at_most(self, x: Value, most: int) -> Value:
        """The value, through an identity neuron where it may be larger."""
        if x.bound <= most:
            return x
        lo, hi = -self.upto(8), self.upto(8)
        step = max(1, x.bound // (16 * self.upto(4)))
        op = ops.Neuron(lo, hi, self.tensor(rounding(step, lo, hi)), None, None, identity=True)
        return self.add(op, x, bound=max(-lo, hi))

    def partner(self, x: Value) -> Value:
        """A value that broadcasts with x: itself, another one, one of lower rank, a sum along an axis."""
        match self.upto(4):
            case 1:
                return x
            case 2:
                return self.pick([each for each in self.values if broadcast((x.shape, each.shape))])
            case 3 if len(x.shape) > 1:
                part = self.add(ops.Slice(0, x.shape[0] - 1, x.shape[0]), x, bound=x.bound)
                return self.add(ops.Reshape(x.shape[1:]), part, bound=x.bound)
            case _:
                return _axis_map(self, x, out=1)


def _per_channel(x: Value) -> Shape:
    return (x.shape[0], *(1,) * (len(x.shape) - 1))


def _conv(b: Dice, x: Value) -> Value:
    """1-D or 2-D, strided, dilated, padded, grouped, perhaps transposed."""
    n, groups = len(x.shape) - 1, b.pick([g for g in range(1, x.shape[0] + 1) if x.shape[0] % g == 0])
    inner, outer = x.shape[0] // groups, b.upto(3)
    kernel, stride, dilation, padding = (
        tuple(b.upto(high, low) for _ in range(n)) for high, low in ((3, 1), (2, 1), (2, 1), (2, 0))
    )
    if b.chance(0.4):
        more = tuple(b.upto(max(s, d) - 1, 0) for s, d in zip(stride, dilation, strict=True))
        weight = b.weight((groups * inner, outer, *kernel))
        gain = _gain(weight.reshape(groups, inner, outer, -1).movedim(1, 2).flatten(0, 1))
        op = ops.Conv(b.tensor(weight), None, stride, padding, dilation, groups, True, more)
    else:
        weight = b.weight((groups * outer, inner, *kernel))
        gain = _gain(weight)
        op = ops.Conv(b.tensor(weight), None, stride, padding, dilation, groups)
    return b.add(op, x, bound=x.bound * gain)


def _linear(b: Dice, x: Value) -> Value:
    return b.linear(x, b.weight((b.upto(4), x.shape[-1])))


def _axis_map(b: Dice, x: Value, out: int | None = None) -> Value:
    axis = b.upto(len(x.shape) - 1, 0)
    matrix = b.weight((b.upto(4) if out is None else out, x.shape[axis]))
    return b.add(ops.AxisMap(axis, b.tensor(matrix)), x, bound=x.bound * _gain(matrix))


def _scale(b: Dice, x: Value) -> Value:
    factor = b.weight(b.pick([(), x.shape, _per_channel(x)]))
    return b.add(ops.Scale(b.tensor(factor)), x, bound=x.bound * int(factor.abs().max()))


def _add(b: Dice, x: Value) -> Value:
    terms = [x, *(b.partner(x) for _ in range(b.upto(2)))][:: b.pick((1, -1))]
    signs = tuple(b.pick((1, 1, -1)) for _ in terms)
    return b.add(ops.Add(signs), *terms, bound=sum(each.bound for each in terms))


def _mul(b: Dice, x: Value) -> Value:
    x, y = (_count(b, each) for each in (x, b.partner(x)))
    return b.add(ops.Mul(), x, y, bound=x.bound * y.bound)


def _count(b: Dice, x: Value) -> Value:
    """The value itself where it is a neuron's count, otherwise a neuron on it."""
    return x if x.name.startswith("neuron") else _neuron(b, x)


def _concat(b: Dice, x: Value) -> Value:
    axis = b.upto(len(x.shape) - 1, 0)
    parts = [x, b.pick([each for each in b.values if len(each.shape) == len(x.shape)]), x]
    parts = parts[:: b.pick((1, 2, -1))]
    return b.add(ops.Concat(axis), *parts, bound=max(each.bound for each in parts))


def _reshape(b: Dice, x: Value) -> Value:
    shapes = [(math.prod(x.shape),), x.shape[::-1], (math.prod(x.shape[:-1]), x.shape[-1])]
    if len(x.shape) < 3:
        shapes += [(1, *x.shape), (*x.shape, 1)]
    return b.add(ops.Reshape(b.pick(shapes)), x, bound=x.bound)


def _permute(b: Dice, x: Value) -> Value:
    axes = tuple(int(axis) for axis in b.rng.permutation(len(x.shape)))
    return b.add(ops.Permute(axes), x, bound=x.bound)


def _slice(b: Dice, x: Value) -> Value:
    axis = b.upto(len(x.shape) - 1, 0)
    start = b.upto(x.shape[axis] - 1, 0)
    return b.add(ops.Slice(axis, start, b.upto(x.shape[axis], start + 1), b.upto(2)), x, bound=x.bound)


def _expand(b: Dice, x: Value) -> Value:
    shape = tuple(b.upto(3) if size == 1 else size for size in x.shape)
    if len(shape) < 3 and b.chance(0.7):
        shape = (b.upto(3), *shape)
    return b.add(ops.Expand(shape), x, bound=x.bound)


def _pad(b: Dice, x: Value) -> Value:
    pads = tuple(b.pick((0, 0, 1, 2)) for _ in range(2 * len(x.shape)))
    return b.add(ops.Pad(pads), x, bound=x.bound)


def _max_pool(b: Dice, x: Value) -> Value:
    """1-D or 2-D, overlapping, padded, dilated, with ceil."""
    n = b.upto(min(2, len(x.shape)))
    kernel, stride, dilation = (tuple(b.upto(high) for _ in range(n)) for high in (3, 3, 2))
    # Without dilation, padding up to half a window leaves an input in each; with it, a small input may slip.
    padding = tuple(b.upto(k // 2, 0) if d == 1 else 0 for k, d in zip(kernel, dilation, strict=True))
    x = b.at_most(x, FEW)
    return b.add(ops.MaxPool(kernel, stride, padding, dilation, b.chance(0.5)), x, bound=x.bound)


def _amax(b: Dice, x: Value) -> Value:
    axes = tuple(axis for axis in range(len(x.shape)) if b.chance(0.5)) or (len(x.shape) - 1,)
    x = b.at_most(x, FEW)
    return b.add(ops.AMax(axes, len(axes) == len(x.shape) or b.chance(0.5)), x, bound=x.bound)


def _neuron(b: Dice, x: Value) -> Value:
    """One step function, or one a channel: rising by ones, or any values: rising, falling, in any order."""
    lo, hi = b.pick(((0, 1), (0, 3), (0, 7), (-2, 2), (-1, 4), (-5, 1), (1, 3), (-3, -1)))
    group = b.pick([(), _per_channel(x)])
    reach = max(2, int(x.bound * b.pick((0.03, 0.1, 0.4))))
    values, count = None, hi - lo
    if b.chance(0.6):
        count = b.upto(7)
        drawn = np.sort(b.rng.integers(lo, hi + 1, (*group, count + 1)), axis=-1)
        values = b.pick([drawn, drawn[..., ::-1], b.rng.permuted(drawn, axis=-1)]).copy()
    breakpoints = np.sort(b.rng.integers(-reach, reach + 1, (*group, count)), axis=-1)
    bias = b.numbers(b.pick([(), _per_channel(x), x.shape]), max(1, reach // 4)) if b.chance(0.5) else None
    return b.neuron(x, lo, hi, breakpoints, values, bias)


DRAWS: tuple[Callable[[Dice, Value], Value], ...] = (
    *(_conv, _conv, _conv, _linear, _axis_map, _scale, _add, _mul, _max_pool, _amax, _neuron, _neuron),
    *(_neuron, _concat, _reshape, _permute, _slice, _expand, _pad),
)


def random_integer_graph(rng: np.random.Generator, *, nodes: int = 8) -> Graph:
    """A valid integer graph: 1-2 inputs, `nodes` drawn ops and what they need, 1-2 readouts.

    Every node reaches an output. No value reaches 2**31 at any moment.
    """
    b = Dice(rng=rng)
    for index in range(b.upto(2)):
        b.input(index, (b.upto(4), *(b.upto(6, 2) for _ in range(b.upto(2, 0)))), -b.upto(10, 0), b.upto(10))
    left = nodes
    while left > 0:
        x = b.pick(_leaves(b) if b.chance(0.7) else b.values)
        with suppress(GraphError, TooLargeError):
            b.pick(DRAWS)(b, b.at_most(x, GROWN))
            left -= 1
    leaves = _leaves(b)
    cut = b.pick(range(len(leaves))) if b.chance(0.4) else 0
    parts = [_joined(b, part) for part in (leaves[:cut], leaves[cut:]) if part]
    if len(parts) == 1 and b.chance(0.3):
        parts.append(b.pick(b.values))
    return b.graph(*(_readout(b, x) for x in parts))


def _leaves(b: Dice) -> list[Value]:
    used = {name for node in b.nodes for name in node.inputs}
    return [each for each in b.values if each.name not in used]


def _joined(b: Dice, parts: Sequence[Value]) -> Value:
    if len(parts) == 1:
        return parts[0]
    flat = [b.add(ops.Reshape((math.prod(x.shape),)), x, bound=x.bound) for x in parts]
    return b.add(ops.Concat(0), *flat, bound=max(each.bound for each in flat))


def _readout(b: Dice, x: Value) -> Value:
    scale = b.rng.uniform(0.01, 1.0, b.pick([(), _per_channel(x)]))
    bias = b.numbers(b.pick([_per_channel(x), x.shape]), 40) if b.chance(0.6) else None
    offset = b.rng.normal(size=_per_channel(x)) if b.chance(0.3) else None
    return b.readout(x, scale, bias, offset)


def random_counts(rng: np.random.Generator, graph: Graph, batch: int) -> tuple[Tensor, ...]:
    """Input counts within the grids, int64 [batch, *shape], of very different density."""
    drawn = []
    for node in graph.inputs:
        assert isinstance(node.op, ops.Input)
        counts = rng.integers(node.op.lo, node.op.hi + 1, (batch, *node.shape))
        kept = rng.random(counts.shape) < rng.random((batch, *(1,) * len(node.shape)))
        drawn.append(torch.from_numpy(np.where(kept, counts, 0)))
    return tuple(drawn)


def integer_graphs(*, most: int = 12) -> st.SearchStrategy[Graph]:
    """Random integer graphs as a hypothesis strategy; it shrinks towards fewer nodes."""
    draws = st.tuples(st.integers(1, most), st.integers(0, 2**20))
    return draws.map(lambda drawn: random_integer_graph(np.random.default_rng(drawn[1]), nodes=drawn[0]))
