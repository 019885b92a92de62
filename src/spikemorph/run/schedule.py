"""When every element of every value is computed: rounds, one for each recurrent update.

A round is what settles together. Round r takes one more element of every recurrence; what feeds it runs in
the latest round that is still in time, what reads it in the earliest. Without recurrences there is one round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from spikemorph.evaluate.recurrent import order
from spikemorph.ir import ops
from spikemorph.ir.elements import Sources, edges, sources
from spikemorph.ir.graph import Graph, Node

Rounds = Mapping[str, list[int]]
"""By node name, the round of every element along its element axis (a single entry without one)."""


@final
@dataclass(frozen=True)
class Schedule:
    """The rounds of a graph.

    Args:
        rounds: of all nodes but host ops.
        reads: by node name, for each input which elements an element reads.
    """

    graph: Graph
    rounds: Rounds
    reads: Mapping[str, tuple[Sources, ...]]

    @property
    def elements(self) -> int:
        """Number of rounds: recurrent updates one after the other, 1 for feed-forward graphs."""
        return 1 + max(max(each) for each in self.rounds.values())

    @property
    def look_ahead(self) -> int:
        """Input elements that an update, or an element of the output, needs beyond its own share, at most.

        0: as soon as the share of the sequence has arrived, it can be computed. A network that runs
        backwards over the sequence needs all of it. 0 for feed-forward graphs.
        """
        updates = list(range(self.elements))
        shown = [self.rounds[node.name] for node in self.graph.readouts if node.element_axis is not None]
        inputs = [node for node in self.graph.inputs if node.element_axis is not None]
        return max((self._beyond(node, each) for node in inputs for each in (updates, *shown)), default=0)

    def _beyond(self, node: Node, ready: list[int]) -> int:
        """Elements of an input beyond the share of what is ready in these rounds, at most."""
        size, taken = count_of(node), self.rounds[node.name]
        needed = [1 + max((i for i, at in enumerate(taken) if at <= now), default=-1) for now in ready]
        shares = [-(-(place + 1) * size // len(ready)) for place in range(len(ready))]
        return max(0, *(need - share for need, share in zip(needed, shares, strict=True)))


def count_of(node: Node) -> int:
    """Elements of a value, 1 without an element axis."""
    return 1 if node.element_axis is None else node.shape[node.element_axis]


def schedule(graph: Graph) -> Schedule:
    """The rounds of an integer graph with its element axes noted."""
    reads = {node.name: _reads(graph, node) for node in graph.body}
    earliest = _earliest(graph, reads)
    return Schedule(graph, _latest(graph, reads, earliest), reads)


def _reads(graph: Graph, node: Node) -> tuple[Sources, ...]:
    axes = [(graph.by_name[name].element_axis, node.element_axis) for name in node.inputs]
    found = zip(edges(graph, node), axes, strict=True)
    return tuple(sources(edge, pair, graph.tensors) for edge, pair in found)


def _earliest(graph: Graph, reads: Mapping[str, tuple[Sources, ...]]) -> Rounds:
    found: dict[str, list[int]] = {}
    for node in graph.body:
        ready = [0] * count_of(node)
        for name, read in zip(node.inputs, reads[node.name], strict=True):
            for j, _ in enumerate(ready):
                ready[j] = max([ready[j], *(found[name][i] for i in read(j))])
        if isinstance(node.op, ops.Recurrence):
            before = -1
            for j in order(len(ready), reverse=node.op.reverse):
                before = ready[j] = max(ready[j], before + 1)
        found[node.name] = ready
    return found


def _latest(graph: Graph, reads: Mapping[str, tuple[Sources, ...]], earliest: Rounds) -> Rounds:
    never = 1 + max(max(each) for each in earliest.values())
    found = {name: [never] * len(each) for name, each in earliest.items()}
    for node in reversed(graph.body):
        own = found[node.name]
        if isinstance(node.op, ops.Recurrence | ops.Readout):
            own[:] = earliest[node.name]
        _fill(own, earliest[node.name], never)
        for name, read in zip(node.inputs, reads[node.name], strict=True):
            for j, now in enumerate(own):
                for i in read(j):
                    found[name][i] = min(found[name][i], now)
    return found


def _fill(own: list[int], earliest: list[int], never: int) -> None:
    """Elements that nobody reads run with the next one that is read."""
    following = max((each for each in own if each < never), default=0)
    for j in reversed(range(len(own))):
        own[j] = max(following, earliest[j]) if own[j] == never else own[j]
        following = own[j]
