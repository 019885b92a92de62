"""A cell as stages and edges: what the kernels run, before it is packed into flat arrays.

A stage accumulates what its edges bring and sends spikes (or changes) on. Everything linear between two
stages is an edge: dense rows of weights for convolutions and linear layers, single links for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from spikemorph.run.event.layout import Ints, Layout

NARROW = np.iinfo(np.int16).max - 1
"""Largest |integer| that int16 holds with room for a breakpoint beyond."""


class Kind(IntEnum):
    """What a stage does with its sums."""

    ANALOG = 0
    """Sends the change of its targets at once."""
    CODED = 1
    """Emits spikes towards given targets."""
    NEURON = 2
    """Tracks a step function with breakpoints by channel; vectorised."""
    STEPS = 3
    """Tracks any step function."""
    POOL = 4
    """Tracks maxima of windows of positions; vectorised."""
    WINDOWS = 5
    """Tracks maxima of any sets of sums."""
    RELAY = 6
    """Sends on what arrived in a step: a linear op that others read."""
    PRODUCT = 7
    """Sends the change of the product of two sums."""
    READOUT = 8
    FIRE = 9
    """Integrates and fires, and loses its threshold with every spike; vectorised."""


class EdgeKind(IntEnum):
    """How a spike reaches its targets."""

    ROWS = 0
    """Whole rows of weights by position and tap."""
    GROUPED = 1
    """The same with channels in groups: short rows."""
    LINKS = 2
    """A list of targets for each source."""
    STRAIGHT = 3
    """Every place into the same place, times a weight."""
    UNITS = 4
    """ROWS of bytes for spikes of size 1; below every row lies its negative."""


@final
@dataclass(frozen=True, eq=False)
class Edge:
    """A linear map from the spikes of a stage into the sums of another.

    Args:
        source: stage number.
        part: 0, or 1 for the second factor of a product.
        near: [out positions, taps] source positions, -1 where there is none.
        place: [out positions] where the first channel of the result goes.
        rows: [taps * padded source channels, padded out channels] weights, in the narrowest type.
        starts: [padded source channels] first channel of the group that a channel feeds.
        first, target, weight: of source place i the links first[i]..first[i + 1].
    """

    kind: EdgeKind
    source: int
    part: int = 0
    near: Ints | None = None
    place: Ints | None = None
    rows: NDArray[Any] | None = None
    starts: Ints | None = None
    first: Ints | None = None
    target: Ints | None = None
    weight: Ints | None = None


@final
@dataclass(eq=False)
class Stage:
    """One accumulator array and what it sends.

    Args:
        name: of the node in the cell.
        layout: of what it sends.
        sums: layout of its accumulators; differs for pools.
        bound: largest |integer| in the accumulators.
        start: [sums.size] accumulators at rest, the bias.
        largest: of one spike; 0 for what is not a spike.
        breakpoints: NEURON [n, padded]; STEPS [groups, n]; FIRE [2, padded or size]: first, threshold.
        line: NEURON [2, padded]: slopes and offsets that stand for the breakpoints, where there are such.
        values: STEPS [groups, n + 1].
        group: STEPS [size], -1 for unused places.
        hi: FIRE: the largest count.
        least: FIRE: the most negative spike.
        windows: POOL [positions, taps], WINDOWS [size, taps]; -1 for none.
    """

    kind: Kind
    name: str
    layout: Layout
    sums: Layout
    bound: int
    start: Ints
    edges: list[Edge] = field(default_factory=list)
    largest: int = 0
    lo: int = 0
    hi: int = 0
    least: int = 0
    breakpoints: Ints | None = None
    line: NDArray[np.float64] | None = None
    values: Ints | None = None
    group: Ints | None = None
    windows: Ints | None = None

    @property
    def wide(self) -> bool:
        """Whether int16 is too narrow for what it holds."""
        return self.bound > NARROW

    @property
    def copies(self) -> int:
        """Arrays of sums: a product has two factors and itself."""
        return 3 if self.kind is Kind.PRODUCT else 1


@final
@dataclass(frozen=True, eq=False)
class Arrivals:
    """Where the numbers that reach an op come from: of each number a place of a stage, -1 for none."""

    node: str
    shape: tuple[int, ...]
    terms: tuple[tuple[int, NDArray[np.int64]], ...]


@final
@dataclass(frozen=True, eq=False)
class Program:
    """All stages of a cell in data-flow order.

    Args:
        number: stage of every node that has one.
        arrivals: of every op that does work.
    """

    stages: tuple[Stage, ...]
    number: dict[str, int]
    arrivals: tuple[Arrivals, ...]


def ordered(program: Program) -> Program:
    """Stages so that each comes behind those that it reads."""
    order: list[int] = []
    seen: set[int] = set()
    for root in range(len(program.stages)):
        waiting = [root]
        while waiting:
            number = waiting[-1]
            missing = [edge.source for edge in program.stages[number].edges if edge.source not in seen]
            if missing and number not in seen:
                waiting.extend(missing)
                continue
            waiting.pop()
            if number not in seen:
                seen.add(number)
                order.append(number)
    new = {old: place for place, old in enumerate(order)}
    for stage in program.stages:
        stage.edges = [replace(edge, source=new[edge.source]) for edge in stage.edges]
    arrivals = tuple(
        replace(each, terms=tuple((new[stage], index) for stage, index in each.terms))
        for each in program.arrivals
    )
    stages = tuple(program.stages[old] for old in order)
    return Program(stages, {name: new[old] for name, old in program.number.items()}, arrivals)
