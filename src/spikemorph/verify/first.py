"""Where a spiking network first differs from the quantised one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from spikemorph.ir.graph import Node
from spikemorph.run.result import Run
from spikemorph.run.schedule import schedule


@final
@dataclass(frozen=True, slots=True)
class FirstDifference:
    """The first neuron (in data-flow order, then sample, channel, position) whose counts differ.

    In a recurrent network the earliest element comes before all that. `step` is 1 + the last step in which
    the spiking neuron emitted, 0 if it never did (recurrent: in which its sample did anything in the
    element); channel and position are None where the value has no such axis.
    """

    layer: str
    sample: int
    channel: int | None
    position: tuple[int, ...]
    step: int
    qnn: int
    snn: int
    element: int = 0


def first_of(node: Node, counts: tuple[Tensor, Tensor], run: Run, samples_before: int) -> FirstDifference:
    """The first differing neuron of a layer, of the element that was computed first."""
    qnn, snn = counts
    places = (qnn != snn).nonzero()
    element = 0
    if len(run.element_steps) > 1:
        rounds = torch.tensor(schedule(run.graph).rounds[node.name])
        axis = node.element_axis
        when = rounds[places[:, axis + 1]] if axis is not None else rounds.expand(len(places))
        element = int(when.min())
        places = places[when == element]
    where = tuple(places[0].tolist())
    return FirstDifference(
        layer=node.name,
        sample=samples_before + where[0],
        channel=where[1] if len(where) > 1 else None,
        position=where[2:],
        step=int(run.element_steps[element, where[0]]),
        qnn=int(qnn[where]),
        snn=int(snn[where]),
        element=element,
    )


def flat_index(where: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """The row-major index of a place."""
    flat = 0
    for index, size in zip(where, shape, strict=True):
        flat = flat * size + index
    return flat
