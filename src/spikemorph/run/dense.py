"""The dense engine: every step as torch tensors, all neurons at once, integers in float64.

float64 adds integers below 2**53 exactly in any order, and torch runs no transform algorithm on it;
float32 convolutions are not exact even below 2**24 where the backend picks one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from spikemorph.convert.network import Spikes, SpikingNetwork
from spikemorph.errors import RunError
from spikemorph.evaluate import pooling
from spikemorph.evaluate.integers import with_bias
from spikemorph.evaluate.linear import LINEAR, LINEAR_OPS, align_ranks
from spikemorph.evaluate.steps import step_function
from spikemorph.ir import ops
from spikemorph.ir.graph import Node
from spikemorph.ir.table import OpTable
from spikemorph.run.record import Record
from spikemorph.run.result import Run
from spikemorph.run.tally import Tally

State = Mapping[str, tuple[Tensor, ...]]
"""By node: (accumulator or source counts, count), or the running factors of a product."""


@final
@dataclass(frozen=True)
class Stepped:
    """What one node did in one step: its new state, what it sends on, and where it is still pending."""

    state: tuple[Tensor, ...]
    delta: Tensor
    pending: Tensor | None = None


@final
@dataclass(frozen=True)
class Moment:
    """One node at one step: its state before, what arrives, and the network around it."""

    node: Node
    network: SpikingNetwork
    state: tuple[Tensor, ...]
    arriving: tuple[Tensor, ...]


Rule = Callable[[Moment], Stepped]
DENSE: OpTable[Rule] = OpTable("dense", ops.INTEGER_OPS, dict.fromkeys(ops.HOST, "computed after decoding"))


@final
@dataclass(frozen=True, slots=True)
class Dense:
    """Torch engine, any device.

    Args:
        device: where to run; results come back to the CPU.
    """

    device: str = "cpu"

    def __post_init__(self) -> None:
        try:
            torch.zeros(1, device=self.device).cpu()
        except Exception as error:  # torch raises several types, and NotImplementedError for "meta"
            raise RunError(
                where="Dense(device)",
                got=f"{self.device!r}: {error}",
                known="a device of this machine's torch, such as cpu or cuda",
                do="use Dense() for the CPU",
            ) from error

    def run(
        self,
        network: SpikingNetwork,
        counts: tuple[Tensor, ...],
        *,
        steps: int | None,
        record: tuple[Record, ...],
    ) -> Run:
        """Simulate `steps` steps, or until quiescent; counts are int64 [batch, *shape] on the input grid."""
        network = _on(network, self.device)
        inputs = tuple(each.to(self.device, torch.float64) for each in counts)
        state: State = {}
        tally = Tally.begin(network, inputs[0].shape[0], record)
        with torch.no_grad():
            while steps is None or tally.steps < steps:
                state, deltas, pending = _step(network, state, inputs, tally)
                tally.advance(deltas, pending, _raw(network, state))
                if steps is None and not bool(pending.any()):
                    break
        return tally.finish({node.name: state[node.name][1] for node in tally.emitting})


def _on(network: SpikingNetwork, device: str) -> SpikingNetwork:
    tensors = {name: each.to(device) for name, each in network.graph.tensors.items()}
    graph = network.graph.with_nodes(network.graph.nodes, tensors=tensors)
    return SpikingNetwork(graph, network.spike, network.encoding, network.source)


def _step(
    network: SpikingNetwork, state: State, inputs: tuple[Tensor, ...], tally: Tally
) -> tuple[State, dict[str, Tensor], Tensor]:
    """All nodes once, in data-flow order: a spike passes through every layer within its step."""
    after: dict[str, tuple[Tensor, ...]] = {}
    deltas: dict[str, Tensor] = {}
    pending = torch.zeros(inputs[0].shape[0], dtype=torch.bool, device=inputs[0].device)
    for node in network.graph.body:
        if isinstance(node.op, ops.Input):
            arriving: tuple[Tensor, ...] = (inputs[node.op.index],)
        else:
            arriving = tuple(deltas[name] for name in node.inputs)
            tally.arrive(node, arriving)
        moment = Moment(node, network, state.get(node.name, ()), arriving)
        done = DENSE[type(node.op)](moment)
        after[node.name], deltas[node.name] = done.state, done.delta
        if done.pending is not None:
            pending |= done.pending.reshape(pending.shape[0], -1).any(1)
    return after, deltas, pending


def _raw(network: SpikingNetwork, state: State) -> dict[str, Tensor]:
    raw = {}
    for node in network.graph.readouts:
        assert isinstance(node.op, ops.Readout)
        raw[node.name] = with_bias(node.op, state[node.name][0], network.graph.tensors)
    return raw


def _emit(moment: Moment, kept: Tensor, target: Tensor) -> Stepped:
    """One spike towards the target: S += clip(target - S, -m, m)."""
    m = moment.network.spike.largest
    count = moment.state[1] if moment.state else torch.zeros_like(target)
    spike = (target - count).clamp(-m, m)
    count = count + spike
    return Stepped((kept, count), spike, count != target)


def _accumulate(moment: Moment) -> Tensor:
    return moment.state[0] + moment.arriving[0] if moment.state else moment.arriving[0]


@DENSE.rule(ops.Input)
def _input(moment: Moment) -> Stepped:
    (count,) = moment.arriving
    if isinstance(moment.network.encoding, Spikes):
        return _emit(moment, count, count)
    injected = torch.zeros_like(count) if moment.state else count
    return Stepped((count,), injected)


@DENSE.rule(*(LINEAR_OPS & ops.INTEGER_OPS))
def _linear(moment: Moment) -> Stepped:
    node, tensors = moment.node, moment.network.graph.tensors
    return Stepped((), LINEAR[type(node.op)](node.op, moment.arriving, tensors))


@DENSE.rule(ops.Mul)
def _mul(moment: Moment) -> Stepped:
    """A_t B_t - A_(t-1) B_(t-1) of the running sums A and B."""
    a, b = align_ranks(*moment.arriving)
    if moment.state:
        a, b = a + moment.state[0], b + moment.state[1]
    product = a * b
    return Stepped((a, b, product), product - moment.state[2] if moment.state else product)


@DENSE.rule(ops.Neuron)
def _neuron(moment: Moment) -> Stepped:
    op, tensors = moment.node.op, moment.network.graph.tensors
    assert isinstance(op, ops.Neuron)
    acc = _accumulate(moment)
    target = step_function(op, with_bias(op, acc, tensors), tensors, moment.node.shape)
    return _emit(moment, acc, target)


@DENSE.rule(ops.MaxPool, ops.AMax)
def _maximum(moment: Moment) -> Stepped:
    assert isinstance(moment.node.op, ops.MaxPool | ops.AMax)
    counts = _accumulate(moment)
    return _emit(moment, counts, pooling.maximum(moment.node.op, counts))


@DENSE.rule(ops.Readout)
def _readout(moment: Moment) -> Stepped:
    return Stepped((_accumulate(moment),), moment.arriving[0])
