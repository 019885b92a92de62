"""Operations on constants are carried out during capture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from spikemorph.capture.naming import packet
from spikemorph.capture.values import Act, Const, Opaque, Parts, Size, Value

_ONLY_THE_SHAPE = frozenset(("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"))


def leaves(value: Any) -> Iterator[Any]:
    """What is in nested lists, tuples and dicts."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, dict):
        yield from leaves(list(value.values()))
    else:
        yield value


def replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same nesting with every leaf changed."""
    if isinstance(value, list | tuple):
        return type(value)(replaced(each, change) for each in value)
    if isinstance(value, dict):
        return {key: replaced(each, change) for key, each in value.items()}
    return change(value)


def is_constant(node: fx.Node, values: dict[fx.Node, Value]) -> bool:
    """Whether the operation can be carried out now."""
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        return False
    operands = [values.get(each, Opaque()) for each in node.all_input_nodes]
    if packet(node.target) in _ONLY_THE_SHAPE:
        operands = [each for each in operands if not isinstance(each, Act)]
    return all(isinstance(each, Const | Size) for each in operands)


def fold(node: fx.Node, values: dict[fx.Node, Value]) -> Value:
    """The result of an operation on constants, for batches of 2 and 3."""
    operands = [values[each] for each in node.all_input_nodes]
    sized = any(not isinstance(each, Const) or each.two is not each.three for each in operands)
    two = _run(node, values, 2)
    return _pair(two, _run(node, values, 3) if sized else two)


def _run(node: fx.Node, values: dict[fx.Node, Value], batch: int) -> Any:
    def change(leaf: Any) -> Any:
        if not isinstance(leaf, fx.Node):
            return leaf
        match values[leaf]:
            case Const(two, three) | Size(two, three):
                return two if batch == 2 else three
            case Act() as x:
                return torch.zeros(x.form.sizes(batch), dtype=leaf.meta["val"].dtype)
        raise AssertionError(leaf)

    assert callable(node.target)
    with torch.no_grad():
        return node.target(*replaced(node.args, change), **replaced(node.kwargs, change))


def _pair(two: Any, three: Any) -> Value:
    if isinstance(two, Tensor):
        return Const(two, three)
    if isinstance(two, list | tuple):
        return Parts(tuple(_pair(a, b) for a, b in zip(two, three, strict=True)))
    return Size(two, three)
