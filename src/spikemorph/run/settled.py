"""Settled counts of a run: what every element left behind, and what the next one is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from spikemorph.evaluate.lengths import Valid
from spikemorph.run.cells import Cell, Plan, gathered, scattered

Holds = Mapping[str, tuple[Tensor, Tensor]]
"""By local emitter: where it takes part [batch, 1...], and the count it keeps elsewhere [batch, *shape]."""


@final
@dataclass(frozen=True)
class Settled:
    """Counts of all emitting nodes, filled round by round inside one engine call.

    Args:
        inputs: input counts by argument number, [batch, *shape].
        counts: by node name, [batch, *shape], zero where not yet computed.
        valid: by emitting node, which samples reach how far; empty without lengths.
    """

    plan: Plan
    inputs: tuple[Tensor, ...]
    counts: Mapping[str, Tensor]
    valid: Mapping[str, Valid]

    @classmethod
    def begin(
        cls, plan: Plan, inputs: tuple[Tensor, ...], valid: Mapping[str, Valid] | None = None
    ) -> Settled:
        """Nothing has settled."""
        first = inputs[0]
        counts = {
            node.name: torch.zeros((len(first), *node.shape), dtype=first.dtype, device=first.device)
            for node in plan.graph.neurons
        }
        return cls(plan, inputs, counts, valid or {})

    def targets(self, cell: Cell) -> tuple[Tensor, ...]:
        """What each input of the cell stands for in this round."""
        arguments = {node.name: self.inputs[i] for i, node in enumerate(self.plan.graph.inputs)}
        found = []
        first = self.inputs[0]
        for port in cell.inputs:
            if not port.name:
                shape = cell.graph.by_name[port.local].shape
                found.append(torch.zeros((len(first), *shape), dtype=first.dtype, device=first.device))
                continue
            source = arguments.get(port.name)
            source = self.counts[port.name] if source is None else source
            found.append(gathered(source, self._axis(port.name), port.elements))
        return tuple(found)

    def keep(self, cell: Cell, counts: Mapping[str, Tensor]) -> None:
        """Put the counts of a settled cell, by local name, into their places."""
        for port in cell.emitters:
            scattered(self.counts[port.name], self._axis(port.name), port.elements, counts[port.local])

    def holds(self, cell: Cell, targets: tuple[Tensor, ...]) -> Holds:
        """Neurons of samples that have ended: in front of a recurrence they stay silent, in it they keep."""
        given = {port.local: target for port, target in zip(cell.inputs, targets, strict=True)}
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for port in cell.emitters:
            valid, axis = self.valid.get(port.name), self._axis(port.name)
            if valid is None or axis is None:
                continue
            elements = torch.tensor(port.elements, device=self.inputs[0].device)
            inside = elements[None, :] < valid.lengths.to(elements.device)[:, None]
            rank = len(self.plan.graph.by_name[port.name].shape)
            inside = inside.reshape(len(inside), *(1,) * axis, -1, *(1,) * (rank - axis - 1))
            kept = given.get(cell.recurrent.get(port.local, ""))
            if kept is None:
                kept = gathered(self.counts[port.name], axis, port.elements) * 0
            elif kept.shape[axis + 1] > 1:
                kept = self._before(cell, port.local, port.name)
            found[port.local] = (inside, kept)
        return found

    def _before(self, cell: Cell, local: str, name: str) -> Tensor:
        """The state before the element that a recurrence takes."""
        node = self.plan.graph.by_name[name]
        (element,) = next(port.elements for port in cell.emitters if port.local == local)
        step = 1 if getattr(node.op, "reverse", False) else -1
        return gathered(self.counts[name], 0, (element + step,))

    def _axis(self, name: str) -> int | None:
        return self.plan.graph.by_name[name].element_axis
