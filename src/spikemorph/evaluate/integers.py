"""The quantised network (QNN): an integer graph at rest, exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spikemorph.errors import DataError, GraphError, expect
from spikemorph.evaluate import pooling
from spikemorph.evaluate.decode import decode
from spikemorph.evaluate.encode import Samples, as_inputs, input_counts
from spikemorph.evaluate.ends import as_lengths, inside
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.evaluate.lengths import ended, valid_lengths
from spikemorph.evaluate.linear import LINEAR, LINEAR_OPS, align_ranks
from spikemorph.evaluate.recurrent import neuron_at, recur, without_bias
from spikemorph.evaluate.steps import step_function
from spikemorph.ir import ops, structure
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.table import OpTable

IntegerRule = Callable[[Node, Sequence[Tensor], Mapping[str, Tensor]], Tensor]

INTEGERS: OpTable[IntegerRule] = OpTable(
    "evaluate integers",
    ops.INTEGER_OPS,
    gaps={ops.Input: "given from outside", **dict.fromkeys(ops.HOST, "computed after decoding")},
)
INTEGERS.rule(*(LINEAR_OPS & ops.INTEGER_OPS))(
    lambda node, inputs, tensors: LINEAR[type(node.op)](node.op, inputs, tensors)
)

CHUNK = 256
"""Most samples evaluated at once: bounds memory, changes no number."""


@INTEGERS.rule(ops.Mul)
def _mul(node: Node, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    a, b = align_ranks(*inputs)
    return a * b


@INTEGERS.rule(ops.MaxPool, ops.AMax)
def _maximum(node: Node, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(node.op, ops.MaxPool | ops.AMax)
    return pooling.maximum(node.op, inputs[0])


@INTEGERS.rule(ops.Neuron)
def _neuron(node: Node, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(node.op, ops.Neuron)
    return step_function(node.op, with_bias(node.op, inputs[0], tensors), tensors, node.shape)


@INTEGERS.rule(ops.Recurrence)
def _recurrence(node: Node, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    return _recurrent(node, inputs, tensors, None)


def _recurrent(
    node: Node, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor], lengths: Tensor | None
) -> Tensor:
    op = node.op
    assert isinstance(op, ops.Recurrence) and isinstance(op.cell, ops.Neuron)
    x, neuron = with_bias(op.cell, inputs[0], tensors), without_bias(op)
    units = node.shape[1]
    alike = tensors[neuron.breakpoints].dim() < 3 or tensors[neuron.breakpoints].shape[0] == 1

    def cell(acc: Tensor, n: int) -> Tensor:
        own = tensors if alike else neuron_at(neuron, tensors, (0, 2), torch.tensor([n]))
        return step_function(neuron, acc.unsqueeze(1), own, (1, units)).squeeze(1)

    return recur(op, x, tensors[op.weight].to(x.dtype), cell, lengths)


@INTEGERS.rule(ops.Readout)
def _readout(node: Node, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(node.op, ops.Readout)
    return with_bias(node.op, inputs[0], tensors)


def with_bias(
    op: ops.Neuron | ops.IntegrateFire | ops.Readout, acc: Tensor, tensors: Mapping[str, Tensor]
) -> Tensor:
    """The accumulator with its integer bias, injected once."""
    return acc if op.bias is None else acc + tensors[op.bias].to(acc.dtype)


def evaluate_counts(
    graph: Graph, counts: tuple[Tensor, ...], lengths: Tensor | None = None
) -> dict[str, Tensor]:
    """Every node's integers at rest, float64 tensors [batch, *shape] that hold integers, by node name.

    Exact: float64 adds integers below 2**53 without rounding, and no transform algorithm runs in float64.

    Args:
        lengths: [batch], elements of each sample (`evaluate.lengths`).
    """
    values: dict[str, Tensor] = {}
    valid = valid_lengths(graph, lengths, len(counts[0]))
    counts = ended(graph, counts, lengths)
    with torch.no_grad():
        for node in graph.body:
            if isinstance(node.op, ops.Input):
                values[node.name] = counts[node.op.index].to(torch.float64)
            else:
                inputs = [values[name] for name in node.inputs]
                if node.name in valid:
                    values[node.name] = _ending(node, inputs, graph.tensors, valid[node.name].lengths)
                else:
                    values[node.name] = INTEGERS[type(node.op)](node, inputs, graph.tensors)
    return values


def _ending(node: Node, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
    """Samples end: a recurrence keeps its state from there on, other neurons are silent."""
    if isinstance(node.op, ops.Recurrence):
        return _recurrent(node, inputs, tensors, lengths)
    value = INTEGERS[type(node.op)](node, inputs, tensors)
    return value * inside(node, lengths)


def evaluate_integers(graph: Graph, x: Samples, *, lengths: Tensor | None = None) -> dict[str, Tensor]:
    """The readout integers int64 [batch, *shape] by readout name, bias included.

    Args:
        lengths: [batch], for sequences that end early.

    Raises:
        DataError: the input does not fit.
    """
    expect("evaluate(graph)", graph, (Graph,), "pass a captured or quantised graph; simulate runs networks")
    if graph.dialect is not Dialect.INTEGER:
        raise GraphError(
            where="evaluate_integers(graph)",
            got=f"dialect {graph.dialect.value}",
            known="an integer graph",
            do="quantise it first, or use evaluate",
        )
    counts = input_counts(graph, x, lengths)
    parts: list[dict[str, Tensor]] = []
    size = graph.samples_at_once(CHUNK)
    for start in range(0, counts[0].shape[0], size):
        part = tuple(each[start : start + size] for each in counts)
        ends = None if lengths is None else as_lengths(lengths)[start : start + size]
        values = evaluate_counts(graph, part, ends)
        parts.append({node.name: values[node.name].to(torch.int64) for node in graph.readouts})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def evaluate(graph: Graph, x: Samples, *, lengths: Tensor | None = None) -> Any:
    """The network at rest, in the module's own output structure, float32.

    Args:
        graph: float (the captured module) or integer (the QNN).
        x: [batch, *shape], or a tuple of them.
        lengths: [batch], elements of each sample where sequences end early: the result is that of the
            network captured at that length; what stands behind the end of a sequence means nothing.

    Raises:
        DataError: the input or the lengths do not fit, or lengths for a float graph.
    """
    expect("evaluate(graph)", graph, (Graph,), "pass a captured or quantised graph; simulate runs networks")
    if graph.dialect.whole:
        return decode(graph, evaluate_integers(graph, x, lengths=lengths))
    if lengths is not None:
        raise DataError(
            where="evaluate(lengths)",
            got="a float graph",
            known="lengths are for integer graphs",
            do="quantise it, or run the module itself on packed sequences",
        )
    inputs = tuple(each.to(torch.float32) for each in as_inputs(graph, x))
    parts = []
    size = graph.samples_at_once(CHUNK)
    for start in range(0, inputs[0].shape[0], size):
        values = evaluate_float(graph, tuple(each[start : start + size] for each in inputs), keep=False)
        parts.append([values[name] for name in graph.outputs])
    return structure.build(graph.structure, [torch.cat(leaf) for leaf in zip(*parts, strict=True)])
