"""Modules over sequences, and the check that a captured graph computes what its module computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

import spikemorph as sm
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node

Axes = int | tuple[int, ...]


class Fn(nn.Module):
    """forward is `function(self, *inputs)`; parts become attributes."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lively(model: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(noise(module.num_features))
            module.running_var.copy_(noise(module.num_features).abs() + 0.5)
    return model.eval()


def captured(
    model: nn.Module, *shapes: tuple[int, ...], batch_axis: Axes = 0, outputs: Axes | None = None
) -> Graph:
    """The graph, captured with 2 samples; with 3 others it gives what the module gives.

    Args:
        shapes: of the inputs, without the batch.
        outputs: the batch axis of every output of the module, -1 where frames are folded into it.
    """
    axes = batch_axis if isinstance(batch_axis, tuple) else (batch_axis,) * len(shapes)
    examples, others = (
        tuple(noise(batch, *shape, seed=batch + i) for i, shape in enumerate(shapes)) for batch in (2, 3)
    )
    placed = [
        tuple(x.movedim(0, axis) for x, axis in zip(each, axes, strict=True)) for each in (examples, others)
    ]
    graph = sm.capture(lively(model), placed[0], batch_axis=batch_axis)
    with torch.no_grad():
        wanted = pytree.tree_leaves(model(*placed[1]))
    got = pytree.tree_leaves(sm.evaluate(graph, others))
    places = outputs if isinstance(outputs, tuple) else (outputs or 0,) * len(wanted)
    for ours, theirs, axis in zip(got, wanted, places, strict=True):
        batch_first = theirs.reshape(3, -1, *theirs.shape[1:]) if axis < 0 else theirs.movedim(axis, 0)
        torch.testing.assert_close(ours, batch_first, rtol=1e-5, atol=1e-5)
    return graph


def kinds(graph: Graph) -> list[str]:
    """The operations in order, inputs apart."""
    return [type(node.op).__name__ for node in graph.nodes if not isinstance(node.op, ops.Input)]


def nodes_of(graph: Graph, kind: type) -> list[Node]:
    return [node for node in graph.nodes if isinstance(node.op, kind)]
