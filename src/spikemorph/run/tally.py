"""Counting while an engine steps: spikes, events, arrivals and whatever the user asked to record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from spikemorph.convert.network import Spikes, SpikingNetwork
from spikemorph.errors import RunError
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.run.cells import Cell, Plan, scattered
from spikemorph.run.record import Everything, LayerSpikes, Outputs, Record, SpikeCounts, kept_steps
from spikemorph.run.result import Run, Work

WORKING: tuple[type, ...] = (ops.Conv, ops.Linear, ops.AxisMap, ops.Scale, ops.Mul)
"""Ops whose work is proportional to the non-zero numbers that reach them."""

LARGEST_TRACE = 2**28
"""Numbers that a record of single spikes may hold."""


def emissions(network: SpikingNetwork, cell: Cell) -> dict[str, str]:
    """By local name of every node of a cell that emits spikes, the name it is reported under."""
    coded = isinstance(network.encoding, Spikes)
    found = {port.local: port.name for port in cell.inputs if coded and port.name and not port.held}
    found |= {port.local: f"{port.name}.handover" for port in cell.inputs if port.held}
    return found | {port.local: port.name for port in cell.emitters}


@final
@dataclass
class Tally:
    """The books of one run; made, filled and closed inside one engine call."""

    network: SpikingNetwork
    plan: Plan
    record: tuple[Record, ...]
    batch: int
    spikes: dict[str, Tensor] = field(default_factory=dict)
    events: dict[str, Tensor] = field(default_factory=dict)
    work: dict[int, tuple[Graph, dict[str, Tensor]]] = field(default_factory=dict)
    raw: dict[str, Tensor] = field(default_factory=dict)
    raws: list[Mapping[str, Tensor]] = field(default_factory=list)
    layers: dict[str, list[int]] = field(default_factory=dict)
    trace: dict[str, list[Tensor]] = field(default_factory=dict)
    element_steps: list[Tensor] = field(default_factory=list)
    element_settled: list[Tensor] = field(default_factory=list)
    steps: int = 0
    until: list[Tensor] = field(default_factory=list)

    @property
    def kept(self) -> tuple[int, ...] | None:
        """Steps after which outputs are kept; None: all."""
        return kept_steps(self.record)

    @classmethod
    def begin(cls, network: SpikingNetwork, plan: Plan, batch: int, record: tuple[Record, ...]) -> Tally:
        """Empty books."""
        books = cls(network, plan, record, batch)
        names = dict.fromkeys(name for cell in plan.cells for name in emissions(network, cell).values())
        for name in names:
            books.spikes[name] = torch.zeros(batch, dtype=torch.int64)
            books.events[name] = torch.zeros(batch, dtype=torch.int64)
            books.layers[name] = []
            if not name.endswith(".handover"):
                books.trace[name] = []
        for node in plan.graph.readouts:
            books.raw[node.name] = torch.zeros((batch, *node.shape), dtype=torch.int64)
        return books

    def wants(self, *kinds: type) -> bool:
        """Whether one of these records, or everything, was asked for."""
        return any(isinstance(each, (*kinds, Everything)) for each in self.record)

    def open(self, cell: Cell) -> None:
        """A new element."""
        self.work.setdefault(id(cell.graph), (cell.graph, {}))
        self.element_steps.append(torch.zeros(self.batch, dtype=torch.int64))
        self.element_settled.append(torch.zeros(self.batch, dtype=torch.bool))
        self._first = self.steps

    def arrive(self, cell: Cell, node: Node, arriving: tuple[Tensor, ...]) -> None:
        """Count the non-zero numbers that reach a working op."""
        if not isinstance(node.op, WORKING):
            return
        shape = node.shape if isinstance(node.op, ops.Mul) else arriving[0].shape[1:]
        found = torch.zeros(tuple(shape), dtype=torch.int64)
        for each in arriving:
            found += (each != 0).sum(0).cpu()
        known = self.work[id(cell.graph)][1]
        known[node.name] = found + known[node.name] if node.name in known else found

    def advance(
        self, cell: Cell, deltas: Mapping[str, Tensor], pending: Tensor, raw: Mapping[str, Tensor]
    ) -> None:
        """Close the books of one step."""
        self.steps += 1
        self.element_settled[-1] = ~pending.cpu()
        seen = dict.fromkeys(self.layers, 0)
        for local, name in emissions(self.network, cell).items():
            spike = deltas[local]
            flat = spike.reshape(spike.shape[0], -1)
            size = flat.abs().sum(1).cpu().to(torch.int64)
            self.spikes[name] += size
            self.events[name] += (flat != 0).sum(1).cpu()
            self.element_steps[-1][size > 0] = self.steps - self._first
            seen[name] += int(size.sum()) if self.wants(LayerSpikes) else 0
        if self.wants(LayerSpikes):
            for name, total in seen.items():
                self.layers[name].append(total)
        if self.wants():
            self._keep_trace(cell, deltas)
        for port in cell.readouts:
            axis = self.plan.graph.by_name[port.name].element_axis
            scattered(self.raw[port.name], axis, port.elements, raw[port.local].cpu())
        if self.wants(Outputs) and (self.kept is None or self.steps in self.kept):
            self.keep_outputs()

    def keep_outputs(self) -> None:
        """The readouts as they are, and the spikes so far."""
        self.raws.append({name: each.clone() for name, each in self.raw.items()})
        zero = torch.zeros(self.batch, dtype=torch.int64)
        self.until.append(sum(self.spikes.values(), zero))

    def _keep_trace(self, cell: Cell, deltas: Mapping[str, Tensor]) -> None:
        places = [
            port for port in (*cell.inputs, *cell.emitters) if port.name in self.trace and not port.held
        ]
        step = {}
        for name, steps in self.trace.items():
            node = self.plan.graph.by_name[name]
            step[name] = torch.zeros((self.batch, *node.shape), dtype=torch.int64)
            steps.append(step[name])
        for port in (each for each in places if not each.held):
            axis = self.plan.graph.by_name[port.name].element_axis
            scattered(step[port.name], axis, port.elements, deltas[port.local].cpu().to(torch.int64))
        size = sum(each.numel() for each in step.values()) * self.steps
        if size > LARGEST_TRACE:
            raise RunError(
                where="simulate(record=Everything())",
                got=f"{size:.2g} numbers after {self.steps} steps",
                known=f"single spikes are kept up to {LARGEST_TRACE:.2g} numbers",
                do="run fewer samples or a shorter sequence, or record SpikeCounts() and LayerSpikes()",
            )

    def finish(self, counts: Mapping[str, Tensor], work: tuple[Work, ...] | None = None) -> Run:
        """The result.

        Args:
            work: where the engine itself counted what arrived.
        """
        own = tuple(Work(graph, arrivals) for graph, arrivals in self.work.values())
        while self.wants(Outputs) and self.kept is not None and len(self.raws) < len(self.kept):
            self.keep_outputs()
        return Run(
            graph=self.network.graph,
            raw=self.raw,
            steps=self.steps,
            element_steps=torch.stack(self.element_steps),
            element_settled=torch.stack(self.element_settled),
            layer_spikes=self.spikes,
            layer_events=self.events,
            work=own if work is None else work,
            counts={name: each.cpu().to(torch.int64) for name, each in counts.items()}
            if self.wants(SpikeCounts)
            else None,
            raws=tuple(self.raws) if self.wants(Outputs) else None,
            spikes_until=torch.stack(self.until) if self.wants(Outputs) else None,
            at=self.kept,
            window=self.network.window,
            layer_steps={name: torch.tensor(each, dtype=torch.int64) for name, each in self.layers.items()}
            if self.wants(LayerSpikes)
            else None,
            trace={name: torch.stack(each) for name, each in self.trace.items()} if self.wants() else None,
        )
