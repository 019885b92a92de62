"""What is proven of a spiking network before it runs: integer types and the number of steps."""

from __future__ import annotations

from collections.abc import Mapping

from spikemorph.convert.network import Spikes, SpikingNetwork
from spikemorph.errors import GraphError
from spikemorph.evaluate.intervals import Span, spans
from spikemorph.ir import ops
from spikemorph.ir.graph import Node

INTEGER_TYPES: Mapping[str, int] = {"int16": 2**15 - 1, "int32": 2**31 - 1, "int64": 2**53}
"""Largest magnitudes. The last is that of exact float64 integers: nothing beyond it is computed exactly."""


def integer_type(bound: int) -> str:
    """The narrowest type that holds every integer of this magnitude.

    Raises:
        GraphError: larger than any engine computes exactly.
    """
    for name, largest in INTEGER_TYPES.items():
        if bound <= largest:
            return name
    raise GraphError(
        where="the accumulators",
        got=f"integers of up to {bound}",
        known=f"at most {INTEGER_TYPES['int64']}, which float64 holds exactly",
        do="use fewer levels or weight bits, or neurons between the products",
    )


def steps_bound(network: SpikingNetwork) -> int:
    """Steps after which nothing can be in flight, for any input: the longest path of ceil((hi - lo) / m).

    A neuron whose sources have settled has at most hi - lo units to go, m of them in each step; spikes pass
    through all layers within their step. Of a recurrent network: the steps of one element, in which the
    settled counts that it needs are handed over first. A ramp comes before all that.
    """
    found = spans(network.graph)
    until: dict[str, int] = {}
    for node in network.graph.body:
        before = max((until[name] for name in node.inputs), default=0)
        own = _steps_of(network, node, found[node.name])
        if isinstance(node.op, ops.Recurrence):
            before = max(before, own)
        until[node.name] = before + own
    behind = max(until.values(), default=0)
    return behind if network.ramp == 1 else network.ramp - 1 + max(behind, 1)


def _steps_of(network: SpikingNetwork, node: Node, span: Span) -> int:
    coded = isinstance(node.op, ops.Input) and isinstance(network.encoding, Spikes)
    if not coded and not isinstance(node.op, ops.EMITTING):
        return 0
    return -(-int(span.width) // network.spike.largest)
