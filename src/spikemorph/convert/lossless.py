"""Lossless conversion: bipolar integrate-and-fire neurons that track the step functions of an integer graph.

Source: Su, You, Xu, Xu, He, arXiv 2408.09403 (ICANN 2024); the tracking form is DESIGN's law of lossless
conversion: S += clip(F(a) - S, -m, m) settles at F(a) whatever the order or timing of what arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from spikemorph.convert.network import Analog, Encoding, Spike, SpikingNetwork, Ternary
from spikemorph.errors import GraphError
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.store import graph_hash
from spikemorph.ir.verify import verify


@final
@dataclass(frozen=True, slots=True)
class Lossless:
    """At quiescence every neuron's count equals the quantised network's, exactly.

    Args:
        spike: Ternary(), or Graded(m) for spikes of up to m units.
        input: Analog() injects the input at step 0; Spikes() emits it as a spike train.
    """

    spike: Spike = Ternary()
    input: Encoding = Analog()


def convert(graph: Graph, method: Lossless | None = None) -> SpikingNetwork:
    """The spiking network of an integer graph.

    Args:
        graph: integer dialect, from `quantise` or `freeze`.
        method: Lossless() by default.

    Raises:
        GraphError: not an integer graph.
    """
    method = Lossless() if method is None else method
    if graph.dialect is not Dialect.INTEGER:
        raise GraphError(
            where="the graph",
            got=f"dialect {graph.dialect.value}",
            known="Lossless converts integer graphs",
            do="quantise(graph, calibration, levels) first",
        )
    verify(graph)
    own = graph.with_nodes(graph.nodes, tensors={name: each.clone() for name, each in graph.tensors.items()})
    return SpikingNetwork(own, method.spike, method.input, graph_hash(graph))
