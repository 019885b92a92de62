"""From a float graph to integrate-and-fire neurons in integers: what all rate conversions share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import final

import torch

from spikemorph.convert.balance import Balanced, neurons
from spikemorph.convert.network import Analog, Spike, SpikingNetwork, Window
from spikemorph.errors import GraphError, LevelsError
from spikemorph.ir import ops
from spikemorph.ir.functions import Clamp, Relu
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.store import graph_hash
from spikemorph.passes import plan as plan_graph
from spikemorph.passes.absorb import absorb_gains
from spikemorph.passes.levels import Levels, PerChannel, PerTensor
from spikemorph.passes.lower import lower_batch_norms
from spikemorph.passes.prune import prune
from spikemorph.passes.weigh import weigh_gains
from spikemorph.quantise.integer import rate_graph
from spikemorph.quantise.network import QuantisedNetwork

LARGEST_BIAS = 2**18
"""On the grid of an accumulator, of biases and thresholds: half of int32 is left for 2**12 steps."""
ROOM = 1024
"""Steps that counts have room for, halved until every accumulator fits int32."""
LEAST_ROOM = 64


@final
@dataclass(frozen=True)
class Planned:
    """A graph of neurons to be, the levels it was planned with, and the float graph it came from."""

    graph: Graph
    levels: Levels
    source: Graph


def planned(graph: Graph, *, per_channel: bool, weight_bits: int) -> Planned:
    """Neurons to be, where maps compose; gains are in the weights.

    Raises:
        GraphError: no float graph, or ops whose result does not grow in proportion with time.
    """
    if graph.dialect is not Dialect.FLOAT:
        raise GraphError(
            where="the graph",
            got=f"dialect {graph.dialect.value}",
            known="rate-coded conversion takes the captured float graph",
            do="pass the result of capture(model, example_inputs)",
        )
    granularity = PerChannel() if per_channel else PerTensor()
    levels = Levels(activation=255, identity=255, weight_bits=weight_bits, granularity=granularity)
    weighed = weigh_gains(absorb_gains(lower_batch_norms(prune(graph))))
    made = _guarded_pools(absorb_gains(plan_graph(weighed, levels)))
    refused = [(node, why) for node in made.body if (why := _unfit(made, node)) is not None]
    if refused:
        raise GraphError(
            where="; ".join(f"'{node.name}', {node.origin}" for node, _ in refused[:5]),
            got="; ".join(dict.fromkeys(why for _, why in refused)),
            known="rates carry ReLU, ReLU6 and clamps at 0, max-pools behind them, and everything linear",
            do="convert with Lossless(), which takes any activation and products",
        )
    return Planned(made, levels, graph)


def _unfit(graph: Graph, node: Node) -> str | None:
    """Why the rate of a node does not follow the rates of its inputs; None where it does."""
    match node.op:
        case ops.Mul():
            return "a product: of two rates it would grow with the square of time"
        case ops.Recurrence():
            return "a recurrence"
        case ops.Quantiser(chain=chain):
            for link in chain:
                if not isinstance(link, Relu) and not (isinstance(link, Clamp) and link.lo == 0):
                    return f"the activation {type(link).__name__}"
    return None


def _guarded_pools(graph: Graph) -> Graph:
    """An identity neuron in front of every maximum of something that sends no spikes: it follows counts."""
    pools = [node for node in graph.body if isinstance(node.op, ops.MaxPool | ops.AMax)]
    emitting = ops.Quantiser | ops.MaxPool | ops.AMax
    bare = {node.inputs[0] for node in pools if not isinstance(graph.by_name[node.inputs[0]].op, emitting)}
    return guarded(graph, dict.fromkeys(bare, "a maximum follows counts"), pools)


def guarded(graph: Graph, reasons: Mapping[str, str], readers: Collection[Node]) -> Graph:
    """Identity neurons behind these values, read by these nodes instead of the values."""
    names, nodes = {each.name for each in readers}, list[Node]()
    for node in graph.nodes:
        if node.name in names:
            inputs = tuple(f"{name}.identity" if name in reasons else name for name in node.inputs)
            node = replace(node, inputs=inputs)
        nodes.append(node)
        if node.name in reasons:
            lo, hi = -ROOM, ROOM
            op = ops.Quantiser((), lo, hi, False, reasons[node.name])
            nodes.append(replace(node, name=f"{node.name}.identity", op=op, inputs=(node.name,)))
    return graph.with_nodes(nodes)


def built(
    plan: Planned,
    calibrate: Callable[[Graph], Balanced],
    spike: Spike,
    window: Callable[[Graph, Balanced], Window],
) -> SpikingNetwork:
    """The network for thresholds that calibration finds.

    Where sums leave no room for steps, since every branch is on a grid of its own, identity neurons bring the
    branches on counts.

    Raises:
        LevelsError: accumulators that leave int32 within a few steps all the same.
    """
    found = calibrate(plan.graph)
    try:
        return spiking(plan, found, spike, window(plan.graph, found))
    except LevelsError as error:
        sums = [node for node in plan.graph.body if isinstance(node.op, ops.Add)]
        bare = {
            name
            for node in sums
            for name in node.inputs
            if not isinstance(plan.graph.by_name[name].op, ops.Quantiser)
        }
        if not bare:
            raise LevelsError(
                where=error.where,
                got=error.got,
                known=error.known,
                do="use fewer weight bits, such as TrainingFree(weight_bits=6), or convert with Lossless()",
            ) from error
        reasons = dict.fromkeys(bare, "its branches would leave a sum no room for steps")
        tighter = replace(plan, graph=guarded(plan.graph, reasons, sums))
        return built(tighter, calibrate, spike, window)


def spiking(plan: Planned, found: Balanced, spike: Spike, window: Window) -> SpikingNetwork:
    """The network on integer grids.

    Raises:
        LevelsError: accumulators that leave int32 within a few steps.
    """
    network = QuantisedNetwork(plan.graph, plan.levels)
    network.lay(found.thresholds, found.inputs)
    _coarsen(network)
    room = ROOM * spike.largest
    while True:
        try:
            rates = rate_graph(network, room)
            break
        except LevelsError:
            room //= 2
            if room < LEAST_ROOM * spike.largest:
                raise
    bits = max(
        node.op.hi.bit_length() + (node.op.lo < 0) for node in rates.inputs if isinstance(node.op, ops.Input)
    )
    return SpikingNetwork(rates, spike, Analog(bits), graph_hash(plan.source), window)


def _coarsen(network: QuantisedNetwork) -> None:
    """Channels whose weights are tiny beside their bias or threshold get coarser weights, in place.

    Their integers would leave no room for steps: a bias enters again in every one.
    """
    cells = network.cells()
    for node in neurons(network.graph):
        source, acc = network.graph.by_name[node.inputs[0]], cells[node.name].source
        if not isinstance(source.op, ops.Conv | ops.Linear) or acc is None:
            continue
        axis = 0 if isinstance(source.op, ops.Conv) else len(source.shape) - 1
        sizes = [cells[node.name].unit, cells[source.name].offset]
        largest = [(each / acc.unit).abs().expand(source.shape) for each in sizes if each is not None]
        over = torch.stack(largest).movedim(axis + 1, 0).flatten(1).amax(1) / LARGEST_BIAS
        if bool((over > 1).any()):
            step = network.weight_step(source, acc.unit, 0)
            network.set_step(source, step * over.clamp(min=1))


def first_spikes(graph: Graph, found: Balanced) -> int:
    """Steps until the first spikes have come through the longest chain of neurons.

    A layer needs (threshold - v(0)) / E[activation] steps for its earliest channel, v(0) = threshold / 2
    (arXiv 2409.03368, section 4.3).
    """
    after: dict[str, float] = {}
    for node in graph.nodes:
        before = max((after[name] for name in node.inputs), default=0.0)
        own = _wait(found, node.name) if isinstance(node.op, ops.Quantiser) else 0.0
        after[node.name] = before + own
    return math.ceil(max((after[name] for name in graph.outputs), default=0.0))


def _wait(found: Balanced, name: str) -> float:
    mean, threshold = found.means[name], found.thresholds[name]
    live = mean > 0
    return float((threshold[live] / 2 / mean[live]).min()) if bool(live.any()) else 0.0


Progress = Callable[[int, int], None]


__all__ = ["built", "first_spikes", "neurons", "planned", "Progress", "spiking"]
