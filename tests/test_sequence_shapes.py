"""What stands in front of and behind a recurrence, op by op: exact, whatever it does to the elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import spikemorph as sm
from graphs import network
from recurrent_graphs import Floats, How, Window, exact_runs
from spikemorph.evaluate.encode import input_counts
from spikemorph.ir import functions as fn
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph, Node

ELEMENTS, UNITS = 6, 3
PLAIN = How(units=UNITS)


def loop(b: Floats, x: Node, *, reverse: bool = False) -> Node:
    own = b.weight(UNITS, UNITS, gain=0.7)
    return b.add(ops.Recurrence(own, ops.Elementwise(fn.Relu()), reverse), b.linear(x, UNITS))


def turned(b: Floats, x: Node) -> Node:
    return b.add(ops.Permute((1, 0)), x)


def rows(b: Floats, x: Node, start: int, stop: int, step: int = 1) -> Node:
    return b.add(ops.Slice(0, start, stop, step), x)


def minus(b: Floats, x: Node, y: Node) -> Node:
    return b.add(ops.Add((1, -1)), x, y)


def transposed(b: Floats, x: Node) -> Node:
    """ConvTranspose1d over time, which doubles it."""
    op = ops.Conv(b.weight(x.shape[1], 2, 3), None, (2,), (1,), (1,), transposed=True, output_padding=(1,))
    return turned(b, b.relu(b.add(op, turned(b, x))))


def mixed(b: Floats, x: Node) -> Node:
    """A linear layer over time."""
    return turned(b, b.linear(turned(b, x), ELEMENTS))


def upsampled(b: Floats, x: Node) -> Node:
    size = 2 * x.shape[0]
    return turned(b, b.add(ops.Upsample((size,), "nearest", False, (2.0,)), turned(b, x)))


def causal(b: Floats, x: Node) -> Node:
    x = b.add(ops.Pad((0, 0, 2, 0)), turned(b, x))
    return turned(b, b.conv(x, 2, Window("conv", 3)))


def decoded(b: Floats, x: Node) -> Node:
    """The last element again and again."""
    last = rows(b, x, x.shape[0] - 1, x.shape[0])
    return b.add(ops.Expand(x.shape), last)


AROUND: dict[str, Callable[[Floats, Node], Node]] = {
    "nothing": lambda b, x: x,
    "zeros before": lambda b, x: b.add(ops.Pad((1, 0, 0, 0)), x),
    "zeros behind": lambda b, x: b.add(ops.Pad((0, 2, 0, 0)), x),
    "zeros around": lambda b, x: b.add(ops.Pad((2, 3, 0, 0)), x),
    "causal convolution": causal,
    "windows that see only padding": lambda b, x: turned(
        b, b.conv(turned(b, x), 2, Window("conv", 1, stride=2, padding=2))
    ),
    "transposed convolution": transposed,
    "time for channels": lambda b, x: b.conv(x, 4, Window("conv", 1)),
    "linear over time": mixed,
    "nearest upsampling": upsampled,
    "minus the mean over time": lambda b, x: minus(b, x, b.add(ops.Mean((0,), True), x)),
    "minus the maximum over time": lambda b, x: minus(b, x, b.add(ops.AMax((0,), True), x)),
    "minus the last": lambda b, x: minus(b, x, rows(b, x, x.shape[0] - 1, x.shape[0])),
    "minus the first, without its axis": lambda b, x: minus(
        b, x, b.add(ops.Reshape(x.shape[1:]), rows(b, x, 0, 1))
    ),
    "times the first": lambda b, x: b.add(ops.Mul(), x, rows(b, x, 0, 1)),
    "the last, repeated": decoded,
    "every second": lambda b, x: rows(b, x, 1, x.shape[0], 2),
    "twice, one behind the other": lambda b, x: b.add(ops.Concat(0), x, b.relu(x)),
    "shifted": lambda b, x: b.add(
        ops.Add((1, 1)), x, b.add(ops.Pad((1, 0, 0, 0)), rows(b, x, 0, x.shape[0] - 1))
    ),
    "two elements in one": lambda b, x: b.add(ops.Reshape((x.shape[0] // 2, 2 * x.shape[1])), x),
    "the average of two": lambda b, x: turned(b, b.add(ops.AvgPool((2,), (2,), (0,)), turned(b, x))),
    "the largest of three": lambda b, x: turned(b, b.add(ops.MaxPool((3,), (1,), (1,), (1,)), turned(b, x))),
    "the running mean of three": lambda b, x: turned(b, b.add(ops.AvgPool((3,), (1,), (1,)), turned(b, x))),
}


def check(b: Floats, out: Node) -> None:
    graph = Graph(Dialect.FLOAT, tuple(b.nodes), (out.name,), b.tensors)
    x = torch.randn(12, ELEMENTS, 2)
    integer = sm.quantise(graph, x, sm.Levels(activation=3))
    assert len(list(exact_runs(network(integer), input_counts(integer, x[:3])))) == 2


@pytest.mark.parametrize("name", AROUND)
def test_in_front_of_a_recurrence(name: str) -> None:
    b = Floats(np.random.default_rng(1))
    x = AROUND[name](b, b.relu(b.linear(b.add(ops.Input(0), shape=(ELEMENTS, 2)), 2)))
    check(b, loop(b, x))


@pytest.mark.parametrize("name", AROUND)
def test_behind_a_recurrence(name: str) -> None:
    b = Floats(np.random.default_rng(2))
    check(b, AROUND[name](b, loop(b, b.add(ops.Input(0), shape=(ELEMENTS, 2)))))


@pytest.mark.parametrize("name", AROUND)
def test_between_two_recurrences(name: str) -> None:
    b = Floats(np.random.default_rng(3))
    x = AROUND[name](b, loop(b, b.add(ops.Input(0), shape=(ELEMENTS, 2))))
    check(b, loop(b, x, reverse=True))
