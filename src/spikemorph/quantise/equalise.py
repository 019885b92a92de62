"""Units a channel that leave integer weights their bits: cross-layer equalisation on the grids of counts.

A layer takes the units of its inputs into its integer weights. All weights of an output share one step, as
large as the largest of them needs, and its rounding is the same error for every count: channels of small
values, counted as finely as the others, lose more by it than their fine grid gains. They get a coarser unit.
(M. Nagel et al., Data-free quantization through weight equalization, ICCV 2019, balance ranges; here the two
errors are.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.passes.levels import Levels
from spikemorph.quantise.scale import AT_ONCE

ROUNDS = 2
"""Steps of weights depend on the units of all channels: times that both are found."""
TRIED = 24
"""Units between a channel's own and the largest of all channels."""
TINY = 1e-30


@final
@dataclass(frozen=True)
class Readers:
    """What reads the counts of a neuron, a unit a channel.

    Args:
        weighing: layers that weigh all channels together: weights [outputs, channels, taps], float64, and the
            largest integer that they may become.
        others: number of readers that keep channels apart.
    """

    weighing: tuple[tuple[Tensor, int], ...]
    others: int


def readers(graph: Graph, node: Node, levels: Levels) -> Readers:
    """What reads a neuron [channels, ...], at once or behind maps that keep channels apart."""
    weighing, others = list[tuple[Tensor, int]](), 0
    for reader in _ends(graph, node):
        weight = _weight(graph, reader)
        if weight is not None and weight.shape[1] == node.shape[0]:
            weighing.append((weight, levels.largest_weight(reader.origin.module)))
        else:
            others += 1
    return Readers(tuple(weighing), others)


def _weight(graph: Graph, reader: Node) -> Tensor | None:
    match reader.op:
        case ops.Conv(weight=name, groups=1, transposed=False):
            return graph.tensors[name].double().flatten(2)
        case ops.Linear(weight=name):
            return graph.tensors[name].double().unsqueeze(2)
        case _:
            return None


def _ends(graph: Graph, node: Node) -> Iterator[Node]:
    for user in graph.consumers[node.name]:
        if isinstance(user.op, ops.MaxPool | ops.AxisMap | ops.Reshape) and user.shape[:1] == node.shape[:1]:
            yield from _ends(graph, user)
        else:
            yield user


def equalised(
    samples: tuple[Tensor, Tensor],
    units: Tensor,
    ends: tuple[int, int],
    reads: Readers,
    *,
    corrected: bool = False,
) -> Tensor:
    """Units [channels] between those before and the largest of them; for channels never active at most that.

    Those whose errors of activations, and of the weights that take them in, are least together.

    Args:
        samples: what is put on the grid and what it should be, [channels, n] each.
        units: [channels], chosen for the activations alone.
        ends: of the counts.
        reads: what reads them.
        corrected: biases behind will make up for mean errors.
    """
    if not reads.weighing or units.numel() == 1:
        return units
    _, wanted = samples
    power = wanted.double().var(1, unbiased=False) if corrected else wanted.double().square().mean(1)
    live = power > 0
    if bool(live.any()):  # units without samples are guesses that must cost others no bits
        units = units.clamp(max=float(units[live].max()))
    tried = units * (units.amax() / units) ** torch.linspace(0, 1, TRIED, dtype=torch.float64).unsqueeze(1)
    errors = _errors(samples, tried, ends)
    found = units
    for _ in range(ROUNDS):
        best = (errors + _lost_by_weights(power, found, reads) / tried.square()).argmin(0, keepdim=True)
        found = tried.gather(0, best).squeeze(0)
    return found


def _errors(samples: tuple[Tensor, Tensor], tried: Tensor, ends: tuple[int, int]) -> Tensor:
    """Mean squared errors [tried, channels] of activations on grids of these units."""
    rows = max(1, AT_ONCE // max(samples[0].shape[1], 1))
    parts = []
    for seen, wanted, units in zip(
        *(each.split(rows) for each in samples), tried.split(rows, 1), strict=True
    ):
        own = [_error(seen.float(), wanted.float(), unit.float().unsqueeze(1), ends) for unit in units]
        parts.append(torch.stack(own))
    return torch.cat(parts, 1).double()


def _error(seen: Tensor, wanted: Tensor, unit: Tensor, ends: tuple[int, int]) -> Tensor:
    return (seen / unit).round_().clamp_(*ends).mul_(unit).sub_(wanted).square_().mean(1)


def _lost_by_weights(power: Tensor, units: Tensor, reads: Readers) -> Tensor:
    """[channels], over the square of the unit: what weights lose, as a squared error of the activation.

    Errors of an output count relative to its own mean square, about the sum of what its channels give to it.
    """
    lost, worth = torch.zeros_like(power), torch.zeros_like(power)
    for weight, largest in reads.weighing:
        squares = weight.square().sum(2)
        value = 1 / (squares @ power).clamp(min=TINY)
        step = (weight * units.reshape(1, -1, 1)).abs().amax((1, 2)) / largest
        lost += (value * step.square()).sum() / 12 * weight.shape[2] * power
        worth += value @ squares
    if reads.others:
        worth += reads.others / power.mean().clamp(min=TINY)
    return torch.where(worth > 0, lost / worth.clamp(min=TINY), torch.zeros_like(lost))
