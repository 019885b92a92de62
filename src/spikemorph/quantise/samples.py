"""What a weighted sum reads and should give, at places of its result that are drawn once for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Node

PLACES = 8192
"""Places of a result looked at in all calibration samples together; more where there are more weights."""

PER_WEIGHT = 8
"""Places for each weight of an output, where there are so many."""


@final
@dataclass(frozen=True)
class Samples:
    """One weighted sum on calibration data, split by its groups of channels.

    Args:
        x: [groups, n, weights of an output], what it reads.
        target: [groups, n, outputs of a group], what the sum it ends in is in the float network.
        beside: the same shape, what other branches add to that sum; None for nothing.
    """

    x: Tensor
    target: Tensor
    beside: Tensor | None


def places(node: Node, weights: int, samples: int, generator: torch.Generator) -> Tensor:
    """Flat places [n] of a result to look at in every sample, drawn without repetition.

    Args:
        node: a convolution (places are positions) or linear layer (all axes but the last).
        weights: of one output.
        samples: in the whole calibration.
    """
    spatial = node.shape[1:] if isinstance(node.op, ops.Conv) else node.shape[:-1]
    wanted = -(-max(PLACES, PER_WEIGHT * weights) // samples)
    there = math.prod(spatial)
    return torch.randperm(there, generator=generator)[: min(there, wanted)]


def outputs_at(node: Node, value: Tensor, at: Tensor) -> Tensor:
    """[batch * places, channels] of a value [batch, *node.shape]."""
    if isinstance(node.op, ops.Conv):
        return value.flatten(2)[:, :, at].movedim(1, 2).flatten(0, 1)
    return value.reshape(value.shape[0], -1, value.shape[-1])[:, at].flatten(0, 1)


def inputs_at(node: Node, kernel: Sequence[int], value: Tensor, at: Tensor) -> Tensor:
    """[groups, batch * places, weights of an output] that a weighted sum reads at places of its result.

    Args:
        kernel: the last axes of a convolution's weight; not used for a linear layer.
        value: [batch, *shape] of the input.
    """
    op = node.op
    if isinstance(op, ops.Linear):
        return value.reshape(value.shape[0], -1, value.shape[-1])[:, at].flatten(0, 1).unsqueeze(0)
    assert isinstance(op, ops.Conv)
    padded = F.pad(value, [n for each in reversed(op.padding) for n in (each, each)])
    starts = torch.unravel_index(at, node.shape[1:])
    taps = torch.unravel_index(torch.arange(math.prod(kernel)), tuple(kernel))
    window = [
        start.unsqueeze(1) * stride + tap.unsqueeze(0) * dilation
        for start, tap, stride, dilation in zip(starts, taps, op.stride, op.dilation, strict=True)
    ]
    channels: tuple[slice | Tensor, ...] = (slice(None), *window)
    seen: Tensor = padded.flatten(0, 1)[channels].unflatten(0, (len(value), op.groups, -1))
    return seen.permute(1, 0, 3, 2, 4).flatten(3).flatten(1, 2)
