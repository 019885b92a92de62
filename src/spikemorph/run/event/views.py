"""Values as sums of what stages send: rearranging costs nothing, it only renames places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from spikemorph.ir import ops
from spikemorph.ir.graph import Node
from spikemorph.run.event.layout import Ints, moved


@final
@dataclass(frozen=True, eq=False)
class Term:
    """A part of a value.

    Args:
        stage: number of the stage that sends it.
        index: [numel] of the value's numbers in row-major order the place in the stage, -1 for none.
        sign: +1 or -1.
    """

    stage: int
    index: Ints
    sign: int = 1


View = tuple[Term, ...]
Shape = tuple[int, ...]


def rearranged(op: ops.Op, view: View, before: Shape) -> View:
    """The view behind a rearranging op."""
    source = moved(op, before)
    return tuple(Term(term.stage, taken(term.index, source), term.sign) for term in view)


def taken(index: Ints, source: Ints) -> Ints:
    """index[source], -1 where the source is -1."""
    found: Ints = np.where(source < 0, -1, index[source.clip(min=0)])
    return found


def spread(index: Ints, before: Shape, after: Shape) -> Ints:
    """Broadcast over another shape."""
    lifted = index.reshape((1,) * (len(after) - len(before)) + before)
    found: Ints = np.broadcast_to(lifted, after).reshape(-1)
    return found


def added(node: Node, op: ops.Add, views: Sequence[View], shapes: Sequence[Shape]) -> View:
    """A signed sum."""
    return tuple(
        Term(term.stage, spread(term.index, shape, node.shape), term.sign * sign)
        for view, shape, sign in zip(views, shapes, op.signs, strict=True)
        for term in view
    )


def pieces(op: ops.Concat, shapes: Sequence[Shape]) -> list[Ints]:
    """Of each joined input the row-major places that its numbers take in the result."""
    sizes = [shape[op.axis] for shape in shapes]
    whole = list(shapes[0])
    whole[op.axis] = sum(sizes)
    places = np.arange(int(np.prod(whole))).reshape(whole)
    found, start = [], 0
    for size in sizes:
        part = np.take(places, range(start, start + size), axis=op.axis)
        found.append(part.reshape(-1))
        start += size
    return found


def joined(op: ops.Concat, views: Sequence[View], shapes: Sequence[Shape]) -> View:
    """Inputs side by side."""
    places = pieces(op, shapes)
    total = sum(len(each) for each in places)
    terms = []
    for view, place in zip(views, places, strict=True):
        for term in view:
            index = np.full(total, -1)
            index[place] = term.index
            terms.append(Term(term.stage, index, term.sign))
    return tuple(terms)


def disjoint(view: View) -> bool:
    """Whether every number comes from one place at most."""
    if len(view) == 1:
        return True
    return bool((np.sum([term.index >= 0 for term in view], axis=0) <= 1).all())
