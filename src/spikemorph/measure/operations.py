"""Operations of the float network and of a spiking run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from spikemorph.evaluate.linear import LINEAR
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.run.result import Run


def macs(graph: Graph) -> int:
    """Multiply-accumulates of one sample in convolutions, linear and recurrent layers, padding counted."""
    return sum(layer_macs(graph).values())


def layer_macs(graph: Graph) -> Mapping[str, int]:
    """The same by node."""
    found = {}
    for node in graph.nodes:
        if isinstance(node.op, ops.Recurrence):
            found[node.name] = node.shape[0] * node.shape[1] ** 2
        if isinstance(node.op, ops.Conv | ops.Linear):
            weight = graph.tensors[node.op.weight]
            source = graph.by_name[node.inputs[0]]
            transposed = isinstance(node.op, ops.Conv) and node.op.transposed
            per_number = weight[0].numel()
            found[node.name] = per_number * _numel((source if transposed else node).shape)
    return found


def synaptic_operations(run: Run) -> int:
    """Accumulates of a whole run, all samples: every non-zero number that reached a map times its fan-out.

    Counted at convolutions, linear layers, averages and upsampling, branches of sums and products. What an
    analog input injects is counted too.
    """
    return sum(layer_operations(run).values())


def layer_operations(run: Run) -> Mapping[str, int]:
    """The same by node; what runs window by window under the name of its layer."""
    found: dict[str, int] = {}
    for work in run.work:
        for name, arrived in work.arrivals.items():
            fan = fan_out(work.graph, work.graph.by_name[name])
            found[name] = found.get(name, 0) + int((arrived.double() * fan).sum().round())
    return found


def fan_out(graph: Graph, node: Node) -> Tensor:
    """How many accumulators each entry of the arriving value feeds, float64; taps outside do not count."""
    op = node.op
    if not isinstance(op, ops.Conv | ops.Linear | ops.AxisMap):
        return torch.ones((), dtype=torch.float64)
    name = op.matrix if isinstance(op, ops.AxisMap) else op.weight
    weight = graph.tensors[name]
    taps = (weight != 0) if isinstance(op, ops.AxisMap) else torch.ones_like(weight)
    bare = op if isinstance(op, ops.AxisMap) else replace(op, bias=None)
    x = torch.zeros((1, *graph.by_name[node.inputs[0]].shape), dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        total = LINEAR[type(op)](bare, [x], {name: taps.double()}).sum()
    (counted,) = torch.autograd.grad(total, x)
    return counted[0]


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
