"""What of a batch takes part where sequences end early: neurons and rounds in front of each sample's end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from spikemorph.convert.network import Spikes, SpikingNetwork
from spikemorph.evaluate.ends import inside
from spikemorph.evaluate.lengths import ends
from spikemorph.ir.graph import Graph, Node
from spikemorph.run.schedule import schedule


@final
@dataclass(frozen=True)
class Extent:
    """What takes part in a batch.

    Args:
        batch: samples.
        lengths: [batch] by node whose samples end; empty without lengths.
    """

    graph: Graph
    batch: int
    lengths: Mapping[str, Tensor]

    @classmethod
    def of(cls, graph: Graph, batch: int, lengths: Tensor | None) -> Extent:
        """The extent of a batch; of all of it without lengths."""
        return cls(graph, batch, {} if lengths is None else ends(graph, lengths, batch))

    def mask(self, node: Node) -> Tensor:
        """[batch, 1...] bool, broadcasts against the values of a node: where they take part."""
        lengths = self.lengths.get(node.name)
        if lengths is None:
            return torch.ones(self.batch, *(1,) * len(node.shape), dtype=torch.bool)
        return inside(node, lengths)

    def numbers(self, node: Node) -> int:
        """Numbers of a node that take part, in all samples."""
        lengths, size = self.lengths.get(node.name), math.prod(node.shape)
        if lengths is None:
            return self.batch * size
        assert node.element_axis is not None
        return int(lengths.sum()) * (size // node.shape[node.element_axis])

    def emitters(self, network: SpikingNetwork) -> int:
        """Numbers of everything that emits."""
        return sum(self.numbers(node) for node in emitting(network))

    def steps(self, network: SpikingNetwork, element_steps: Tensor) -> Tensor:
        """Of the steps [rounds, batch] those of rounds that compute something of the sample."""
        if not self.lengths:
            return element_steps.flatten()
        found = torch.zeros(element_steps.shape, dtype=torch.bool)
        rounds = schedule(self.graph).rounds
        for node in (*emitting(network), *self.graph.readouts):
            lengths = self.lengths.get(node.name)
            for element, now in enumerate(rounds[node.name]):
                found[now] |= torch.tensor(True) if lengths is None else element < lengths
        return element_steps[found]


def emitting(network: SpikingNetwork) -> tuple[Node, ...]:
    """Neurons, pools and, where it is sent as spikes, input numbers: all that emit."""
    coded = network.graph.inputs if isinstance(network.encoding, Spikes) else ()
    return (*network.graph.neurons, *coded)
