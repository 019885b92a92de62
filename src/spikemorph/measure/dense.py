"""Operations of networks that compute every number once: the float network and the QNN."""

from __future__ import annotations

import math

from torch import Tensor

from spikemorph.evaluate.intervals import Span, spans
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.measure.ledger import Ledger, Operations
from spikemorph.measure.operations import fan_out

FLOAT_BITS = 32


def float_operations(graph: Graph) -> Ledger:
    """Of the float network in float32, one sample.

    Counted: convolutions, linear and recurrent layers; averages, upsampling and plain sums are not. Taps that
    fall into the padding are not counted either, as in the other networks.

    Args:
        graph: the float graph, or an integer graph for the float network that it came from: the same layers
            without the neurons that only the integers need.
    """
    found = Ledger({})
    for node in graph.nodes:
        multiplied = dense_macs(graph, node) if isinstance(node.op, WEIGHTED) else 0.0
        active = isinstance(node.op, FLOAT_NEURONS) and not _only_in_integers(node)
        made = math.prod(node.shape) if active or isinstance(node.op, ops.Input) else 0
        found += _row(
            node,
            Operations(
                macs=multiplied,
                updates=math.prod(node.shape) if active else 0,
                weight_bits=multiplied * FLOAT_BITS,
                activation_bits=made * FLOAT_BITS,
            ),
        )
    return found


def qnn_operations(graph: Graph) -> Ledger:
    """Of the integer graph evaluated once, at rest, one sample; of a rate graph with counts of all its steps.

    Counted: every map at which a spiking run is counted, with all its taps and every number non-zero. Maps of
    ones add, others multiply. Weights, counts and accumulators have as many bits as their integers need.

    Raises:
        GraphError: not an integer graph.
    """
    assert graph.dialect in {Dialect.INTEGER, Dialect.RATE}
    known = spans(graph)
    found = Ledger({})
    for node in graph.body:
        work = dense_macs(graph, node)
        weight = weight_of(node)
        multiplies = weight is None or multiplied_by(graph.tensors[weight])
        active = isinstance(node.op, ops.EMITTING)
        made = math.prod(node.shape) if active or isinstance(node.op, ops.Input) else 0
        found += _row(
            node,
            Operations(
                macs=work if multiplies else 0.0,
                accumulates=0.0 if multiplies else work,
                updates=math.prod(node.shape) if active else 0,
                weight_bits=work * (0 if weight is None else bits_of_weights(graph.tensors[weight])),
                activation_bits=made * bits_of(known[node.name]),
            ),
        )
    return found


def _row(node: Node, counted: Operations) -> Ledger:
    return Ledger({node.name: counted} if counted != Operations() else {})


WEIGHTED: tuple[type, ...] = (ops.Conv, ops.Linear, ops.Recurrence)
FLOAT_NEURONS: tuple[type, ...] = (ops.Elementwise, *ops.EMITTING)


def _only_in_integers(node: Node) -> bool:
    return isinstance(node.op, ops.Neuron) and node.op.identity


def dense_macs(graph: Graph, node: Node) -> float:
    """Products of a number and a weight (or of two numbers) that one evaluation adds up, without padding."""
    size = float(math.prod(node.shape))
    match node.op:
        case ops.Conv() | ops.Linear() | ops.AxisMap():
            return float(fan_out(graph, node).sum())
        case ops.Recurrence():
            return size * node.shape[-1]
        case ops.Scale() | ops.Mul():
            return size
        case _:
            return 0.0


def weight_of(node: Node) -> str | None:
    """Name of the integers that a node multiplies with."""
    match node.op:
        case ops.Conv(weight=name) | ops.Linear(weight=name) | ops.Recurrence(weight=name):
            return name
        case ops.AxisMap(matrix=name) | ops.Scale(factor=name):
            return name
        case _:
            return None


def multiplied_by(weight: Tensor) -> bool:
    """Whether a product with these integers is more than adding, subtracting or leaving out."""
    return bool((weight.abs() > 1).any())


def bits_of_weights(weight: Tensor) -> int:
    """Of the narrowest two's complement that holds these integers."""
    return _width(int(weight.min()), int(weight.max()))


def bits_of(span: Span) -> int:
    """Of the narrowest integer for a value within these bounds, unsigned where they allow it."""
    return _width(int(span.lo), int(span.hi))


def _width(lo: int, hi: int) -> int:
    return max(1, hi.bit_length()) if lo >= 0 else 1 + max((-lo - 1).bit_length(), max(hi, 0).bit_length())
