"""Lossless conversion: bipolar integrate-and-fire neurons that track the step functions of an integer graph.

Source: Su, You, Xu, Xu, He, arXiv 2408.09403 (ICANN 2024); the tracking form is DESIGN's law of lossless
conversion: S += clip(F(a) - S, -m, m) settles at F(a) whatever the order or timing of what arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from spikemorph.convert.network import Analog, Encoding, Graded, Spike, Spikes, SpikingNetwork, Ternary
from spikemorph.errors import GraphError, LevelsError, expect
from spikemorph.ir.elements import is_sequence
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.ops import Input
from spikemorph.ir.store import graph_hash
from spikemorph.ir.verify import verify

LONGEST = 2**15
"""Steps of a ramp."""


@final
@dataclass(frozen=True, slots=True)
class Lossless:
    """At quiescence every neuron's count equals the quantised network's, exactly.

    Args:
        spike: Ternary(), or Graded(m) for spikes of up to m units.
        input: Analog() injects the input at step 0; Spikes() emits it as a spike train.
        ramp: steps over which an analog input and all biases enter, evenly. The counts at rest are the same.
            With about as many steps as there are levels no layer runs ahead of the one in front: deep
            networks settle in far fewer steps and spikes.
    """

    spike: Spike = Ternary()
    input: Encoding = Analog()
    ramp: int = 1

    def __post_init__(self) -> None:
        expect("Lossless(spike)", self.spike, (Ternary, Graded), "use Ternary() or Graded(4)")
        whole = isinstance(self.ramp, int) and not isinstance(self.ramp, bool)
        if not whole or not 1 <= self.ramp <= LONGEST or (self.ramp > 1 and isinstance(self.input, Spikes)):
            raise LevelsError(
                where="Lossless(ramp)",
                got=f"{self.ramp!r} with {self.input!r}",
                known=f"a whole number in 1..{LONGEST}; above 1 for Analog() inputs",
                do="use the levels of an activation, such as ramp=15, or 1 to inject everything at once",
            )
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
    if method.ramp > 1 and is_sequence(graph):
        raise GraphError(
            where="Lossless(ramp)",
            got="a recurrent network",
            known="a ramp is for feed-forward networks: every element of a sequence would need one",
            do="leave the ramp out",
        )
    encoding = _encoding(graph, method.input)
    return SpikingNetwork(own, method.spike, encoding, graph_hash(graph), ramp=method.ramp)


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
