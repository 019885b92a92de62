"""Activations written out by hand: x * sigmoid(beta * x), x * relu6(x + 3) / 6, x * tanh(softplus(x))."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from spikemorph.ir import functions as fn
from spikemorph.ir import ops
from spikemorph.ir.graph import Node

Nodes = Mapping[str, Node]


def recognise(nodes: Iterable[Node], tensors: Mapping[str, Tensor]) -> tuple[Node, ...]:
    """The same nodes with every self-gated function as one function; leftovers stay, unread."""
    known: dict[str, Node] = {}
    for node in nodes:
        found = _silu(node, known, tensors) or _hard_swish(node, known, tensors) or _mish(node, known)
        if found is not None:
            x, function = found
            node = replace(node, op=ops.Elementwise(function), inputs=(x,))
        known[node.name] = node
    return tuple(known.values())


def _silu(node: Node, known: Nodes, tensors: Mapping[str, Tensor]) -> tuple[str, fn.Function] | None:
    """x * sigmoid(x), x * sigmoid(beta * x)."""
    for x, gate in _factors(node):
        inner = _applies(known[gate], fn.Sigmoid())
        if inner == x:
            return x, fn.Silu()
        beta = _multiple(known[inner], x, tensors) if inner is not None else None
        if beta:
            return x, fn.Swish(beta)
    return None


def _multiple(node: Node, x: str, tensors: Mapping[str, Tensor]) -> float | None:
    """beta, where the node is beta * x with one beta for all numbers."""
    match node.op:
        case ops.Affine(str() as gain, None) if node.inputs == (x,) and tensors[gain].numel() > 0:
            beta = float(tensors[gain].flatten()[0])
            return beta if bool((tensors[gain] == beta).all()) else None
    return None


def _mish(node: Node, known: Nodes) -> tuple[str, fn.Function] | None:
    for x, gate in _factors(node):
        soft = _applies(known[gate], fn.Tanh())
        if soft is not None and _applies(known[soft], fn.Softplus()) == x:
            return x, fn.Mish()
    return None


def _hard_swish(node: Node, known: Nodes, tensors: Mapping[str, Tensor]) -> tuple[str, fn.Function] | None:
    """x * hardsigmoid(x), x * (relu6(x + 3) / 6), (x * relu6(x + 3)) / 6."""
    product = _divided_by_six(node, tensors)
    if product is not None:
        for x, gate in _factors(known[product]):
            if _ramp(known[gate], known, tensors) == x:
                return x, fn.HardSwish()
        return None
    for x, gate in _factors(node):
        if _applies(known[gate], fn.HardSigmoid()) == x:
            return x, fn.HardSwish()
        ramp = _divided_by_six(known[gate], tensors)
        if ramp is not None and _ramp(known[ramp], known, tensors) == x:
            return x, fn.HardSwish()
    return None


def _factors(node: Node) -> tuple[tuple[str, str], ...]:
    """Both readings of a product."""
    if not isinstance(node.op, ops.Mul):
        return ()
    first, second = node.inputs
    return (first, second), (second, first)


def _applies(node: Node, function: fn.Function) -> str | None:
    """The operand, where the node is that function of it."""
    return node.inputs[0] if node.op == ops.Elementwise(function) else None


def _ramp(node: Node, known: Nodes, tensors: Mapping[str, Tensor]) -> str | None:
    """x, where the node is relu6(x + 3)."""
    shifted = _applies(node, fn.Clamp(0.0, 6.0))
    if shifted is None:
        return None
    match known[shifted].op:
        case ops.Affine(None, str() as offset) if _all(tensors[offset], 3.0):
            return known[shifted].inputs[0]
    return None


def _divided_by_six(node: Node, tensors: Mapping[str, Tensor]) -> str | None:
    match node.op:
        case ops.Affine(str() as gain, None) if _all(tensors[gain], 1 / 6):
            return node.inputs[0]
    return None


def _all(tensor: Tensor, value: float) -> bool:
    return all(math.isclose(each, value, rel_tol=1e-6) for each in tensor.flatten().tolist())
