"""Edges of dense rows: convolutions and linear layers from stages whose channels lie side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Node
from spikemorph.run.event.geometry import conv_windows
from spikemorph.run.event.layout import LANES, Ints, Layout
from spikemorph.run.event.program import Edge, EdgeKind
from spikemorph.run.event.views import Shape, Term


@final
@dataclass(frozen=True, eq=False)
class Windowed:
    """A convolution or linear layer in one form.

    Args:
        near: [out positions, taps] input positions, -1 outside.
        weight: [taps, in channels, out channels of one group].
        group: [in channels] first output channel that a channel feeds; None: all feed all.
        shape: (channels, positions) of input and of output, and whether channels come last in them.
    """

    near: Ints
    weight: Ints
    group: Ints | None
    before: tuple[int, int]
    after: tuple[int, int]
    last: bool

    def arranged(self, index: Ints, pair: tuple[int, int]) -> Ints:
        """A row-major index as [channels, positions]."""
        return index.reshape(pair[1], pair[0]).T if self.last else index.reshape(pair)


def windowed(node: Node, source: Shape, tensors: Mapping[str, Tensor]) -> Windowed:
    """The op of a node over positions and channels."""
    op = node.op
    if isinstance(op, ops.Linear):
        weight = tensors[op.weight].long().numpy()
        out, channels = weight.shape
        positions = int(np.prod(source[:-1], dtype=np.int64))
        near = np.arange(positions)[:, None]
        return Windowed(near, weight.T[None], None, (channels, positions), (out, positions), last=True)
    assert isinstance(op, ops.Conv)
    weight = tensors[op.weight].long().numpy()
    kernel = weight.shape[2:]
    near = conv_windows(op, source[1:], node.shape[1:], kernel)
    flat = weight.reshape(*weight.shape[:2], -1)
    channels, out = source[0], node.shape[0]
    per_tap = flat.transpose(2, 0, 1) if op.transposed else _by_input(flat, op.groups)
    each = out // op.groups
    group = None if op.groups == 1 else np.arange(channels) // (channels // op.groups) * each
    pairs = (channels, int(np.prod(source[1:]))), (out, int(np.prod(node.shape[1:])))
    return Windowed(near, per_tap, group, *pairs, last=False)


def _by_input(flat: Ints, groups: int) -> Ints:
    """[out, in / groups, taps] to [taps, in, out / groups]."""
    out, inner, taps = flat.shape
    apart = flat.reshape(groups, out // groups, inner, taps)
    found: Ints = apart.transpose(3, 0, 2, 1).reshape(taps, groups * inner, out // groups)
    return found


def places_of(form: Windowed, target: Ints) -> Ints | None:
    """Where each output position starts, if its channels go side by side; -1 where it goes nowhere."""
    goes = form.arranged(target, form.after)
    lane = np.arange(form.after[0])[:, None]
    start = goes[0]
    fits = np.where(start[None] < 0, goes == -1, goes == start[None] + lane)
    return start.copy() if bool(fits.all()) else None


def sourced(form: Windowed, term: Term, layout: Layout, place: Ints) -> Edge | None:
    """The edge from one term of the input, None where its channels do not lie side by side."""
    index = form.arranged(term.index, form.before)
    if form.before[1] == 1 and form.group is None and form.near.tolist() == [[0]]:
        return _flat(form, index[:, 0], term, layout, place)
    there = index >= 0
    position, channel = index // layout.padded, index % layout.padded
    shift = channel - np.arange(form.before[0])[:, None]
    lanes, columns = there.any(1), there.any(0)
    block = np.logical_and.outer(lanes, columns)
    if not np.array_equal(there, block) or not there.any():
        return None if there.any() else _nothing(form, term, layout, place)
    if len(np.unique(shift[there])) > 1:
        return None
    first = int(np.argmax(lanes))
    if not np.array_equal(position[there], np.broadcast_to(position[first], there.shape)[there]):
        return None
    moved = int(shift[there][0])
    at = np.where(columns, position[first], -1)
    near = np.where(form.near < 0, -1, at[form.near.clip(min=0)])
    own = np.flatnonzero(lanes)
    weight = np.zeros((form.weight.shape[0], layout.padded, form.weight.shape[2]), dtype=np.int64)
    weight[:, own + moved] = form.weight[:, own] * term.sign
    starts = None
    if form.group is not None:
        starts = np.zeros(layout.padded, dtype=np.int64)
        starts[own + moved] = form.group[own]
    return _edge(term, near, place, weight, starts)


def _flat(form: Windowed, index: Ints, term: Term, layout: Layout, place: Ints) -> Edge:
    """All of a value into one position: every place has a row, the sum of those it stands for."""
    weight = np.zeros((layout.size, form.weight.shape[2]), dtype=np.int64)
    own = index >= 0
    np.add.at(weight, index[own], form.weight[0, own] * term.sign)
    near = np.arange(layout.positions)[None]
    return _edge(term, near, place, weight.reshape(layout.positions, layout.padded, -1), None)


def _nothing(form: Windowed, term: Term, layout: Layout, place: Ints) -> Edge:
    weight = np.zeros((1, layout.padded, form.weight.shape[2]), dtype=np.int64)
    return _edge(term, np.full((len(place), 1), -1), place, weight, None)


def _edge(term: Term, near: Ints, place: Ints, weight: Ints, starts: Ints | None) -> Edge:
    used = place >= 0
    near = np.where(used[:, None], near, -1)
    taps, channels, out = weight.shape
    width = out if starts is not None else -(-out // LANES) * LANES
    rows = np.zeros((taps * channels, width), dtype=narrowest(weight))
    rows[:, :out] = weight.reshape(-1, out)
    kind = EdgeKind.ROWS if starts is None else EdgeKind.GROUPED
    return Edge(kind, term.stage, near=near, place=place.clip(min=0), rows=rows, starts=starts)


def narrowest(weight: Ints) -> Any:
    """The type that holds these numbers and their negatives: all layers at once lie in memory so."""
    largest = max(int(weight.max(initial=0)), -int(weight.min(initial=0)))
    return next(kind for kind in (np.int8, np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max)


def merged(edges: list[Edge]) -> list[Edge]:
    """Edges of the same weights from the same stage as one: parts of a window, windows of one layer."""
    found: list[Edge] = []
    for edge in edges:
        for i, other in enumerate(found):
            both = _both(other, edge)
            if both is not None:
                found[i] = both
                break
        else:
            found.append(edge)
    return found


def _both(one: Edge, two: Edge) -> Edge | None:
    if one.near is None or two.near is None or one.place is None or two.place is None:
        return None
    alike = (one.kind, one.source, one.part) == (two.kind, two.source, two.part)
    if not alike or one.near.shape[1] != two.near.shape[1]:
        return None
    if not _equal(one.rows, two.rows) or not _equal(one.starts, two.starts):
        return None
    if np.array_equal(one.place, two.place):
        if bool(((one.near >= 0) & (two.near >= 0)).any()):
            return None
        return replace(one, near=np.where(one.near < 0, two.near, one.near))
    near, place = np.concatenate([one.near, two.near]), np.concatenate([one.place, two.place])
    return replace(one, near=near, place=place)


def _equal(one: Ints | None, two: Ints | None) -> bool:
    return one is two or (one is not None and two is not None and np.array_equal(one, two))
