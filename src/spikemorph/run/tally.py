"""Counting while an engine steps: spikes, events, arrivals and whatever the user asked to record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from spikemorph.convert.network import Spikes, SpikingNetwork
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.run.record import Everything, LayerSpikes, Outputs, Record, SpikeCounts
from spikemorph.run.result import Run

WORKING: tuple[type, ...] = (ops.Conv, ops.Linear, ops.AxisMap, ops.Scale, ops.Mul)
"""Ops whose work is proportional to the non-zero numbers that reach them."""


@final
@dataclass
class Tally:
    """The books of one run; made, filled and closed inside one engine call."""

    graph: Graph
    emitting: tuple[Node, ...]
    record: tuple[Record, ...]
    sample_steps: Tensor
    settled: Tensor
    spikes: dict[str, Tensor]
    events: dict[str, Tensor]
    arrivals: dict[str, Tensor] = field(default_factory=dict)
    raw: Mapping[str, Tensor] = field(default_factory=dict)
    raws: list[Mapping[str, Tensor]] = field(default_factory=list)
    layers: dict[str, list[int]] = field(default_factory=dict)
    trace: dict[str, list[Tensor]] = field(default_factory=dict)
    steps: int = 0

    @classmethod
    def begin(cls, network: SpikingNetwork, batch: int, record: tuple[Record, ...]) -> Tally:
        """Empty books."""
        coded = network.graph.inputs if isinstance(network.encoding, Spikes) else ()
        emitting = (*coded, *network.graph.neurons)
        zeros = {node.name: torch.zeros(batch, dtype=torch.int64) for node in emitting}
        return cls(
            network.graph,
            emitting,
            record,
            torch.zeros(batch, dtype=torch.int64),
            torch.zeros(batch, dtype=torch.bool),
            zeros,
            {name: each.clone() for name, each in zeros.items()},
            layers={node.name: [] for node in emitting},
            trace={node.name: [] for node in emitting},
        )

    def wants(self, *kinds: type) -> bool:
        """Whether one of these records, or everything, was asked for."""
        return any(isinstance(each, (*kinds, Everything)) for each in self.record)

    def arrive(self, node: Node, arriving: tuple[Tensor, ...]) -> None:
        """Count the non-zero numbers that reach a working op."""
        if not isinstance(node.op, WORKING):
            return
        shape = node.shape if isinstance(node.op, ops.Mul) else arriving[0].shape[1:]
        found = torch.zeros(tuple(shape), dtype=torch.int64)
        for each in arriving:
            found += (each != 0).sum(0).cpu()
        known = self.arrivals.get(node.name)
        self.arrivals[node.name] = found if known is None else known + found

    def advance(self, deltas: Mapping[str, Tensor], pending: Tensor, raw: Mapping[str, Tensor]) -> None:
        """Close the books of one step."""
        self.steps += 1
        self.settled = ~pending.cpu()
        self.raw = raw
        for node in self.emitting:
            spike = deltas[node.name]
            flat = spike.reshape(spike.shape[0], -1)
            size = flat.abs().sum(1).cpu().to(torch.int64)
            self.spikes[node.name] += size
            self.events[node.name] += (flat != 0).sum(1).cpu()
            self.sample_steps[size > 0] = self.steps
            if self.wants(LayerSpikes):
                self.layers[node.name].append(int(size.sum()))
            if self.wants():
                self.trace[node.name].append(spike.cpu().to(torch.int64))
        if self.wants(Outputs):
            self.raws.append({name: each.cpu().to(torch.int64) for name, each in raw.items()})

    def finish(self, counts: Mapping[str, Tensor]) -> Run:
        """The result."""
        return Run(
            graph=self.graph.with_nodes(
                self.graph.nodes, tensors={name: each.cpu() for name, each in self.graph.tensors.items()}
            ),
            raw={name: each.cpu().to(torch.int64) for name, each in self.raw.items()},
            steps=self.steps,
            sample_steps=self.sample_steps,
            settled=self.settled,
            layer_spikes=self.spikes,
            layer_events=self.events,
            arrivals=self.arrivals,
            counts={name: each.cpu().to(torch.int64) for name, each in counts.items()}
            if self.wants(SpikeCounts)
            else None,
            raws=tuple(self.raws) if self.wants(Outputs) else None,
            layer_steps={name: torch.tensor(each, dtype=torch.int64) for name, each in self.layers.items()}
            if self.wants(LayerSpikes)
            else None,
            trace={name: torch.stack(each) for name, each in self.trace.items()} if self.wants() else None,
        )
