"""Batch norms become gains and offsets, averages and upsampling become maps along one axis."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from spikemorph.evaluate.floats import batch_norm_affine
from spikemorph.evaluate.pooling import Average, average
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node

LARGEST_DENOMINATOR = 4096
"""Exact rationals up to here; beyond, fixed point with this denominator whose rows sum exactly."""


def lower_batch_norms(graph: Graph) -> Graph:
    """BatchNorm -> Affine with tensors `<node>.gain` and `<node>.offset`, float64 [channels, 1, ...]."""
    tensors, nodes = dict(graph.tensors), []
    for node in graph.nodes:
        if isinstance(node.op, ops.BatchNorm):
            wide = (-1, *(1,) * (len(node.shape) - 1))
            gain, offset = (each.reshape(wide) for each in batch_norm_affine(node.op, graph.tensors))
            tensors |= {f"{node.name}.gain": gain, f"{node.name}.offset": offset}
            node = replace(node, op=ops.Affine(f"{node.name}.gain", f"{node.name}.offset"))
        nodes.append(node)
    return graph.with_nodes(nodes, tensors=tensors)


def lower_averages(graph: Graph) -> Graph:
    """AvgPool, AdaptiveAvgPool, Mean and Upsample -> AxisMap along each axis (+ Reshape for Mean).

    Matrices of captured AxisMaps, index maps of zeros and ones, become integers and a denominator.
    """
    tensors, nodes = dict(graph.tensors), []
    for node in graph.nodes:
        match node.op:
            case ops.AvgPool() | ops.AdaptiveAvgPool() | ops.Mean() | ops.Upsample():
                nodes += _axis_maps(graph, node, node.op, tensors)
            case ops.AxisMap(axis, matrix):
                name = f"{node.name}.matrix"
                tensors[name], denominator = rational(graph.tensors[matrix].double())
                nodes.append(replace(node, op=ops.AxisMap(axis, name, denominator * node.op.denominator)))
            case _:
                nodes.append(node)
    return graph.with_nodes(nodes, tensors=tensors)


def _axis_maps(graph: Graph, node: Node, op: Average, tensors: dict[str, Tensor]) -> list[Node]:
    shape = list(graph.by_name[node.inputs[0]].shape)
    made: list[Node] = []
    source = node.inputs[0]
    for axis, matrix in _matrices(op, tuple(shape)):
        if matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, torch.eye(matrix.shape[0]).to(matrix)):
            continue
        integers, denominator = rational(matrix)
        shape[axis] = matrix.shape[0]
        name = f"{node.name}.axis{axis}"
        tensors[f"{name}.matrix"] = integers
        mapped = ops.AxisMap(axis, f"{name}.matrix", denominator)
        made.append(replace(node, name=name, op=mapped, inputs=(source,), shape=tuple(shape)))
        source = name
    if not made or tuple(shape) != node.shape:
        return [*made, replace(node, op=ops.Reshape(node.shape), inputs=(source,))]
    return [*made[:-1], replace(made[-1], name=node.name)]


def _matrices(op: Average, shape: tuple[int, ...]) -> list[tuple[int, Tensor]]:
    """The map along each axis as a real matrix [out, in]; the product of all is the op."""
    if isinstance(op, ops.Mean):
        return [
            (axis, torch.full((1, shape[axis]), 1.0 / shape[axis], dtype=torch.float64)) for axis in op.axes
        ]
    spatial = len(op.size) if isinstance(op, ops.AdaptiveAvgPool | ops.Upsample) else len(op.kernel)
    first = len(shape) - spatial
    return [(first + i, _along(op, i, shape[first + i])) for i in range(spatial)]


def _along(op: Average, i: int, size: int) -> Tensor:
    """One axis of the op, read off from unit vectors."""
    basis = torch.eye(size, dtype=torch.float64).unsqueeze(0)
    match op:
        case ops.AvgPool():
            pool = replace(
                op, kernel=op.kernel[i : i + 1], stride=op.stride[i : i + 1], padding=op.padding[i : i + 1]
            )
            rows = average(replace(pool, divisor=None), basis)
            if op.divisor is not None:
                rows = (rows > 0).to(rows.dtype) / (op.divisor if i == 0 else 1)
        case ops.AdaptiveAvgPool():
            rows = average(replace(op, size=op.size[i : i + 1]), basis)
        case ops.Upsample():
            scales = op.scales[i : i + 1] if op.scales else ()
            rows = average(replace(op, size=op.size[i : i + 1], scales=scales), basis)
        case _:
            raise TypeError(type(op).__name__)
    return rows[0].T.contiguous()


def rational(matrix: Tensor) -> tuple[Tensor, int]:
    """Integers and a denominator for a real matrix: exact where small ones exist, else fixed point.

    In fixed point the error of a row is moved to its largest entry, so that every row sums exactly.
    """
    distinct = torch.unique(matrix).tolist()
    denominator = 1
    for value in distinct:
        near = Fraction(value).limit_denominator(LARGEST_DENOMINATOR)
        if abs(float(near) - value) > 1e-7:
            return _fixed_point(matrix), LARGEST_DENOMINATOR
        denominator = math.lcm(denominator, near.denominator)
        if denominator > LARGEST_DENOMINATOR:
            return _fixed_point(matrix), LARGEST_DENOMINATOR
    return (matrix * denominator).round().to(torch.int64), denominator


def _fixed_point(matrix: Tensor) -> Tensor:
    scaled = matrix * LARGEST_DENOMINATOR
    integers = scaled.round()
    target = scaled.sum(1).round()
    largest = matrix.abs().argmax(1, keepdim=True)
    integers.scatter_add_(1, largest, (target - integers.sum(1)).unsqueeze(1))
    return integers.to(torch.int64)
