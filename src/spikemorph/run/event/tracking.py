"""What stages track: step functions as tables of breakpoints, maxima as tables of windows, thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Node
from spikemorph.run.event.geometry import pool_windows, windows_of
from spikemorph.run.event.layout import Ints, Layout, by_axis
from spikemorph.run.event.lines import FEW, Floats, line_through
from spikemorph.run.event.program import Kind, Stage

MOST = 64
"""Breakpoints that are compared one after the other; more are searched, unless they are on a line."""


def neuron(stage: Stage, node: Node, tensors: Mapping[str, Tensor]) -> None:
    """Bias and breakpoints of a neuron or a readout, laid out as the stage."""
    op = node.op
    assert isinstance(op, ops.Neuron | ops.IntegrateFire | ops.Readout)
    if op.bias is not None:
        bias = np.broadcast_to(tensors[op.bias].long().numpy(), node.shape).reshape(-1)
        stage.start[stage.layout.index] = bias
    if isinstance(op, ops.Readout):
        return
    if isinstance(op, ops.IntegrateFire):
        _firing(stage, node, op, tensors)
        return
    breakpoints = tensors[op.breakpoints].long().numpy()
    rows = breakpoints.reshape(-1, breakpoints.shape[-1]).clip(-stage.bound - 1, stage.bound + 1)
    group = _groups(breakpoints.shape[:-1], node.shape)
    stage.lo = op.lo
    stage.bound = max(stage.bound, abs(op.lo), abs(op.hi))
    values = None if op.values is None else tensors[op.values].long().numpy().reshape(len(rows), -1)
    by_lane = _by_lane(group, stage.layout) if values is None and op.lo <= 0 <= op.hi else None
    if by_lane is not None:
        stage.line = _line(rows, by_lane, stage)
        if stage.line is not None or rows.shape[1] <= MOST:
            stage.kind = Kind.NEURON
            stage.breakpoints = _lanes(rows, by_lane, stage)
            return
    stage.values = np.arange(op.lo, op.hi + 1)[None].repeat(len(rows), 0) if values is None else values
    stage.breakpoints = rows
    stage.group = np.full(stage.layout.size, -1)
    stage.group[stage.layout.index] = group


def _firing(stage: Stage, node: Node, op: ops.IntegrateFire, tensors: Mapping[str, Tensor]) -> None:
    """First threshold and distance of the others, by channel where all positions agree, else by place.

    Unused places never fire: zero lies between their thresholds.
    """
    stage.kind, stage.lo, stage.hi = Kind.FIRE, op.lo, op.hi
    furthest = (1 + stage.largest) * int(tensors[op.threshold].max())
    stage.bound = max(stage.bound, abs(op.lo), abs(op.hi), furthest)
    table = np.ones((2, stage.layout.size), dtype=np.int64)
    for row, name in enumerate((op.first, op.threshold)):
        numbers = np.broadcast_to(tensors[name].long().numpy(), node.shape).reshape(-1)
        table[row, stage.layout.index] = numbers
    by_position = table.reshape(2, stage.layout.positions, stage.layout.padded)
    used = np.zeros(stage.layout.size, dtype=bool)
    used[stage.layout.index] = True
    whole = used.reshape(stage.layout.positions, -1).all(0) | ~used.reshape(stage.layout.positions, -1).any(0)
    alike = bool((by_position == by_position[:, :1]).all()) and bool(whole.all())
    stage.breakpoints = np.ascontiguousarray(by_position[:, 0]) if alike else table


def _groups(front: tuple[int, ...], shape: tuple[int, ...]) -> Ints:
    """The row of breakpoints of every number."""
    numbers = np.arange(math.prod(front)).reshape(front)
    found: Ints = np.broadcast_to(numbers, shape).reshape(-1)
    return found


def _by_lane(group: Ints, layout: Layout) -> Ints | None:
    """The row of every channel, if it is the same at all positions; -1 for unused channels."""
    lanes = np.full(layout.padded, -1)
    lane = layout.index % layout.padded
    lanes[lane] = group
    return lanes if bool((lanes[lane] == group).all()) else None


def _lanes(rows: Ints, by_lane: Ints, stage: Stage) -> Ints:
    """[n, padded]; unused channels stay at zero."""
    unused = np.full((rows.shape[1],), stage.bound + 1)
    unused[: -stage.lo] = -stage.bound - 1
    table = np.where(by_lane[:, None] < 0, unused[None], rows[by_lane.clip(min=0)])
    return np.ascontiguousarray(table.T)


def _line(rows: Ints, by_lane: Ints, stage: Stage) -> Floats | None:
    """[2, padded] slopes and offsets, where all channels have them; unused channels stay at zero."""
    found = line_through(rows, stage.bound) if rows.shape[1] > FEW else None
    if found is None:
        return None
    unused = np.array([[0.0], [0.5 - stage.lo]])
    return np.where(by_lane < 0, unused, found[:, by_lane.clip(min=0)])


def pool(stage: Stage, node: Node, source: Node, before: Layout) -> None:
    """Windows over positions where a pool leaves channels alone, else over single numbers."""
    op = node.op
    assert isinstance(op, ops.MaxPool | ops.AMax)
    plain = by_axis(source.shape, 0)
    if isinstance(op, ops.MaxPool) and len(source.shape) == 1 + len(op.kernel):
        own = by_axis(node.shape, 0)
        if stage.layout.same(own):
            stage.kind, stage.sums = Kind.POOL, plain
            stage.windows = pool_windows(op, source.shape[1:], node.shape[1:])
            stage.start = np.zeros(plain.size, dtype=np.int64)
            return
    stage.kind, stage.sums = Kind.WINDOWS, before
    numbers = windows_of(op, source.shape, node.shape)
    places = np.where(numbers < 0, -1, before.index[numbers.clip(min=0)])
    stage.windows = np.full((stage.layout.size, places.shape[1]), -1)
    stage.windows[stage.layout.index] = places
    stage.start = np.zeros(before.size, dtype=np.int64)
