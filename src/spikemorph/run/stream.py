"""Streams: one element at a time, answered at once; only what changed is sent.

A feed-forward network takes one sample after the other (frames of a video, readings of a sensor), a recurrent
one the elements of its sequence. The result is that of the whole run with `Delta()`, integer for integer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import DataError, FileError, RunError, expect
from spikemorph.evaluate.decode import leaves
from spikemorph.evaluate.encode import input_counts
from spikemorph.files import atomic_write
from spikemorph.ir import ops, structure
from spikemorph.ir.elements import is_sequence
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.store import graph_hash
from spikemorph.run.event import Event
from spikemorph.run.handover import Delta

Element = Tensor | tuple[Tensor | None, ...]


@final
@dataclass(frozen=True)
class Answer:
    """What one element led to.

    Args:
        output: the module's output structure, float32, of what is new: leaves over time hold their new
            elements [batch, new, ...], other leaves are there once they are final; None for what is not.
        updates: recurrent updates that this element made possible; 1 in feed-forward networks.
        steps: [batch], steps until each update was at rest, added up.
        spikes, events: of all samples.
    """

    output: Any
    updates: int
    steps: Tensor
    spikes: int
    events: int


def stream(network: SpikingNetwork, *, batch: int = 1, saved: str | Path | None = None) -> Stream:
    """Begin a stream, or go on with a saved one.

    Args:
        network: from `convert` or `load`.
        batch: streams side by side.
        saved: a file that `Stream.save` wrote with this network.

    Raises:
        RunError: a batch below 1, or a network that the event engine does not take.
        FileError: the file is not of this network.
    """
    expect("stream(network)", network, (SpikingNetwork,), "convert the graph first")
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise RunError(
            where="stream(batch)",
            got=repr(batch),
            known="a whole number of at least 1",
            do="give one for each stream",
        )
    if network.graph.dialect is Dialect.RATE:
        raise RunError(
            where="stream(network)",
            got="a rate network, which never comes to rest",
            known="streams send changes between settled frames",
            do="convert with Lossless()",
        )
    if not Event().takes(network):
        raise RunError(
            where="stream(network)",
            got="accumulators that may exceed 32 bits",
            known="networks whose proven bounds fit int32",
            do="use fewer levels or weight bits",
        )
    if saved is not None:
        expect("stream(saved)", saved, (str, Path), "give the path of a file that Stream.save wrote")
    made = Stream(network, batch)
    return made if saved is None else made.restored(Path(saved))


@final
class Stream:
    """A network with its state. Copies (`fork`) are independent; any number may run side by side."""

    def __init__(self, network: SpikingNetwork, batch: int) -> None:
        from spikemorph.run.event.elements import Elements
        from spikemorph.run.event.plans import network_of

        self.network, self.batch = network, batch
        graph = network.graph
        zeros = tuple(torch.zeros((batch, *node.shape), dtype=torch.int64) for node in graph.inputs)
        self._elements = Elements.begin(network_of(network), zeros, {}, (), 1, stepwise=False, work=False)
        self._plan = self._elements.known.plan
        self._over_time = is_sequence(graph)
        self._timed = [node.element_axis is not None and self._over_time for node in graph.inputs]
        self.taken = 0
        self.rounds = 0

    @property
    def length(self) -> int | None:
        """Elements that the stream takes; None: any number."""
        sizes = [
            _count(node) for node, timed in zip(self.network.graph.inputs, self._timed, strict=True) if timed
        ]
        return max(sizes) if sizes else None

    def push(self, x: Element) -> Answer:
        """Take one element and answer.

        Args:
            x: [batch, *shape of one element], a tuple where the network has several inputs; what has no
                elements (an initial state) comes with the first element, None afterwards.

        Raises:
            DataError: another shape, NaN, or an element after the last.
        """
        if not isinstance(x, Tensor | tuple):
            raise DataError(
                where="Stream.push(x)",
                got=type(x).__name__,
                known="a tensor, or a tuple of them",
                do="use torch.as_tensor(...), and a tuple where the network has several inputs",
            )
        self._enter((x,) if isinstance(x, Tensor) else x)
        self.taken += 1
        first = self.rounds
        cells = self._plan.cells
        while self.rounds < len(cells) and self._ready(self.rounds):
            self._elements.advance(cells[self.rounds], None, Delta())
            self.rounds += 1
        updates = self.rounds - first
        if not self._over_time:
            self.rounds = 0
        return self._answer(first, updates)

    def fork(self) -> Stream:
        """An independent copy of the stream as it is."""
        other = Stream(self.network, self.batch)
        other._take(self._tensors())
        return other

    def save(self, path: str | Path) -> None:
        """Write the state. The file appears whole or not at all.

        Raises:
            FileError: the folder is not there or not writable.
        """
        from safetensors.torch import save

        content = save(self._tensors(), metadata=self._owner())
        atomic_write(path, lambda temporary: _fill(temporary, content))

    def restored(self, path: Path) -> Stream:
        """This stream with the state of a file.

        Raises:
            FileError: not there, damaged, or of another network or batch.
        """
        from safetensors import SafetensorError, safe_open

        known = "a file that Stream.save wrote with this network and this batch"
        try:
            with safe_open(path, framework="pt") as content:
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
                owner = content.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise FileError(
                where=str(path), got=str(error), known=known, do="save the stream again"
            ) from error
        if owner != self._owner() or not self._fits(tensors):
            raise FileError(
                where=str(path),
                got="the stream of another network or batch or version, or a damaged one",
                known=known,
                do="load the network that was saved beside it, give the same batch, or begin a new stream",
            )
        self._take(tensors)
        return self

    # ---------------------------------------------------------------- input
    def _enter(self, given: tuple[Tensor | None, ...]) -> None:
        nodes = self.network.graph.inputs
        if len(given) != len(nodes):
            raise DataError(
                where="Stream.push(x)",
                got=f"{len(given)} tensor(s)",
                known=f"the network takes {len(nodes)}",
                do="pass a tuple with one tensor for each argument",
            )
        for i, (node, tensor) in enumerate(zip(nodes, given, strict=True)):
            timed = self._timed[i]
            over = self._over_time and (not timed or self.taken >= _count(node))
            if tensor is None and self.taken > 0 and over:
                continue
            if self._over_time and self.taken >= (_count(node) if timed else 1):
                raise DataError(
                    where=f"Stream.push, input '{node.name}'",
                    got=f"element {self.taken}",
                    known=f"the network was captured with {_count(node)} elements",
                    do="begin a new stream, or capture the network with a longer example",
                )
            if tensor is None:
                raise DataError(
                    where=f"Stream.push, input '{node.name}'",
                    got="None",
                    known="a tensor with every element, and all of an initial state with the first",
                    do="pass it",
                )
            self._write(i, node, tensor, timed=timed)

    def _write(self, i: int, node: Node, tensor: Tensor, *, timed: bool) -> None:
        shape = list(node.shape)
        assert isinstance(node.op, ops.Input)
        if timed:
            assert node.element_axis is not None
            del shape[node.element_axis]
        alone = Graph(
            self.network.graph.dialect,
            (Node(node.name, replace(node.op, index=0), (), tuple(shape)),),
            (),
            self.network.graph.tensors,
        )
        (counts,) = input_counts(alone, tensor)
        if len(counts) != self.batch:
            raise DataError(
                where=f"Stream.push, input '{node.name}'",
                got=f"a batch of {len(counts)}",
                known=f"{self.batch} streams side by side",
                do="give stream(network, batch=...) the number of streams",
            )
        held = self._elements.settled.inputs[i]
        if timed and node.element_axis is not None:
            held.select(node.element_axis + 1, self.taken).copy_(counts)
        else:
            held.copy_(counts)

    def _ready(self, now: int) -> bool:
        """Whether everything that a round reads has been taken."""
        rounds = self._plan.schedule.rounds
        inputs = zip(self.network.graph.inputs, self._timed, strict=True)
        return all(
            not any(at <= now for at in rounds[node.name][self.taken :]) for node, timed in inputs if timed
        )

    # ---------------------------------------------------------------- output
    def _answer(self, first: int, updates: int) -> Answer:
        tally = self._elements.tally
        steps = torch.stack([torch.zeros(self.batch, dtype=torch.int64), *tally.element_steps]).sum(0)
        spikes, events = (
            int(torch.stack([*books.values()]).sum()) if books else 0
            for books in (tally.spikes, tally.events)
        )
        for books in (tally.spikes, tally.events):
            for each in books.values():
                each.zero_()
        tally.element_steps.clear()
        tally.element_settled.clear()
        self._elements.ran.clear()
        self._elements.hits.clear()
        output = self._output(range(first, first + updates)) if updates else None
        return Answer(output, updates, steps, spikes, events)

    def _output(self, rounds: range) -> Any:
        graph = self.network.graph
        every = leaves(graph, self._elements.tally.raw)
        done = not self._over_time or self.rounds == len(self._plan.cells)
        found = [
            self._new(graph.by_name[name], leaf, rounds, done=done)
            for name, leaf in zip(graph.outputs, every, strict=True)
        ]
        return structure.build(graph.structure, found)

    def _new(self, node: Node, leaf: Tensor, rounds: range, *, done: bool) -> Tensor | None:
        """The part of an output that these rounds computed."""
        axis = node.element_axis
        mixes = isinstance(node.op, ops.Softmax | ops.Argmax) and node.op.axis in (None, axis)
        if axis is None or mixes or not self._over_time:
            return leaf if done else None
        while isinstance(node.op, ops.HOST):
            node = self.network.graph.by_name[node.inputs[0]]
        made = [j for j, at in enumerate(self._plan.schedule.rounds[node.name]) if at in rounds]
        return leaf.index_select(axis + 1, torch.tensor(made)) if made else None

    # ---------------------------------------------------------------- state
    def _owner(self) -> dict[str, str]:
        """What a saved state is good for."""
        from spikemorph.run.event.tables import LAYOUT

        network = self.network
        ways = f"{network.spike!r} {network.encoding!r}"
        return {"network": graph_hash(network.graph), "spikes": ways, "layout": str(LAYOUT)}

    def _fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether these can be the state of this stream: names, shapes, types and how far it is."""
        forms = {name: (each.shape, each.dtype) for name, each in self._tensors().items()}
        forms = {name: form for name, form in forms.items() if not name.startswith("state")}
        given = {name: (each.shape, each.dtype) for name, each in tensors.items()}
        if given.get("at") != forms["at"]:
            return False
        taken, rounds = (int(each) for each in tensors["at"])
        longest = self.length
        if taken < 0 or (longest is not None and taken > longest) or not 0 <= rounds <= len(self._plan.cells):
            return False
        if any(name.startswith("state") for name in tensors):
            packed = self._cell(rounds).packed
            forms["state.narrow"] = torch.Size((self.batch, len(packed.start16))), torch.int16
            forms["state.wide"] = torch.Size((self.batch, len(packed.start32))), torch.int32
        elif rounds > 0 or (taken > 0 and not self._over_time):
            return False
        return given == forms

    def _cell(self, rounds: int) -> Any:
        """The program that ran last."""
        elements = self._elements
        cell = self._plan.cells[max(rounds - 1, 0)]
        return elements.known.of(cell, counts=elements.counts, joins=elements.joins)

    def _tensors(self) -> dict[str, Tensor]:
        elements = self._elements
        found = {f"raw.{name}": each for name, each in elements.tally.raw.items()}
        found |= {f"count.{name}": each for name, each in elements.settled.counts.items()}
        found |= {f"input.{i}": each for i, each in enumerate(elements.settled.inputs)}
        found["at"] = torch.tensor([self.taken, self.rounds])
        if elements.states:
            narrow, wide = elements.states[0]
            found |= {"state.narrow": torch.from_numpy(narrow), "state.wide": torch.from_numpy(wide)}
        return {name: each.clone().contiguous() for name, each in found.items()}

    def _take(self, tensors: dict[str, Tensor]) -> None:
        elements = self._elements
        for name, each in elements.tally.raw.items():
            each.copy_(tensors[f"raw.{name}"])
        for name, each in elements.settled.counts.items():
            each.copy_(tensors[f"count.{name}"])
        for i, each in enumerate(elements.settled.inputs):
            each.copy_(tensors[f"input.{i}"])
        self.taken, self.rounds = (int(each) for each in tensors["at"])
        if "state.narrow" in tensors:
            states = (tensors["state.narrow"].numpy().copy(), tensors["state.wide"].numpy().copy())
            elements.states = [states]
            elements.before = self._cell(self.rounds)


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _count(node: Node) -> int:
    return 1 if node.element_axis is None else node.shape[node.element_axis]
