"""Lossless conversion: bipolar integrate-and-fire neurons that track the step functions of an integer graph.

Source: Su, You, Xu, Xu, He, arXiv 2408.09403 (ICANN 2024); the tracking form is DESIGN's law of lossless
conversion: S += clip(F(a) - S, -m, m) settles at F(a) whatever the order or timing of what arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from spikemorph.convert.network import Analog, Encoding, Graded, Spike, Spikes, SpikingNetwork, Ternary
from spikemorph.errors import GraphError, LevelsError, expect
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.ops import Input
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

    def __post_init__(self) -> None:
        expect("Lossless(spike)", self.spike, (Ternary, Graded), "use Ternary() or Graded(4)")
        expect("Lossless(input)", self.input, (Analog, Spikes), "use Analog() or Spikes()")


def lossless(graph: Graph, method: Lossless) -> SpikingNetwork:
    """The spiking network of an integer graph.

    Raises:
        GraphError: not an integer graph.
        LevelsError: other input bits than the graph's.
    """
    if graph.dialect is not Dialect.INTEGER:
        raise GraphError(
            where="the graph",
            got=f"dialect {graph.dialect.value}",
            known="Lossless converts integer graphs",
            do="quantise(graph, calibration, levels) first",
        )
    verify(graph)
    own = graph.with_nodes(graph.nodes, tensors={name: each.clone() for name, each in graph.tensors.items()})
    return SpikingNetwork(own, method.spike, _encoding(graph, method.input), graph_hash(graph))


def _encoding(graph: Graph, wanted: Encoding) -> Encoding:
    """The encoding, with at least the bits of the grid that the input really has."""
    if isinstance(wanted, Spikes):
        return wanted
    ranges = [(node.op.lo, node.op.hi) for node in graph.inputs if isinstance(node.op, Input)]
    bits = max((hi.bit_length() + (lo < 0) for lo, hi in ranges), default=Analog().bits)
    if wanted.bits < bits and wanted != Analog():
        raise LevelsError(
            where="Lossless(input)",
            got=repr(wanted),
            known=f"the input of this graph lies on a grid of {bits} bits",
            do=f"quantise with Levels(input=Analog(bits={wanted.bits})), or leave the bits out here",
        )
    return wanted if wanted.bits >= bits else Analog(bits)
