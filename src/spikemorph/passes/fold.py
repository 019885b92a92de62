"""A gain and an offset behind a weighted sum go into its weights and bias."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node


def fold_affines(graph: Graph) -> Graph:
    """Conv | Linear -> Affine becomes one Conv | Linear, where nothing else reads the sum in between.

    Constants that differ along other axes than the channels stay, and so do those behind transposed
    convolutions. New tensors are named after the affine: `<node>.weight`, `<node>.bias`, float64.
    """
    tensors, nodes, folded = dict(graph.tensors), [], set[str]()
    for node in graph.nodes:
        source = graph.by_name[node.inputs[0]] if node.inputs else node
        if isinstance(node.op, ops.Affine) and _folds(graph, source, node):
            folded.add(source.name)
            node = _folded(source, node, tensors)
        nodes.append(node)
    return graph.with_nodes((node for node in nodes if node.name not in folded), tensors=tensors)


def _folds(graph: Graph, source: Node, node: Node) -> bool:
    assert isinstance(node.op, ops.Affine)
    alone = len(graph.consumers[source.name]) == 1 and source.name not in graph.outputs
    if not alone or source.shape != node.shape or not isinstance(source.op, ops.Conv | ops.Linear):
        return False
    if isinstance(source.op, ops.Conv) and source.op.transposed:
        return False
    constants = (graph.tensors[name] for name in (node.op.gain, node.op.offset) if name is not None)
    return all(_per_channel(constant, source) for constant in constants)


def channel_axis(node: Node) -> int:
    """The axis of the channels of a weighted sum's result."""
    return 0 if isinstance(node.op, ops.Conv) else len(node.shape) - 1


def _per_channel(constant: Tensor, node: Node) -> bool:
    wide = (1,) * (len(node.shape) - constant.dim()) + tuple(constant.shape)
    return all(size == 1 for axis, size in enumerate(wide) if axis != channel_axis(node))


def _folded(source: Node, node: Node, tensors: dict[str, Tensor]) -> Node:
    op, affine = source.op, node.op
    assert isinstance(op, ops.Conv | ops.Linear) and isinstance(affine, ops.Affine)
    weight = tensors[op.weight].double()
    bias = None if op.bias is None else tensors[op.bias].double()
    if affine.gain is not None:
        gain = tensors[affine.gain].double().reshape(-1).expand(weight.shape[0])
        weight = weight * gain.reshape(-1, *(1,) * (weight.dim() - 1))
        bias = None if bias is None else bias * gain
    if affine.offset is not None:
        offset = tensors[affine.offset].double().reshape(-1).expand(weight.shape[0])
        bias = offset.clone() if bias is None else bias + offset
    names = f"{node.name}.weight", f"{node.name}.bias"
    tensors[names[0]] = weight
    if bias is not None:
        tensors[names[1]] = bias
    made = replace(op, weight=names[0], bias=None if bias is None else names[1])
    return replace(node, op=made, inputs=source.inputs)
