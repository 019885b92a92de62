"""A network as a value: nodes in data-flow order, tensors by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

from torch import Tensor

from spikemorph.ir.ops import EMITTING, HOST, Input, Op, Readout
from spikemorph.ir.structure import Leaf, Structure


class Dialect(Enum):
    """Which ops a graph may hold; `ir.ops` lists them."""

    FLOAT = "float"
    PLANNED = "planned"
    INTEGER = "integer"
    RATE = "rate"
    """Integers as well, but inputs and biases enter again at every step: counts grow with time."""

    @property
    def whole(self) -> bool:
        """Whether its numbers are integers."""
        return self in {Dialect.INTEGER, Dialect.RATE}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node comes from, for messages.

    Args:
        module: path of the module inside the model, "" for the model itself.
        source: "file.py:31" where known.
        call: the torch operation it was captured from.
    """

    module: str = ""
    source: str = ""
    call: str = ""

    def __str__(self) -> str:
        place = self.module or "the model"
        return f"{place} ({self.source})" if self.source else place


@dataclass(frozen=True, slots=True)
class Node:
    """One op.

    Args:
        name: unique; neurons are reported under it.
        inputs: names of earlier nodes.
        shape: of the result, without the batch axis.
        element_axis: the axis of `shape` that is outer time, None for plain values.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    origin: Origin = Origin()
    element_axis: int | None = None


@dataclass(frozen=True)
class Graph:
    """Nodes in data-flow order, outputs by node name, tensors by name. Never changed in place.

    Args:
        outputs: node names, in the order of `structure`'s leaves.
        structure: nesting of the module's outputs.
        units: what one count of an emitting node stands for, float64, broadcasts against its shape (integer
            dialect, where known). Nothing that runs reads them, and the hash does not cover them.
    """

    dialect: Dialect
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    structure: Structure = Leaf(0)
    units: Mapping[str, Tensor] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Nodes that read each node, in data-flow order."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return {name: tuple(users) for name, users in found.items()}

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """Input nodes by argument number."""
        found = [node for node in self.nodes if isinstance(node.op, Input)]
        return tuple(sorted(found, key=lambda node: node.op.index))  # type: ignore[union-attr]

    @cached_property
    def neurons(self) -> tuple[Node, ...]:
        """Nodes that hold a count and emit spikes (integer dialect)."""
        return tuple(node for node in self.nodes if isinstance(node.op, EMITTING))

    @cached_property
    def readouts(self) -> tuple[Node, ...]:
        """Readout nodes (integer dialect)."""
        return tuple(node for node in self.nodes if isinstance(node.op, Readout))

    @cached_property
    def body(self) -> tuple[Node, ...]:
        """All nodes but the host ops."""
        return tuple(node for node in self.nodes if not isinstance(node.op, HOST))

    def samples_at_once(self, most: int) -> int:
        """A batch of at most `most` whose values all together stay below 2**26 numbers."""
        numbers = sum(math.prod(node.shape) for node in self.nodes)
        return max(1, min(most, 2**26 // max(numbers, 1)))

    def with_nodes(
        self,
        nodes: Iterable[Node],
        *,
        tensors: Mapping[str, Tensor] | None = None,
        outputs: tuple[str, ...] | None = None,
        dialect: Dialect | None = None,
    ) -> Graph:
        """A graph of other nodes; what is not given stays."""
        return replace(
            self,
            nodes=tuple(nodes),
            tensors=self.tensors if tensors is None else tensors,
            outputs=self.outputs if outputs is None else outputs,
            dialect=self.dialect if dialect is None else dialect,
        )
