"""Calibration data that says too little, and a warning about what comes of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from spikemorph.errors import CalibrationWarning
from spikemorph.evaluate.batching import Batches, batches
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.passes.levels import Observer
from spikemorph.quantise.inputs import PIXEL, input_grid
from spikemorph.quantise.looks import Looks, looks_of
from spikemorph.quantise.observe import observe
from spikemorph.quantise.scale import choose_unit

CHUNK = 32

ENOUGH = 4096
"""Numbers of a row that halves of the samples are compared by."""


def remark(
    graph: Graph, calibration: Batches, planned: Callable[[], Graph], *, what: str, observer: Observer
) -> None:
    """A CalibrationWarning, where the samples are few, all alike, repeated or without contrast: see `Looks`.

    Args:
        graph: with the inputs that the data is for.
        calibration: what can be read several times.
        planned: its neurons to be.
        what: found from the data: "thresholds", or "units".
        observer: how they are found, or nearly: thresholds that are balanced grow towards the largest value.
    """
    looks = looks_of(batches(graph, calibration, size=CHUNK, where="calibration"))
    if looks.flaw is None:
        return
    neurons = planned()
    grids = _grids(neurons)
    neurons = _by_channel(neurons)
    seen = observe(neurons, calibration)
    effects = (_moved(neurons, grids, looks, observer), _silent(grids, seen, what), _reach(neurons, seen))
    fit = f"{what} fit what is seen: they clip whatever is larger in other samples"
    warnings.warn(
        CalibrationWarning(
            where="calibration",
            got=looks.flaw,
            known="; ".join((fit, *(each for each in effects if each is not None))),
            do="pass a few hundred different samples of training data; labels are not needed",
        ),
        stacklevel=3,
    )


def _grids(neurons: Graph) -> Mapping[str, ops.Quantiser]:
    cells = {
        node.name: node.op.cell if isinstance(node.op, ops.Recurrence) else node.op for node in neurons.body
    }
    return {name: op for name, op in cells.items() if isinstance(op, ops.Quantiser)}


def _by_channel(neurons: Graph) -> Graph:
    """The graph with a row a channel wherever axis 0 is one: not of [elements, features]."""
    return neurons.with_nodes(
        replace(node, op=replace(node.op, per_channel=True))
        if isinstance(node.op, ops.Quantiser) and len(node.shape) != 2
        else node
        for node in neurons.nodes
    )


def _rows(op: ops.Quantiser, seen: Tensor) -> Tensor:
    """A row for each unit, from a row a channel."""
    return seen if op.per_channel else seen.reshape(1, -1)


def _moved(
    neurons: Graph, grids: Mapping[str, ops.Quantiser], looks: Looks, observer: Observer
) -> str | None:
    """How far those of either half of the samples that differ lie apart, where any neuron is active.

    Samples without contrast have this in common, so that their halves would tell too little.
    """
    if looks.flat:
        return None
    middle = len(looks.different) // 2
    if middle == 0:
        return "a single sample does not show by how much"
    parts = (looks.different[:middle], looks.different[middle:])
    halves = [observe(neurons, tuple(map(torch.cat, zip(*part, strict=True)))) for part in parts]
    apart = [torch.zeros(0)]
    for name, op in grids.items():
        one, other = (_units(_rows(op, half[name]), op, observer) for half in halves)
        larger = torch.maximum(one, other)
        apart.append(((one - other).abs() / larger)[larger > 0])
    every = torch.cat(apart)
    if len(every) == 0:
        return None
    return (
        f"those of one half of the samples differ from the other half's by {every.quantile(0.5):.0%} (median)"
    )


def _units(rows: Tensor, op: ops.Quantiser, observer: Observer) -> Tensor:
    """Units [rows] from some of the numbers and the extremes, 0 where nothing is active."""
    some = rows[:, :: -(-rows.shape[1] // ENOUGH)]
    some = torch.cat([some, rows.amax(1, keepdim=True), rows.amin(1, keepdim=True)], 1)
    return choose_unit(some, op.lo, op.hi, observer) * (rows != 0).any(1)


def _silent(grids: Mapping[str, ops.Quantiser], seen: Mapping[str, Tensor], what: str) -> str | None:
    """Channels and units in which everything seen was zero; a layer without channels counts as one."""
    channels = torch.cat([torch.zeros(0), *((seen[name] == 0).all(1) for name in grids)])
    units = torch.cat([torch.zeros(0), *((_rows(op, seen[name]) == 0).all(1) for name, op in grids.items())])
    if len(channels) == 0:
        return None
    guessed = f"{units.sum():.0f} of {len(units)} {what} are guesses"
    return f"{channels.sum():.0f} of {len(channels)} channels never were active, and {guessed}"


def _reach(neurons: Graph, seen: Mapping[str, Tensor]) -> str | None:
    """The range of the one input there is, in steps where it is an image of 8 bits."""
    if len(neurons.inputs) > 1:
        return None
    numbers = seen[neurons.inputs[0].name]
    low, high = float(numbers.min()), float(numbers.max())
    if low >= 0 and input_grid(numbers, 8)[0] == PIXEL:
        return f"inputs are {low / PIXEL:.0f}..{high / PIXEL:.0f} of 0..255"
    return f"inputs are {low:.3g}..{high:.3g}"
