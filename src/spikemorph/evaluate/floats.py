"""A float graph at rest: what the captured module computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from spikemorph.evaluate import functions, pooling
from spikemorph.evaluate.host import HOST
from spikemorph.evaluate.linear import LINEAR, LINEAR_OPS, align_ranks
from spikemorph.evaluate.recurrent import recur
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.table import OpTable

FloatRule = Callable[[ops.Op, Sequence[Tensor], Mapping[str, Tensor]], Tensor]

FLOATS: OpTable[FloatRule] = OpTable(
    "evaluate floats",
    ops.FLOAT_OPS | ops.PLANNED_OPS,
    gaps={ops.Input: "given from outside"},
)
FLOATS.rule(*(LINEAR_OPS & (ops.FLOAT_OPS | ops.PLANNED_OPS)))(
    lambda op, inputs, tensors: LINEAR[type(op)](op, inputs, tensors)
)
FLOATS.rule(*ops.HOST)(lambda op, inputs, tensors: HOST[type(op)](op, inputs[0]))


@FLOATS.rule(ops.BatchNorm)
def _batch_norm(op: ops.Op, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(op, ops.BatchNorm)
    (x,) = inputs
    gain, offset = batch_norm_affine(op, tensors)
    wide = (-1, *(1,) * (x.dim() - 2))
    return x * gain.to(x.dtype).reshape(wide) + offset.to(x.dtype).reshape(wide)


def batch_norm_affine(op: ops.BatchNorm, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Gain and offset [channels], float64, of a batch norm at rest."""
    gain = (tensors[op.variance].double() + op.eps).rsqrt()
    gain = gain if op.weight is None else gain * tensors[op.weight].double()
    offset = -tensors[op.mean].double() * gain
    return gain, offset if op.bias is None else offset + tensors[op.bias].double()


@FLOATS.rule(ops.AvgPool, ops.AdaptiveAvgPool, ops.Mean, ops.Upsample)
def _average(op: ops.Op, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(op, ops.AvgPool | ops.AdaptiveAvgPool | ops.Mean | ops.Upsample)
    return pooling.average(op, inputs[0])


@FLOATS.rule(ops.MaxPool, ops.AMax)
def _maximum(op: ops.Op, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(op, ops.MaxPool | ops.AMax)
    return pooling.maximum(op, inputs[0])


@FLOATS.rule(ops.Elementwise)
def _elementwise(op: ops.Op, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(op, ops.Elementwise)
    return functions.apply(op.function, inputs[0])


@FLOATS.rule(ops.Quantiser)
def _quantiser(op: ops.Op, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    """What the neuron approximates: its chain, not quantised."""
    assert isinstance(op, ops.Quantiser)
    (x,) = inputs
    for link in op.chain:
        x = (
            LINEAR[ops.Affine](link, [x], tensors)
            if isinstance(link, ops.Affine)
            else functions.apply(link, x)
        )
    return x


@FLOATS.rule(ops.Recurrence)
def _recurrence(op: ops.Op, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    assert isinstance(op, ops.Recurrence) and not isinstance(op.cell, ops.Neuron)
    (x,), cell = inputs, op.cell
    rule = FLOATS[type(cell)]
    weight = tensors[op.weight].to(x.dtype)
    return recur(op, x, weight, lambda acc, n: rule(cell, [acc], tensors))


@FLOATS.rule(ops.Mul)
def _mul(op: ops.Op, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    a, b = align_ranks(*inputs)
    return a * b


def evaluate_node(node: Node, values: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    """One node of a float or planned graph from the values of its inputs."""
    return FLOATS[type(node.op)](node.op, [values[name] for name in node.inputs], tensors)


Change = Callable[[Node, Tensor], Tensor]
"""A node and its value to the value that later nodes see."""


def evaluate_float(
    graph: Graph, inputs: tuple[Tensor, ...], *, keep: bool = True, change: Change | None = None
) -> dict[str, Tensor]:
    """Every node's value [batch, *shape] by node name (only the outputs' when not `keep`).

    Args:
        graph: float or planned dialect.
        inputs: by argument number, [batch, *shape], any float dtype.
        change: is shown every value in order, and may put another one in its place.
    """
    values: dict[str, Tensor] = {}
    last_use = {name: node.name for node in graph.nodes for name in node.inputs}
    with torch.no_grad():
        for node in graph.nodes:
            if isinstance(node.op, ops.Input):
                values[node.name] = inputs[node.op.index]
            else:
                values[node.name] = evaluate_node(node, values, graph.tensors)
            if change is not None:
                values[node.name] = change(node, values[node.name])
            if not keep:
                for name in node.inputs:
                    if last_use[name] == node.name and name not in graph.outputs:
                        values.pop(name, None)
    return values
