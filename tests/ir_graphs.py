"""Random small graphs of every dialect, and what two of them, or a file, hold: for tests of the IR itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
import numpy as np
import torch

from graphs import random_integer_graph
from spikemorph.errors import GraphError
from spikemorph.ir import functions, ops
from spikemorph.ir.graph import Dialect, Graph, Node, Origin
from spikemorph.ir.shapes import infer
from spikemorph.ir.structure import Items, Leaf, Named, Structure
from spikemorph.ir.verify import ALLOWED, used_tensors

T = TypeVar("T")
NAMES = (
    "w",
    "layer.0.weight",
    "naïve",
    "__metadata__",
    'quote"s',
    "",
    "tab\t",
    "\ud800",
    "a/b c",
    "\\n",
    "名",
)


@dataclass
class Draw:
    """Nodes and tensors so far, and where randomness comes from."""

    rng: np.random.Generator
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def upto(self, high: int, low: int = 1) -> int:
        return int(self.rng.integers(low, high + 1))

    def coin(self) -> bool:
        return bool(self.rng.integers(2))

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.rng.integers(len(items)))]

    def real(self) -> float:
        return float(self.rng.normal())

    def tensor(self, *shape: int) -> str:
        name = f"{self.pick(NAMES)}{len(self.tensors) or ''}"
        dtype = self.pick((torch.float32, torch.float64, torch.float16, torch.bfloat16))
        self.tensors[name] = torch.from_numpy(self.rng.normal(size=shape)).to(dtype)
        return name

    def maybe(self, *shape: int) -> str | None:
        return self.tensor(*shape) if self.coin() else None

    def whole(self, *shape: int) -> str:
        name = f"{self.pick(NAMES)}{len(self.tensors) or ''}"
        most = 2 ** self.upto(62)
        self.tensors[name] = torch.from_numpy(self.rng.integers(-most, most, shape))
        return name


def spread(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to the given one."""
    return tuple(d.pick((1, size)) for size in shape)[d.upto(len(shape), 0) :]


def ints(d: Draw, count: int, high: int, low: int = 1) -> tuple[int, ...]:
    return tuple(d.upto(high, low) for _ in range(count))


def function(d: Draw) -> functions.Function:
    lo = d.real()
    return d.pick((
        *(functions.Relu(), functions.Sigmoid(), functions.Tanh(), functions.HardSigmoid()),
        *(functions.Swish(d.real()), functions.Mish()),
        *(functions.HardSwish(), functions.Silu(), functions.Gelu(d.coin()), functions.Abs()),
        *(functions.Clamp(lo, lo + 1), functions.Clamp(None, 6), functions.Clamp(0, None)),
        *(functions.LeakyRelu(d.real()), functions.Elu(d.real(), d.real()), functions.Softplus(d.real())),
    ))


def conv(d: Draw, shape: tuple[int, ...]) -> ops.Op:
    n = d.pick((1, 2))
    groups = d.pick([each for each in range(1, shape[0] + 1) if shape[0] % each == 0])
    part, out = shape[0] // groups, d.upto(2)
    transposed = d.coin()
    first = (shape[0], out) if transposed else (groups * out, part)
    weight = d.tensor(*first, *ints(d, n, 3))
    extra = ints(d, n, 1, 0) if transposed and d.coin() else ()
    sizes = ints(d, n, 3), ints(d, n, 2, 0), ints(d, n, 2)
    return ops.Conv(weight, d.maybe(groups * out), *sizes, groups, transposed, extra)


def affine(d: Draw, shape: tuple[int, ...]) -> ops.Affine:
    return ops.Affine(*(d.tensor(*spread(d, shape)) if d.coin() else None for _ in range(2)))


def axis_map(d: Draw, shape: tuple[int, ...]) -> ops.Op:
    axis = d.upto(len(shape) - 1, 0)
    return ops.AxisMap(axis, d.whole(d.upto(4), shape[axis]), d.upto(9))


def some_axes(d: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in range(len(shape)) if d.coin()) or (0,)


def slices(d: Draw, shape: tuple[int, ...]) -> ops.Op:
    axis = d.upto(len(shape) - 1, 0)
    start = d.upto(shape[axis] - 1, 0)
    return ops.Slice(axis, start, d.upto(shape[axis], start + 1), d.upto(2))


def quantiser(d: Draw, shape: tuple[int, ...]) -> ops.Op:
    chain = tuple(function(d) if d.coin() else affine(d, shape) for _ in range(d.upto(3, 0)))
    return ops.Quantiser(chain, -d.upto(5, 0), d.upto(300, 0), d.coin(), d.pick(("", "product")))


def batch_norm(d: Draw, shape: tuple[int, ...]) -> ops.Op:
    c = shape[0]
    return ops.BatchNorm(d.maybe(c), d.maybe(c), d.tensor(c), d.tensor(c), 1e-5)


def avg_pool(d: Draw, n: int) -> ops.Op:
    windows = ints(d, n, 3), ints(d, n, 3), ints(d, n, 1, 0)
    return ops.AvgPool(*windows, d.coin(), d.coin(), d.upto(9) if n == 2 and d.coin() else None)


def upsample(d: Draw, n: int) -> ops.Op:
    scales = tuple(d.pick((None, 2.0, 1.5)) for _ in range(n)) if d.coin() else ()
    if d.coin():
        return ops.Upsample(ints(d, n, 6), "linear", d.coin(), scales)
    return ops.Upsample(ints(d, n, 6), "nearest", False, scales)


Maker = Callable[[Draw, tuple[int, ...]], ops.Op]

MAKERS: dict[type, Maker] = {
    ops.Conv: conv,
    ops.Linear: lambda d, s: ops.Linear(d.tensor(o := d.upto(4), s[-1]), d.maybe(o)),
    ops.BatchNorm: batch_norm,
    ops.Affine: affine,
    ops.AxisMap: axis_map,
    ops.Add: lambda d, s: ops.Add(tuple(d.pick((1, -1)) for _ in range(d.upto(3)))),
    ops.Mul: lambda d, s: ops.Mul(),
    ops.Concat: lambda d, s: ops.Concat(d.upto(len(s) - 1, 0)),
    ops.Reshape: lambda d, s: ops.Reshape(
        d.pick([(math.prod(s),), s[::-1], (1, *s), (math.prod(s[:2]), *s[2:])])
    ),
    ops.Permute: lambda d, s: ops.Permute(tuple(int(a) for a in d.rng.permutation(len(s)))),
    ops.Slice: slices,
    ops.Expand: lambda d, s: ops.Expand((
        *ints(d, d.upto(1, 0), 2),
        *(d.upto(3) if n == 1 else n for n in s),
    )),
    ops.Pad: lambda d, s: ops.Pad(ints(d, 2 * len(s), 1, 0), d.pick((0.0, d.real()))),
    ops.AvgPool: lambda d, s: avg_pool(d, d.upto(2)),
    ops.AdaptiveAvgPool: lambda d, s: ops.AdaptiveAvgPool(ints(d, d.upto(2), 4)),
    ops.Mean: lambda d, s: ops.Mean(some_axes(d, s), d.coin()),
    ops.AMax: lambda d, s: ops.AMax(some_axes(d, s), d.coin()),
    ops.Upsample: lambda d, s: upsample(d, d.upto(2)),
    ops.Elementwise: lambda d, s: ops.Elementwise(function(d)),
    ops.MaxPool: lambda d, s: ops.MaxPool(
        *(ints(d, n := d.upto(2), 3), ints(d, n, 3), ints(d, n, 1, 0), ints(d, n, 2)), d.coin()
    ),
    ops.Quantiser: quantiser,
    ops.Recurrence: lambda d, s: ops.Recurrence(
        d.tensor(s[-1], s[-1]), ops.Elementwise(function(d)), d.coin()
    ),
}
PLANNED: dict[type, Maker] = {
    **MAKERS,
    ops.Recurrence: lambda d, s: ops.Recurrence(
        d.tensor(s[-1], s[-1]), ops.Quantiser((function(d),), -d.upto(5, 0), d.upto(300, 0)), d.coin()
    ),
}

HOSTS: dict[type, Maker] = {
    ops.Softmax: lambda d, s: ops.Softmax(d.upto(len(s) - 1, 0), d.coin()),
    ops.HostFunction: lambda d, s: ops.HostFunction(function(d)),
    ops.Argmax: lambda d, s: ops.Argmax(d.upto(len(s) - 1, 0), True) if d.coin() else ops.Argmax(None),
}


def grow(d: Draw, makers: dict[type, Maker], source: Node, kinds: list[type]) -> None:
    """One more node on `source`, if the dice give one that fits."""
    if not source.shape:
        return
    kept = dict(d.tensors)
    op = makers[d.pick(kinds)](d, source.shape)
    inputs = (source,)
    if isinstance(op, ops.Add | ops.Mul | ops.Concat):
        more = (
            1 if isinstance(op, ops.Mul) else len(op.signs) - 1 if isinstance(op, ops.Add) else d.upto(2, 0)
        )
        like = [node for node in d.nodes if not isinstance(node.op, ops.HOST)]
        inputs = (source, *(d.pick((source, d.pick(like))) for _ in range(more)))
    with suppress(GraphError):
        shape = infer(op, tuple(node.shape for node in inputs), d.tensors)
        if math.prod(shape) <= 500 and len(shape) <= 4:
            origin = Origin(*(d.pick(("", "layer.1", "net.py:3", "aten.add")) for _ in range(3)))
            axis = d.upto(len(shape) - 1, 0) if shape and d.coin() else None
            axis = 0 if isinstance(op, ops.Recurrence) else axis
            name = f"{type(op).__name__.lower()}{len(d.nodes)}"
            d.nodes.append(Node(name, op, tuple(node.name for node in inputs), shape, origin, axis))
            return
    d.tensors = kept


def structured(d: Draw, leaves: list[int]) -> Structure:
    """A nesting of the leaves, each at least once."""
    if len(leaves) == 1 and d.coin():
        return Leaf(leaves[0])
    cut = d.upto(len(leaves), 1)
    parts = [part for part in (leaves[:cut], leaves[cut:]) if part]
    items = tuple(Leaf(part[0]) if len(part) == 1 else structured(d, part) for part in parts)
    if d.coin():
        return Named(tuple(f"{d.pick(NAMES)}{place}" for place in range(len(items))), items)
    return Items(items, d.coin())


DRAWN = tuple(each for each in Dialect if each is not Dialect.RATE)
"""Rate graphs are made from networks in test_rates."""


def random_graph(rng: np.random.Generator, dialect: Dialect, nodes: int) -> Graph:
    """A graph that keeps every rule of its dialect."""
    d = Draw(rng)
    if dialect is Dialect.INTEGER:
        body = random_integer_graph(rng, nodes=nodes)
        d.nodes, d.tensors, ends = list(body.nodes), dict(body.tensors), list(body.outputs)
        sources = [node for node in d.nodes if isinstance(node.op, ops.Readout)]
    else:
        for index in range(d.upto(2)):
            shape = (d.upto(4), *ints(d, d.upto(2, 0), 6, 2))
            d.nodes.append(Node(f"x{index}", ops.Input(index), (), shape))
        kinds = [kind for kind in MAKERS if kind in ALLOWED[dialect]]
        for _ in range(nodes):
            grow(d, PLANNED if dialect is Dialect.PLANNED else MAKERS, d.pick(d.nodes), kinds)
        ends = [d.pick(d.nodes).name for _ in range(d.upto(2))]
        sources = list(d.nodes)
    for _ in range(d.upto(2, 0)):
        read = [node for node in sources if not isinstance(node.op, ops.Argmax)]
        grow(d, HOSTS, d.pick(read), list(HOSTS))
        sources.append(d.nodes[-1])
        ends.append(d.nodes[-1].name)
    places = list(range(len(ends)))
    return Graph(dialect, tuple(d.nodes), tuple(ends), d.tensors, structured(d, places))


@st.composite
def random_graphs(draw: st.DrawFn, *dialects: Dialect) -> Graph:
    """Graphs of the given dialects, of all without any."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random_graph(rng, draw(st.sampled_from(dialects or DRAWN)), draw(st.integers(1, 12)))


def changed(graph: Graph, name: str, **fields: object) -> Graph:
    """The graph with other fields in one node."""
    return graph.with_nodes(replace(node, **fields) if node.name == name else node for node in graph.nodes)


def assert_same(a: Graph, b: Graph) -> None:
    assert (a.dialect, a.nodes, a.outputs, a.structure) == (b.dialect, b.nodes, b.outputs, b.structure)
    left, right = used_tensors(a), dict(b.tensors)
    assert list(left) == sorted(right)
    for name, tensor in left.items():
        other = right[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape)
        assert bits(tensor) == bits(other)
    assert a.units.keys() == b.units.keys()
    assert all(torch.equal(a.units[name], b.units[name]) for name in a.units)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def taken_apart(path: Path) -> tuple[dict[str, Any], bytes]:
    """The safetensors header and the tensors' bytes."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]
