"""The books of the reference engine: what it counts and keeps while it steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.ops import AxisMap, Conv, Linear, Mul, Scale
from spikemorph.run.cells import Cell, Plan
from spikemorph.run.record import Everything, LayerSpikes, Outputs, Record, SpikeCounts, kept_steps
from spikemorph.run.reference_ops import Array, Numbers, same_rank
from spikemorph.run.result import Run, Work

PRICED: tuple[type, ...] = (Conv, Linear, AxisMap, Scale, Mul)

Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Memory:
    """What a node with memory knows.

    Args:
        arrived: the sum of everything that came from each of its inputs.
        reached: the sum of everything that it sent: a count, a product, a readout.
    """

    arrived: tuple[Array, ...]
    reached: Array


@dataclass(frozen=True, slots=True)
class Moment:
    """One step.

    Args:
        memory: by node name, after the step.
        deltas: what every node sent in this step, [batch, *shape].
        pending: [batch], whether any node is short of its target after the step.
    """

    memory: Mapping[str, Memory]
    deltas: Arrays
    pending: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted over all steps; the fields are those of `Run`."""

    steps: int
    sample_steps: Array
    layer_spikes: Arrays
    layer_events: Arrays
    arrivals: Arrays

    @classmethod
    def of_nothing(cls, graph: Graph, emitting: Iterable[str], batch: int) -> Tally:
        """Before the first step."""
        silent = {node.name: zeros(batch) for node in graph.body if node.name in emitting}
        priced = [node for node in graph.body if isinstance(node.op, PRICED)]
        shapes = {
            node.name: node.shape if isinstance(node.op, Mul) else graph.by_name[node.inputs[0]].shape
            for node in priced
        }
        arrivals = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
        return cls(0, zeros(batch), silent, silent, arrivals)

    def after(self, graph: Graph, moment: Moment) -> Tally:
        """With one more step."""
        steps = self.steps + 1
        emitted = {name: moment.deltas[name] for name in self.layer_spikes}
        last = self.sample_steps
        for spikes in emitted.values():
            last = np.where(any_of_sample(spikes != 0), steps, last)
        return Tally(
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


@final
@dataclass
class Books:
    """Everything that a run reports, over all its elements; lives inside one engine call."""

    plan: Plan
    batch: int
    spikes: dict[str, Array]
    events: dict[str, Array]
    raw: dict[str, Array]
    layers: dict[str, list[int]]
    trace: dict[str, list[Array]]
    raws: list[Arrays] = field(default_factory=list)
    steps: int = 0
    sent: Array = field(default_factory=lambda: np.zeros((), np.int64))
    until: list[Array] = field(default_factory=list)
    element_steps: list[Array] = field(default_factory=list)
    settled: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    work: list[tuple[Graph, dict[str, Array]]] = field(default_factory=list)

    @classmethod
    def empty(cls, plan: Plan, reported: Iterable[str], batch: int) -> Books:
        """Before the first step of the first element; `reported` are the names of all that emits."""
        names = tuple(dict.fromkeys(reported))
        own = [name for name in names if not name.endswith(".handover")]
        return cls(
            plan,
            batch,
            {name: zeros(batch) for name in names},
            {name: zeros(batch) for name in names},
            {node.name: zeros(batch, node.shape) for node in plan.graph.readouts},
            {name: [] for name in names},
            {name: [] for name in own},
        )

    def step(self, cell: Cell, names: Mapping[str, str], moment: Moment, record: tuple[Record, ...]) -> None:
        """One more step of an element."""
        self.steps += 1
        for port in cell.readouts:
            self._place(self.raw[port.name], port.name, port.elements, moment.memory[port.local].reached)
        self.sent = self.sent + sum(_sum_of_sample(np.abs(moment.deltas[local])) for local in names)
        kept = kept_steps(record)
        if wanted(record, Outputs) and (kept is None or self.steps in kept):
            self.keep_outputs()
        if wanted(record, LayerSpikes):
            for each in self.layers.values():
                each.append(0)
            for local, name in names.items():
                self.layers[name][-1] += int(np.abs(moment.deltas[local]).sum())
        if wanted(record):
            for name, steps in self.trace.items():
                steps.append(zeros(self.batch, self.plan.graph.by_name[name].shape))
            for port in (*cell.inputs, *cell.emitters):
                if port.local in names and not port.held:
                    spikes = moment.deltas[port.local]
                    self._place(self.trace[port.name][-1], port.name, port.elements, spikes)

    def keep_outputs(self) -> None:
        """The readouts as they are, and the spikes so far."""
        self.raws.append({name: each.copy() for name, each in self.raw.items()})
        self.until.append(zeros(self.batch) + self.sent)

    def element(
        self, cell: Cell, names: Mapping[str, str], tally: Tally, settled: npt.NDArray[np.bool_]
    ) -> None:
        """An element is over."""
        self.element_steps.append(tally.sample_steps)
        self.settled.append(settled)
        for local, name in names.items():
            self.spikes[name] = self.spikes[name] + tally.layer_spikes[local]
            self.events[name] = self.events[name] + tally.layer_events[local]
        for graph, arrivals in self.work:
            if graph is cell.graph:
                arrivals |= {name: arrivals[name] + more for name, more in tally.arrivals.items()}
                return
        self.work.append((cell.graph, dict(tally.arrivals)))

    def _place(self, whole: Array, name: str, elements: tuple[int, ...], part: Array) -> None:
        axis = self.plan.graph.by_name[name].element_axis
        if axis is None:
            whole[...] = part
        else:
            whole[(slice(None),) * (axis + 1) + (list(elements),)] = part

    def outcome(
        self, network: SpikingNetwork, counts: Mapping[str, Tensor], record: tuple[Record, ...]
    ) -> Run:
        """The result."""
        kept = kept_steps(record)
        while wanted(record, Outputs) and kept is not None and len(self.raws) < len(kept):
            self.keep_outputs()
        layers = {name: np.array(each, np.int64) for name, each in self.layers.items()}
        return Run(
            graph=network.graph,
            raw=tensors(self.raw),
            steps=self.steps,
            element_steps=torch.from_numpy(np.stack(self.element_steps)),
            element_settled=torch.from_numpy(np.stack(self.settled)),
            layer_spikes=tensors(self.spikes),
            layer_events=tensors(self.events),
            work=tuple(Work(graph, tensors(arrivals)) for graph, arrivals in self.work),
            counts=dict(counts) if wanted(record, SpikeCounts) else None,
            raws=tuple(tensors(each) for each in self.raws) if wanted(record, Outputs) else None,
            spikes_until=torch.from_numpy(np.stack(self.until)) if wanted(record, Outputs) else None,
            at=kept,
            window=network.window,
            layer_steps=tensors(layers) if wanted(record, LayerSpikes) else None,
            trace=tensors({name: np.stack(each) for name, each in self.trace.items()})
            if wanted(record)
            else None,
        )


def wanted(record: tuple[Record, ...], *kinds: type) -> bool:
    """Whether any of these kinds, or everything, is to be kept."""
    return any(isinstance(each, (*kinds, Everything)) for each in record)


def _nonzero(x: Array) -> Array:
    return np.where(x != 0, 1, 0)


def any_of_sample(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[batch], whether anything of a sample is marked."""
    return np.asarray(mask.any(axis=tuple(range(1, mask.ndim))))


def _sum_of_sample(x: Array) -> Array:
    return np.asarray(x.sum(axis=tuple(range(1, x.ndim))), np.int64)


# ---------------------------------------------------------------- torch in, torch out
def integers(graph: Graph) -> Numbers:
    """Weights, breakpoints, biases as int64. What is left out are scales and units, for decoding."""
    return {name: array(each) for name, each in graph.tensors.items() if not each.is_floating_point()}


def array(tensor: Tensor) -> Array:
    """A tensor as NumPy int64."""
    return np.asarray(tensor.detach().cpu().to(torch.int64).numpy(), np.int64)


def zeros(batch: int, shape: tuple[int, ...] = ()) -> Array:
    """Zeros [batch, *shape]."""
    return np.zeros((batch, *shape), np.int64)


def tensors(arrays: Arrays) -> Mapping[str, Tensor]:
    """Arrays as torch int64, copied."""
    return {name: torch.from_numpy(np.array(each, np.int64)) for name, each in arrays.items()}
