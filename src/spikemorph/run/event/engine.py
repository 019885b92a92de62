"""The event engine: compiled kernels, threads over samples, work proportional to spikes times fan-out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import RunError
from spikemorph.evaluate.intervals import spans
from spikemorph.evaluate.lengths import ended, valid_lengths
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.run.dense import Dense
from spikemorph.run.handover import FRESH, Handover, Replay, replay_refused
from spikemorph.run.record import Outputs, Record, SpikeCounts, kept_steps
from spikemorph.run.result import Run

LARGEST = 2**31 - 2
THREADS = 1024
"""More than any machine has use for."""


@final
@dataclass(frozen=True, slots=True)
class Event:
    """Compiled engine for the CPU.

    Args:
        threads: samples that run at the same time; None: as many as torch uses. Changes no number. One where
            single steps are recorded.
        batch: most samples whose state is in memory at once; what is recorded comes on top.

    Raises:
        RunError: not whole numbers of at least 1.
    """

    threads: int | None = None
    batch: int = 256

    def __post_init__(self) -> None:
        for name, value, known, do in (
            (
                "threads",
                self.threads,
                f"None, or a whole number in 1..{THREADS}",
                "as many threads as torch uses",
            ),
            ("batch", self.batch, "a whole number of at least 1", "256 samples at once"),
        ):
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            fits = whole and not (name == "threads" and value is not None and value > THREADS)
            if not fits and not (name == "threads" and value is None):
                raise RunError(
                    where=f"Event({name})", got=repr(value), known=known, do=f"use Event() for {do}"
                )

    def takes(self, network: SpikingNetwork) -> bool:
        """Whether every proven bound of the network fits int32."""
        thresholds = [
            int(network.graph.tensors[node.op.threshold].max())
            for node in network.graph.nodes
            if isinstance(node.op, ops.IntegrateFire)
        ]
        furthest = (1 + network.spike.largest) * max(thresholds, default=0)
        return max(largest(network.graph), furthest) < LARGEST

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
        from spikemorph.run.event.chunks import joined
        from spikemorph.run.event.elements import Elements
        from spikemorph.run.event.plans import network_of
        from spikemorph.run.event.timed import Timed, run_timed
        from spikemorph.run.event.whole import Task, run_whole

        if isinstance(handover, Replay):
            raise replay_refused("the event engine")
        if not self.takes(network):
            raise RunError(
                where="Event()",
                got="accumulators that may exceed 32 bits",
                known="networks whose proven bounds fit int32",
                do="use Dense(), or fewer levels or weight bits",
            )
        some = all(isinstance(each, SpikeCounts | Outputs) for each in record)
        timed = some and kept_steps(record) is not None
        if network.graph.dialect is Dialect.RATE and not timed:
            dense = Dense()
            return dense.run(network, counts, steps=steps, record=record, handover=handover, lengths=lengths)
        known = network_of(network)
        counts = ended(network.graph, counts, lengths)
        valid = valid_lengths(network.graph, lengths, len(counts[0]))
        threads = torch.get_num_threads() if self.threads is None else self.threads
        stepwise = any(not isinstance(each, SpikeCounts) for each in record)
        parts: list[tuple[Run, Tensor]] = []
        for start in range(0, len(counts[0]), self.batch):
            chunk = tuple(each[start : start + self.batch] for each in counts)
            part = slice(start, start + self.batch)
            ends = {name: replace(each, lengths=each.lengths[part]) for name, each in valid.items()}
            if timed and not ends and len(known.plan.cells) == 1:
                kept = tuple(each.clone() for each in chunk)
                parts.append(run_timed(Timed(known, kept, threads, steps, record)))
                continue
            if not stepwise and not ends:
                kept = tuple(each.clone() for each in chunk)  # a run is made again where its work is read
                parts.append(run_whole(Task(known, kept, threads, steps, handover), record))
                continue
            elements = Elements.begin(known, chunk, ends, record, threads, stepwise=stepwise)
            parts.append(elements.run(steps, handover))
        return joined(parts)


def largest(graph: Graph) -> int:
    """The largest |integer| or change between two moments that any value of the graph may have."""
    return int(max(max(span.size, span.hi - span.lo, span.sum or 0) for span in spans(graph).values()))
