"""Host ops: computed in float on the decoded output, outside the law of lossless conversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from spikemorph.evaluate.functions import apply
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.ir.table import OpTable

HOST: OpTable[Callable[[ops.Op, Tensor], Tensor]] = OpTable("evaluate host", frozenset(ops.HOST))


@HOST.rule(ops.Softmax)
def _softmax(op: ops.Op, x: Tensor) -> Tensor:
    assert isinstance(op, ops.Softmax)
    return torch.log_softmax(x, op.axis + 1) if op.log else torch.softmax(x, op.axis + 1)


@HOST.rule(ops.HostFunction)
def _function(op: ops.Op, x: Tensor) -> Tensor:
    assert isinstance(op, ops.HostFunction)
    return apply(op.function, x)


@HOST.rule(ops.Argmax)
def _argmax(op: ops.Op, x: Tensor) -> Tensor:
    assert isinstance(op, ops.Argmax)
    if op.axis is None:
        return x.flatten(1).argmax(1)
    return x.argmax(op.axis + 1, keepdim=op.keepdim)


def host_values(graph: Graph, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`values` and those of the host ops that follow from them."""
    known = dict(values)
    for node in graph.nodes:
        if isinstance(node.op, ops.HOST):
            known[node.name] = HOST[type(node.op)](node.op, known[node.inputs[0]])
    return known
