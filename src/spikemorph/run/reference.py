"""The slow oracle engine: every step of every node in NumPy int64, written for reading.

It shares no arithmetic with the other engines on purpose; `reference_ops` says what one op computes,
this file says when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spikemorph.convert.network import Analog, Spikes, SpikingNetwork, smallest
from spikemorph.errors import RunError
from spikemorph.evaluate.lengths import ended, valid_lengths
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.ops import EMITTING, Input, Mul, Readout
from spikemorph.run.cells import Cell, plan_of
from spikemorph.run.handover import FRESH, Delta, Handover, Replay, replay_refused
from spikemorph.run.record import Record
from spikemorph.run.reference_books import (
    Books,
    Memory,
    Moment,
    Tally,
    any_of_sample,
    array,
    integers,
    tensors,
    zeros,
)
from spikemorph.run.reference_ops import Array, Numbers, value
from spikemorph.run.result import Run
from spikemorph.run.settled import Settled

LIMIT = 1_000_000
"""Steps after which a run until quiescence gives up; no feed-forward graph of sane counts comes near."""

_MEMORY: tuple[type, ...] = (Input, Mul, Readout, *EMITTING)


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """The oracle of every test: slow, plain, exact."""

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
        """Simulate a batch, element by element.

        Args:
            counts: input counts by argument number, int64 [batch, *shape], on the grid and clipped.
            steps: how many an element, at least 1; None: until nothing is in flight in the whole batch.
            record: what else to keep.
            handover: how settled counts reach the next element; `Replay` is for the dense engine only.
            lengths: [batch], elements of each sample.

        Raises:
            RunError: counts that do not fit, steps below 1, no quiescence within `LIMIT` steps.
        """
        _check_steps(steps)
        _check_counts(network.graph, counts)
        if isinstance(handover, Replay):
            raise replay_refused("the reference engine")
        counts = ended(network.graph, counts, lengths)
        plan = plan_of(network.graph, buffered_input=isinstance(network.encoding, Spikes))
        valid = valid_lengths(network.graph, lengths, len(counts[0]))
        settled = Settled.begin(plan, counts, valid)
        reported = [name for cell in plan.cells for name in emitted_as(network, cell).values()]
        books = Books.empty(plan, reported, len(counts[0]))
        memory: Mapping[str, Memory] = {}
        before: Cell | None = None
        for cell in plan.cells:
            goes_on = isinstance(handover, Delta) and before is not None and before.layout == cell.layout
            targets = settled.targets(cell)
            memory = _at_start(cell, targets, len(counts[0]), memory if goes_on else {})
            holds = {
                name: (inside.numpy(), array(kept))
                for name, (inside, kept) in settled.holds(cell, targets).items()
            }
            memory = _play(network, cell, memory, holds, (steps, record, books))
            settled.keep(cell, tensors({port.local: memory[port.local].reached for port in cell.emitters}))
            before = cell
        coded = zip(network.graph.inputs, counts, strict=True) if isinstance(network.encoding, Spikes) else ()
        sent = {node.name: each for node, each in coded}
        return books.outcome(network, {**sent, **settled.counts}, record)


def _play(
    network: SpikingNetwork,
    cell: Cell,
    memory: Mapping[str, Memory],
    holds: Holds,
    how: tuple[int | None, tuple[Record, ...], Books],
) -> Mapping[str, Memory]:
    """One element, step by step; the books are kept on the way."""
    steps, record, books = how
    names, most = emitted_as(network, cell), network.spike.largest
    limits = {name: (smallest(network.spike, cell.graph.by_name[name].op), most) for name in names}
    numbers = integers(cell.graph)
    inputs = {node.name: memory[node.name].arrived for node in cell.graph.inputs}
    tally = Tally.of_nothing(cell.graph, limits, books.batch)
    while True:
        now, ramp = tally.steps + 1, network.ramp
        if cell.graph.dialect is Dialect.RATE or now <= ramp:
            numbers = _with_biases(cell.graph, integers(cell.graph), now, ramp)
        given = {name: entered(whole, now, ramp) for name, whole in inputs.items()}
        memory = {name: replace(each, arrived=given.get(name, each.arrived)) for name, each in memory.items()}
        moment = _step(cell.graph, numbers, limits, memory, holds)
        moment = replace(moment, pending=moment.pending | (now < ramp))
        memory = moment.memory
        tally = tally.after(cell.graph, moment)
        books.step(cell, names, moment, record)
        if _is_last(tally.steps, steps, moment.pending):
            books.element(cell, names, tally, ~moment.pending)
            return memory


def _with_biases(graph: Graph, numbers: Numbers, now: int, ramp: int) -> Numbers:
    """Biases as they have added up: a rate graph has them again at every step, a ramp has a part of them."""
    found = dict(numbers)
    for node in graph.body:
        name = getattr(node.op, "bias", None)
        if name is not None:
            again = graph.dialect is Dialect.RATE
            found[name] = now * numbers[name] if again else entered((numbers[name],), now, ramp)[0]
    return found


def entered(whole: tuple[Array, ...], steps: int, ramp: int) -> tuple[Array, ...]:
    """What of an input has entered after so many steps of a ramp: round(whole * steps / ramp)."""
    if steps >= ramp:
        return whole
    return tuple(np.asarray((2 * each * steps + ramp) // (2 * ramp), np.int64) for each in whole)


def _is_last(done: int, steps: int | None, pending: npt.NDArray[np.bool_]) -> bool:
    if steps is not None:
        return done == steps
    if pending.any() and done >= LIMIT:
        raise RunError(
            where="simulate(steps=None)",
            got=f"{int(pending.sum())} of {pending.size} samples still in flight after {done} steps",
            known="a run until quiescence ends within the proven bound of steps",
            do="give steps=n for a run of n steps, or use larger graded spikes",
        )
    return not pending.any()


# ---------------------------------------------------------------- dynamics
def emitted_as(network: SpikingNetwork, cell: Cell) -> dict[str, str]:
    """What every node of a cell that spikes is reported as. Other nodes with memory follow at once."""
    found: dict[str, str] = {}
    for port in cell.inputs:
        match network.encoding:
            case _ if port.held:
                found[port.local] = f"{port.name}.handover"
            case Analog() | Spikes() if not port.name:
                pass
            case Analog():
                pass
            case Spikes():
                found[port.local] = port.name
            case _:
                assert_never(network.encoding)
    return found | {port.local: port.name for port in cell.emitters}


def _at_start(
    cell: Cell, targets: tuple[Tensor, ...], batch: int, before: Mapping[str, Memory]
) -> Mapping[str, Memory]:
    """Nothing has arrived and nothing was sent, or all is as it was; an input knows its whole count."""
    graph, memory = cell.graph, dict[str, Memory]()
    for node in graph.body:
        if isinstance(node.op, Input):
            arrived: tuple[Array, ...] = (array(targets[node.op.index]),)
        else:
            arrived = tuple(zeros(batch, graph.by_name[name].shape) for name in node.inputs)
        if isinstance(node.op, _MEMORY):
            memory[node.name] = Memory(arrived, zeros(batch, node.shape))
            if node.name in before:
                old = before[node.name]
                memory[node.name] = Memory(
                    arrived if isinstance(node.op, Input) else old.arrived, old.reached
                )
    return memory


Holds = Mapping[str, tuple[npt.NDArray[np.bool_], Array]]
"""Where a neuron takes part, and the count it keeps elsewhere."""


def _step(
    graph: Graph,
    numbers: Numbers,
    limits: Mapping[str, tuple[int, int]],
    memory: Mapping[str, Memory],
    holds: Holds,
) -> Moment:
    """Every node in order turns what its inputs sent in this step into what it sends itself.

    The input of a rate graph is sent again at every step.
    """
    again = graph.dialect is Dialect.RATE
    deltas: dict[str, Array] = {}
    after: dict[str, Memory] = {}
    short: list[npt.NDArray[np.bool_]] = []
    for node in graph.body:
        sent = tuple(deltas[name] for name in node.inputs)
        if node.name not in memory:
            deltas[node.name] = value(node.op, sent, numbers)
            continue
        before = memory[node.name]
        arrived = before.arrived
        if node.inputs:
            arrived = tuple(total + delta for total, delta in zip(arrived, sent, strict=True))
        target = value(node.op, arrived, numbers)
        if node.name in holds:
            inside, kept = holds[node.name]
            target = np.where(inside, target, kept)
        reached = np.zeros_like(target) if again and isinstance(node.op, Input) else before.reached
        gap = target - reached
        delta = np.clip(gap, *limits[node.name]) if node.name in limits else gap
        deltas[node.name] = delta
        after[node.name] = Memory(arrived, reached + delta)
        short.append(any_of_sample(delta != gap))
    return Moment(after, deltas, np.any(np.stack(short), axis=0))


# ---------------------------------------------------------------- checks
def _check_steps(steps: int | None) -> None:
    if steps is not None and steps < 1:
        raise RunError(
            where="simulate(steps)",
            got=repr(steps),
            known="a whole number of at least 1, or None for a run until quiescence",
            do="give the number of steps to simulate",
        )


def _check_counts(graph: Graph, counts: tuple[Tensor, ...]) -> int:
    """The batch size."""
    wanted = ", ".join(f"[batch, {', '.join(map(str, node.shape))}]" for node in graph.inputs)
    if len(counts) != len(graph.inputs):
        raise _misfit("counts", f"{len(counts)} tensors", f"{len(graph.inputs)} of them: {wanted}")
    batch = counts[0].shape[0] if counts[0].dim() else 0
    for node, each in zip(graph.inputs, counts, strict=True):
        where = f"counts of input {node.name}"
        if each.dtype != torch.int64:
            raise _misfit(where, str(each.dtype), str(torch.int64))
        if tuple(each.shape) != (batch, *node.shape):
            raise _misfit(where, f"shape {list(each.shape)}", f"{[batch, *node.shape]} in a batch of {batch}")
    return batch


def _misfit(where: str, got: str, known: str) -> RunError:
    return RunError(
        where=where,
        got=got,
        known=known,
        do="encode the inputs with the network's own grid, one tensor for each argument",
    )
