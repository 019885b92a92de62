"""What is added up over batches for the errors of one layer."""

from __future__ import annotations

from collections import defaultdict
from typing import final

import torch
from torch import Tensor

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node


@final
class LayerSums:
    """Squares, products and shares of one layer, batch after batch.

    Args:
        node: an input, a readout, or one that emits.
        graph: that it belongs to; has its unit.
        steps: of a rate graph, in which its counts add up; 1 of an integer graph.
        largest: of a rate graph, what a neuron sends at most in a step.
    """

    def __init__(self, node: Node, graph: Graph, steps: int = 1, largest: int = 1) -> None:
        self.node, self.graph, self.steps, self.largest = node, graph, steps, largest
        self.unit = _unit(node, graph).float()
        self.squares: defaultdict[str, float] = defaultdict(float)
        self.counts, self.clipped = 0, 0
        self.has_rest = False
        self.active: Tensor | None = None
        self.active_float: Tensor | None = None

    # ------------------------------------------------------------ adding
    def decoded(self, integers: Tensor) -> Tensor:
        """Activations [batch, *shape] of counts, outputs of readout integers.

        They are rounded to float32, as a decoder hands them on, and kept in float64, so that what layers make
        of them does not depend on the order in which terms are added.
        """
        op = self.node.op
        if isinstance(op, ops.Input):
            return (integers.float() * self.unit).double()
        if not isinstance(op, ops.Readout):
            return (integers.float() * (self.unit / self.steps)).double()
        value = integers.double() * self.graph.tensors[op.scale] / self.steps
        return (value if op.offset is None else value + self.graph.tensors[op.offset]).float().double()

    def add_spiking(self, counts: Tensor, spiking: Tensor, resting: Tensor | None) -> None:
        """Integers and decoded activations of the spiking network, and those of the QNN if there is one."""
        if resting is not None:
            self.has_rest = True
            self._square("unsettled", spiking - resting)
            self._square("resting", resting)
        self.counts += counts.numel()
        self.active = _either(self.active, self._channels(counts))

    def add_float(self, value: Tensor, spiking: Tensor, resting: Tensor | None) -> None:
        """What the float network has there."""
        self._square("float", value)
        self._square("spiking", spiking)
        self._square("error", spiking - value)
        if resting is not None:
            self._square("quantisation", resting - value)
        self.squares["product"] += float((spiking * value).sum())
        self.active_float = _either(self.active_float, self._channels(value))

    def add_own(self, value: Tensor, counts: Tensor, spiking: Tensor) -> None:
        """What the float layer makes of the activations that arrive in the spiking network."""
        self._square("added", spiking - value)
        ends = self._ends()
        if ends is not None:
            lo, hi, unit = ends
            above = (counts >= hi) & (value > (hi + 0.5) * unit)
            below = (counts <= lo) & (value < (lo - 0.5) * unit)
            self.clipped += int((above | below).sum())
            self._square("clipped", (spiking - value)[above | below])

    def _ends(self) -> tuple[int, int, Tensor] | None:
        """The range of counts and what one stands for; None of what has no range of its own."""
        op = self.node.op
        neuron = op.cell if isinstance(op, ops.Recurrence) else op
        match neuron:
            case ops.IntegrateFire(lo=lo, hi=hi):
                most = self.steps * self.largest
                return max(lo, -most), min(hi, most), self.unit / self.steps
            case ops.Neuron(lo=lo, hi=hi) | ops.Input(lo=lo, hi=hi):
                return lo, hi, self.unit
            case _:
                return None

    def add_own_resting(self, value: Tensor, resting: Tensor) -> None:
        """The same of those that arrive in the QNN."""
        self._square("quantisation_added", resting - value)

    def _square(self, name: str, value: Tensor) -> None:
        self.squares[name] += float(value.square().sum())

    def _channels(self, value: Tensor) -> Tensor:
        """[channels] bool: which are not zero everywhere; channels lie along the first axis besides time."""
        if value.dim() == 1:
            return (value != 0).any().reshape(1)
        axis = 2 if self.node.element_axis == 0 and value.dim() > 2 else 1
        return (value != 0).movedim(axis, 0).flatten(1).any(1)

    # ------------------------------------------------------------ reading
    @property
    def kind(self) -> str:
        """input, neuron, identity, pool or output."""
        match self.node.op:
            case ops.Input():
                return "input"
            case ops.Readout():
                return "output"
            case ops.MaxPool() | ops.AMax():
                return "pool"
            case ops.Neuron(identity=True) | ops.IntegrateFire(identity=True):
                return "identity"
            case _:
                return "neuron"

    @property
    def compared(self) -> bool:
        """Whether there was a float network."""
        return self.active_float is not None

    def relative(self, name: str) -> float:
        """The length of an error as a share of its reference; 1 where that is zero and the error is not."""
        error = self.squares[name]
        reference = self.squares["resting" if name == "unsettled" else "float"]
        return float((error / reference) ** 0.5) if reference else float(error > 0)

    def cosine(self) -> float:
        """Of spiking and float activations; 1 where both are zero, 0 where one is."""
        lengths = (self.squares["spiking"] * self.squares["float"]) ** 0.5
        if lengths:
            return float(self.squares["product"] / lengths)
        return float(self.squares["spiking"] == self.squares["float"])

    def share_clipped(self) -> float:
        """Of all counts."""
        return self.clipped / max(self.counts, 1)

    def share_of_clipping(self) -> float:
        """Of the squared error that the layer adds."""
        return float(self.squares["clipped"] / (self.squares["added"] or 1))

    def silent(self) -> float:
        """Share of channels without a spike that stayed."""
        return _share(self.active)

    def silent_float(self) -> float:
        """Share of channels whose float activation is zero everywhere."""
        return _share(self.active_float)


def _unit(node: Node, graph: Graph) -> Tensor:
    """What one count stands for, 1 where that is not known."""
    if isinstance(node.op, ops.Input) and node.op.unit is not None:
        return graph.tensors[node.op.unit]
    return graph.units.get(node.name, torch.ones((), dtype=torch.float64))


def _either(known: Tensor | None, more: Tensor) -> Tensor:
    return more if known is None else known | more


def _share(active: Tensor | None) -> float:
    return 0.0 if active is None else float((~active).double().mean())
