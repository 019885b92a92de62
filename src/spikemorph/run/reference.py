"""The slow oracle engine: every step of every node in NumPy int64, written for reading.

It shares no arithmetic with the other engines on purpose; `reference_ops` says what one op computes,
this file says when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spikemorph.convert.network import Analog, Spikes, SpikingNetwork
from spikemorph.errors import RunError
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.ops import EMITTING, AxisMap, Conv, Input, Linear, Mul, Readout, Scale
from spikemorph.run.record import Everything, LayerSpikes, Outputs, Record, SpikeCounts
from spikemorph.run.reference_ops import Array, Numbers, same_rank, value
from spikemorph.run.result import Run

LIMIT = 1_000_000
"""Steps after which a run until quiescence gives up; no feed-forward graph of sane counts comes near."""

_MEMORY: tuple[type, ...] = (Input, Mul, Readout, *EMITTING)
_PRICED: tuple[type, ...] = (Conv, Linear, AxisMap, Scale, Mul)

Arrays = Mapping[str, Array]


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
    ) -> Run:
        """Simulate a batch.

        Args:
            counts: input counts by argument number, int64 [batch, *shape], on the grid and clipped.
            steps: how many, at least 1; None: until nothing is in flight in the whole batch.
            record: what else to keep.

        Raises:
            RunError: counts that do not fit, steps below 1, no quiescence within `LIMIT` steps.
        """
        graph, limits = network.graph, _limits(network)
        _check_steps(steps)
        batch = _check_counts(graph, counts)
        numbers = _integers(graph)
        memory = _at_start(graph, counts, batch)
        tally = _Tally.of_nothing(graph, limits, batch)
        frames: list[_Frame] = []
        while True:
            moment = _step(graph, numbers, limits, memory)
            memory = moment.memory
            tally = tally.after(graph, moment)
            if _wanted(record, Outputs, LayerSpikes):
                frames.append(_frame(graph, limits, moment))
            if _is_last(tally.steps, steps, moment.pending):
                return _outcome(graph, moment, tally, frames, record)


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
@dataclass(frozen=True, slots=True)
class _Memory:
    """What a node with memory knows.

    Args:
        arrived: the sum of everything that came from each of its inputs.
        reached: the sum of everything that it sent: a count, a product, a readout.
    """

    arrived: tuple[Array, ...]
    reached: Array


@dataclass(frozen=True, slots=True)
class _Moment:
    """One step.

    Args:
        memory: by node name, after the step.
        deltas: what every node sent in this step, [batch, *shape].
        pending: [batch], whether any node is short of its target after the step.
    """

    memory: Mapping[str, _Memory]
    deltas: Arrays
    pending: npt.NDArray[np.bool_]


def _limits(network: SpikingNetwork) -> Mapping[str, int]:
    """The largest spike of each emitting node. Other nodes with memory follow their target at once."""
    match network.encoding:
        case Analog():
            inputs: tuple[Node, ...] = ()
        case Spikes():
            inputs = network.graph.inputs
        case _:
            assert_never(network.encoding)
    return {node.name: network.spike.largest for node in (*inputs, *network.graph.neurons)}


def _at_start(graph: Graph, counts: tuple[Tensor, ...], batch: int) -> Mapping[str, _Memory]:
    """Nothing has arrived and nothing was sent; an input knows its whole count from the beginning."""
    memory: dict[str, _Memory] = {}
    for node in graph.body:
        if isinstance(node.op, Input):
            arrived: tuple[Array, ...] = (_array(counts[node.op.index]),)
        else:
            arrived = tuple(_zeros(batch, graph.by_name[name].shape) for name in node.inputs)
        if isinstance(node.op, _MEMORY):
            memory[node.name] = _Memory(arrived, _zeros(batch, node.shape))
    return memory


def _step(
    graph: Graph, numbers: Numbers, limits: Mapping[str, int], memory: Mapping[str, _Memory]
) -> _Moment:
    """Every node in order turns what its inputs sent in this step into what it sends itself."""
    deltas: dict[str, Array] = {}
    after: dict[str, _Memory] = {}
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
        gap = value(node.op, arrived, numbers) - before.reached
        limit = limits.get(node.name)
        delta = gap if limit is None else np.clip(gap, -limit, limit)
        deltas[node.name] = delta
        after[node.name] = _Memory(arrived, before.reached + delta)
        short.append(_any_of_sample(delta != gap))
    return _Moment(after, deltas, np.any(np.stack(short), axis=0))


# ---------------------------------------------------------------- bookkeeping
@dataclass(frozen=True, slots=True)
class _Tally:
    """What is counted over all steps; the fields are those of `Run`."""

    steps: int
    sample_steps: Array
    layer_spikes: Arrays
    layer_events: Arrays
    arrivals: Arrays

    @classmethod
    def of_nothing(cls, graph: Graph, emitting: Iterable[str], batch: int) -> _Tally:
        """Before the first step."""
        silent = {node.name: _zeros(batch) for node in graph.body if node.name in emitting}
        priced = [node for node in graph.body if isinstance(node.op, _PRICED)]
        shapes = {
            node.name: node.shape if isinstance(node.op, Mul) else graph.by_name[node.inputs[0]].shape
            for node in priced
        }
        arrivals = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
        return cls(0, _zeros(batch), silent, silent, arrivals)

    def after(self, graph: Graph, moment: _Moment) -> _Tally:
        """With one more step."""
        steps = self.steps + 1
        emitted = {name: moment.deltas[name] for name in self.layer_spikes}
        last = self.sample_steps
        for spikes in emitted.values():
            last = np.where(_any_of_sample(spikes != 0), steps, last)
        return _Tally(
            steps,
            last,
            {name: self.layer_spikes[name] + _sum_of_sample(np.abs(e)) for name, e in emitted.items()},
            {name: self.layer_events[name] + _sum_of_sample(_nonzero(e)) for name, e in emitted.items()},
            {n: old + _arriving(graph.by_name[n], moment.deltas) for n, old in self.arrivals.items()},
        )


def _arriving(node: Node, deltas: Arrays) -> Array:
    """Non-zero entries that reach a node in one step, summed over the batch."""
    arrived = same_rank(tuple(_nonzero(deltas[name]) for name in node.inputs))
    total, *rest = (each.sum(axis=0) for each in arrived)
    for each in rest:
        total = total + each
    return np.asarray(total)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What one step leaves for the record: spikes of emitting nodes, integers of readouts."""

    spikes: Arrays
    raw: Arrays


def _frame(graph: Graph, emitting: Iterable[str], moment: _Moment) -> _Frame:
    spikes = {node.name: moment.deltas[node.name] for node in graph.body if node.name in emitting}
    return _Frame(spikes, _raw(graph, moment))


def _raw(graph: Graph, moment: _Moment) -> Arrays:
    return {node.name: moment.memory[node.name].reached for node in graph.readouts}


def _outcome(
    graph: Graph, moment: _Moment, tally: _Tally, frames: list[_Frame], record: tuple[Record, ...]
) -> Run:
    names = tuple(tally.layer_spikes)
    counts = {name: moment.memory[name].reached for name in names}
    per_step = {name: [each.spikes[name] for each in frames] for name in names}
    layer_steps = {name: np.array([np.abs(e).sum() for e in each]) for name, each in per_step.items()}
    trace = {name: np.stack(each) for name, each in per_step.items()} if _wanted(record) else None
    return Run(
        graph=graph,
        raw=_tensors(_raw(graph, moment)),
        steps=tally.steps,
        sample_steps=torch.from_numpy(tally.sample_steps),
        settled=torch.from_numpy(~moment.pending),
        layer_spikes=_tensors(tally.layer_spikes),
        layer_events=_tensors(tally.layer_events),
        arrivals=_tensors(tally.arrivals),
        counts=_tensors(counts) if _wanted(record, SpikeCounts) else None,
        raws=tuple(_tensors(each.raw) for each in frames) if _wanted(record, Outputs) else None,
        layer_steps=_tensors(layer_steps) if _wanted(record, LayerSpikes) else None,
        trace=None if trace is None else _tensors(trace),
    )


def _wanted(record: tuple[Record, ...], *kinds: type) -> bool:
    """Whether any of these kinds, or everything, is to be kept."""
    return any(isinstance(each, (*kinds, Everything)) for each in record)


def _nonzero(x: Array) -> Array:
    return np.where(x != 0, 1, 0)


def _any_of_sample(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return np.asarray(mask.any(axis=tuple(range(1, mask.ndim))))


def _sum_of_sample(x: Array) -> Array:
    return np.asarray(x.sum(axis=tuple(range(1, x.ndim))), np.int64)


# ---------------------------------------------------------------- torch in, torch out
def _integers(graph: Graph) -> Numbers:
    """Weights, breakpoints, biases as int64. What is left out are scales and units, for decoding."""
    return {name: _array(each) for name, each in graph.tensors.items() if not each.is_floating_point()}


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().to(torch.int64).numpy(), np.int64)


def _zeros(batch: int, shape: tuple[int, ...] = ()) -> Array:
    return np.zeros((batch, *shape), np.int64)


def _tensors(arrays: Arrays) -> Mapping[str, Tensor]:
    return {name: torch.from_numpy(np.array(each, np.int64)) for name, each in arrays.items()}


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
