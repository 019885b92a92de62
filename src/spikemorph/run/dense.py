"""The dense engine: every step as torch tensors, all neurons at once, integers in float64.

float64 adds integers below 2**53 exactly in any order, and torch runs no transform algorithm on it;
float32 convolutions are not exact even below 2**24 where the backend picks one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from spikemorph.convert.network import Spikes, SpikingNetwork, smallest
from spikemorph.errors import RunError
from spikemorph.evaluate import pooling
from spikemorph.evaluate.integers import with_bias
from spikemorph.evaluate.intervals import driven, ramped
from spikemorph.evaluate.lengths import ended, valid_lengths
from spikemorph.evaluate.linear import LINEAR, LINEAR_OPS, align_ranks
from spikemorph.evaluate.steps import staircase, step_function
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Node
from spikemorph.ir.table import OpTable
from spikemorph.run.cells import Cell, plan_of
from spikemorph.run.handover import FRESH, Delta, Handover, Replay, replay_refused
from spikemorph.run.record import Record
from spikemorph.run.result import Run
from spikemorph.run.settled import Holds, Settled
from spikemorph.run.tally import Tally, emissions

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
    """One node at one step: its state before, what arrives, and how it sends.

    Args:
        sizes: the smallest and the largest spike; None: an input that is injected at once.
        hold: where the node takes part, and the count it keeps elsewhere.
    """

    node: Node
    tensors: Mapping[str, Tensor]
    state: tuple[Tensor, ...]
    arriving: tuple[Tensor, ...]
    sizes: tuple[int, int] | None
    hold: tuple[Tensor, Tensor] | None = None


Rule = Callable[[Moment], Stepped]
DENSE: OpTable[Rule] = OpTable(
    "dense",
    ops.SPIKING_OPS,
    {ops.Recurrence: "runs as cells", **dict.fromkeys(ops.HOST, "computed after decoding")},
)


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
        handover: Handover = FRESH,
        lengths: Tensor | None = None,
    ) -> Run:
        """Simulate each element for `steps` steps, or until quiescent.

        Args:
            counts: int64 [batch, *shape] on the input grid, one tensor an argument.
        """
        plan = plan_of(network.graph, buffered_input=isinstance(network.encoding, Spikes))
        if steps is None and isinstance(handover, Replay):
            raise replay_refused("steps=None")
        counts = ended(network.graph, counts, lengths)
        inputs = tuple(each.to(self.device, torch.float64) for each in counts)
        valid = valid_lengths(network.graph, lengths, len(counts[0]))
        tally = Tally.begin(network, plan, len(counts[0]), record)
        settled = Settled.begin(plan, inputs, valid)
        places = _Places(self.device)
        state: State = {}
        before: Cell | None = None
        played: list[Mapping[str, Tensor]] = []
        with torch.no_grad():
            for cell in plan.cells:
                goes_on = isinstance(handover, Delta) and before is not None and before.layout == cell.layout
                state = state if goes_on else {}
                element = _Element(network, cell, places.tensors(cell), settled.targets(cell), tally)
                holds = settled.holds(cell, element.targets)
                replayed = played if isinstance(handover, Replay) else None
                state, played = element.play(state, holds, steps, replayed)
                settled.keep(cell, {port.local: state[port.local][1] for port in cell.emitters})
                before = cell
        coded = zip(network.graph.inputs, inputs, strict=True) if isinstance(network.encoding, Spikes) else ()
        return tally.finish({**{node.name: each for node, each in coded}, **settled.counts})


class _Places:
    """Tensors of cells on the device, whole numbers as float64, each moved once."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._moved: dict[int, tuple[Tensor, Tensor]] = {}

    def tensors(self, cell: Cell) -> dict[str, Tensor]:
        return {name: self._on(tensor) for name, tensor in cell.graph.tensors.items()}

    def _on(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._moved:
            self._moved[id(tensor)] = tensor, tensor.to(self.device, torch.float64)
        return self._moved[id(tensor)][1]


@final
@dataclass(frozen=True)
class _Element:
    """One element of a run: a cell and what its inputs stand for."""

    network: SpikingNetwork
    cell: Cell
    tensors: Mapping[str, Tensor]
    targets: tuple[Tensor, ...]
    tally: Tally

    def play(
        self, state: State, holds: Holds, steps: int | None, replayed: list[Mapping[str, Tensor]] | None
    ) -> tuple[State, list[Mapping[str, Tensor]]]:
        """Step by step until quiescent, or `steps` times; the last state, and what every step sent."""
        sent: list[Mapping[str, Tensor]] = []
        sending = emissions(self.network, self.cell)
        self.tally.open(self.cell)
        while steps is None or len(sent) < steps:
            raw = None if replayed is None else self._raw_train(replayed, len(sent))
            tensors = self._driven(len(sent) + 1)
            state, deltas, pending = self._step((tensors, len(sent) + 1), state, sending, holds, raw)
            pending |= len(sent) + 1 < self.network.ramp
            self.tally.advance(self.cell, deltas, pending, self._readouts(state, tensors))
            sent.append(
                {port.name: deltas[port.local] for port in self.cell.emitters} if raw is not None else {}
            )
            if steps is None and not bool(pending.any()):
                break
        return state, sent

    def _raw_train(self, replayed: list[Mapping[str, Tensor]], step: int) -> dict[str, Tensor]:
        """What held inputs send under `Replay`: the train of their neurons, one element late."""
        held = [
            (port, target) for port, target in zip(self.cell.inputs, self.targets, strict=True) if port.held
        ]
        before = replayed[step] if step < len(replayed) else {}
        return {
            port.local: before[port.name] if port.name in before else torch.zeros_like(target)
            for port, target in held
        }

    def _driven(self, steps: int) -> Mapping[str, Tensor]:
        """The tensors, biases as they have added up."""
        if self.cell.graph.dialect is not Dialect.RATE and steps >= self.network.ramp:
            return self.tensors
        return driven(replace(self.cell.graph, tensors=self.tensors), steps, self.network.ramp)

    def _step(
        self,
        now: tuple[Mapping[str, Tensor], int],
        state: State,
        sending: Mapping[str, str],
        holds: Holds,
        replay: Mapping[str, Tensor] | None,
    ) -> tuple[State, dict[str, Tensor], Tensor]:
        """All nodes once, in data-flow order: a spike passes through every layer within its step."""
        tensors, steps = now
        after: dict[str, tuple[Tensor, ...]] = {}
        deltas: dict[str, Tensor] = {}
        first = self.targets[0]
        pending = torch.zeros(len(first), dtype=torch.bool, device=first.device)
        for node in self.cell.graph.body:
            if replay is not None and node.name in replay:
                deltas[node.name] = replay[node.name]
                continue
            if isinstance(node.op, ops.Input):
                whole = self.targets[node.op.index]
                arriving: tuple[Tensor, ...] = (ramped(whole, steps, self.network.ramp),)
            else:
                arriving = tuple(deltas[name] for name in node.inputs)
                self.tally.arrive(self.cell, node, arriving)
            spike = self.network.spike
            sizes = (smallest(spike, node.op), spike.largest) if node.name in sending else None
            again = isinstance(node.op, ops.Input) and self.cell.graph.dialect is Dialect.RATE
            own, hold = () if again else state.get(node.name, ()), holds.get(node.name)
            done = DENSE[type(node.op)](Moment(node, tensors, own, arriving, sizes, hold))
            after[node.name], deltas[node.name] = done.state, done.delta
            if done.pending is not None:
                pending |= done.pending.reshape(pending.shape[0], -1).any(1)
        return after, deltas, pending

    def _readouts(self, state: State, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raw = {}
        for port in self.cell.readouts:
            op = self.cell.graph.by_name[port.local].op
            assert isinstance(op, ops.Readout)
            raw[port.local] = with_bias(op, state[port.local][0], tensors)
        return raw


def _emit(moment: Moment, kept: Tensor, target: Tensor) -> Stepped:
    """One spike towards the target: S += clip(target - S, -m, m)."""
    assert moment.sizes is not None
    if moment.hold is not None:
        target = torch.where(moment.hold[0], target, moment.hold[1])
    count = moment.state[1] if moment.state else torch.zeros_like(target)
    spike = (target - count).clamp(*moment.sizes)
    count = count + spike
    return Stepped((kept, count), spike, count != target)


def _accumulate(moment: Moment) -> Tensor:
    return moment.state[0] + moment.arriving[0] if moment.state else moment.arriving[0]


@DENSE.rule(ops.Input)
def _input(moment: Moment) -> Stepped:
    (count,) = moment.arriving
    if moment.sizes is not None:
        return _emit(moment, count, count)
    return Stepped((count,), count - moment.state[0] if moment.state else count)


@DENSE.rule(*(LINEAR_OPS & ops.SPIKING_OPS))
def _linear(moment: Moment) -> Stepped:
    node = moment.node
    return Stepped((), LINEAR[type(node.op)](node.op, moment.arriving, moment.tensors))


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
    op, tensors = moment.node.op, moment.tensors
    assert isinstance(op, ops.Neuron)
    acc = _accumulate(moment)
    target = step_function(op, with_bias(op, acc, tensors), tensors, moment.node.shape)
    return _emit(moment, acc, target)


@DENSE.rule(ops.IntegrateFire)
def _integrate_fire(moment: Moment) -> Stepped:
    op, tensors = moment.node.op, moment.tensors
    assert isinstance(op, ops.IntegrateFire)
    acc = _accumulate(moment)
    return _emit(moment, acc, staircase(op, with_bias(op, acc, tensors), tensors))


@DENSE.rule(ops.MaxPool, ops.AMax)
def _maximum(moment: Moment) -> Stepped:
    assert isinstance(moment.node.op, ops.MaxPool | ops.AMax)
    counts = _accumulate(moment)
    return _emit(moment, counts, pooling.maximum(moment.node.op, counts))


@DENSE.rule(ops.Readout)
def _readout(moment: Moment) -> Stepped:
    return Stepped((_accumulate(moment),), moment.arriving[0])
