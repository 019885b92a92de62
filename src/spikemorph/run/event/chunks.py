"""Runs of the chunks of a batch as one run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from spikemorph.run.event.plans import Arrived
from spikemorph.run.result import Run, Work

Part = tuple[Run, Tensor]
"""The run of a chunk, and the steps that every element of it ran."""


def joined(parts: list[Part]) -> Run:
    """All samples go on until the last one is at rest: what rests is silent and keeps its outputs."""
    if len(parts) == 1:
        return parts[0][0]
    runs = [run for run, _ in parts]
    first, most = runs[0], torch.stack([ran for _, ran in parts]).amax(0)

    def rows(name: str) -> dict[str, Tensor]:
        return {key: torch.cat([getattr(run, name)[key] for run in runs]) for key in getattr(first, name)}

    return replace(
        first,
        raw=rows("raw"),
        steps=int(most.sum()),
        element_steps=torch.cat([run.element_steps for run in runs], 1),
        element_settled=torch.cat([run.element_settled for run in runs], 1),
        layer_spikes=rows("layer_spikes"),
        layer_events=rows("layer_events"),
        work=tuple(
            Work(each[0].graph, Arrived(partial(_arrivals, each)))
            for each in zip(*(run.work for run in runs), strict=True)
        ),
        counts=None if first.counts is None else rows("counts"),
        raws=None if first.raws is None else _raws(parts, most),
        spikes_until=None if first.spikes_until is None else _until(parts, most),
        layer_steps=None if first.layer_steps is None else _layer_steps(parts, most),
        trace=None if first.trace is None else _trace(parts, most),
    )


def _arrivals(parts: tuple[Work, ...]) -> dict[str, Tensor]:
    return {name: torch.stack([part.arrivals[name] for part in parts]).sum(0) for name in parts[0].arrivals}


def _places(ran: Tensor, most: Tensor) -> Tensor:
    """Of every step of all samples the step of a chunk, the last one of the element where it is at rest."""
    found, start = [], 0
    for own, wanted in zip(ran.tolist(), most.tolist(), strict=True):
        found.append(start + torch.arange(wanted).clamp(max=own - 1))
        start += own
    return torch.cat(found)


def _runs(ran: Tensor, most: Tensor) -> Tensor:
    """Of every step of all samples whether a chunk still runs."""
    pairs = zip(ran.tolist(), most.tolist(), strict=True)
    return torch.cat([torch.arange(wanted) < own for own, wanted in pairs])


def _until(parts: list[Part], most: Tensor) -> Tensor:
    found = []
    for run, ran in parts:
        assert run.spikes_until is not None
        found.append(run.spikes_until if run.at is not None else run.spikes_until[_places(ran, most)])
    return torch.cat(found, 1)


def _raws(parts: list[Part], most: Tensor) -> tuple[dict[str, Tensor], ...]:
    steps = []
    for run, ran in parts:
        assert run.raws is not None
        places = range(len(run.raws)) if run.at is not None else _places(ran, most).tolist()
        steps.append([run.raws[at] for at in places])
    return tuple(
        {name: torch.cat([each[name] for each in step]) for name in step[0]}
        for step in zip(*steps, strict=True)
    )


def _layer_steps(parts: list[Part], most: Tensor) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for run, ran in parts:
        at, runs = _places(ran, most), _runs(ran, most)
        assert run.layer_steps is not None
        for name, each in run.layer_steps.items():
            total[name] = total.get(name, 0) + each[at] * runs
    return total


def _trace(parts: list[Part], most: Tensor) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {}
    for run, ran in parts:
        at, runs = _places(ran, most), _runs(ran, most)
        assert run.trace is not None
        for name, each in run.trace.items():
            found.setdefault(name, []).append(each[at] * runs.reshape(-1, *(1,) * (each.dim() - 1)))
    return {name: torch.cat(each, 1) for name, each in found.items()}
