"""The outcome of a simulation, the same type from every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from spikemorph.convert.network import Window
from spikemorph.errors import RunError
from spikemorph.evaluate.decode import decode
from spikemorph.ir.graph import Graph


@final
@dataclass(frozen=True)
class Work:
    """What reached the ops that do work.

    Args:
        graph: what ran: the network itself, or the cell of a recurrent one.
        arrivals: non-zero entries that reached each Conv, Linear, AxisMap, Scale and Mul, summed over
            batch and steps, [*shape of the arriving value]; Mul: both inputs, broadcast, added up.
            Analog input counts here as well. Priced by `measure`.
    """

    graph: Graph
    arrivals: Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class Run:
    """What came out. All tensors are int64 on the CPU unless said otherwise.

    A feed-forward network has one element; a recurrent one has an element for each recurrent update.

    Args:
        graph: the integer graph that ran.
        raw: readout integers by readout node name, [batch, *shape], bias included.
        steps: steps simulated, all elements together.
        element_steps: [elements, batch], 1 + the last step of an element in which any neuron emitted, 0 for
            silence.
        element_settled: [elements, batch] bool, nothing was in flight at the end of the element.
        layer_spikes: sum of |spike| by emitting node, [batch]. Spike-encoded inputs emit too; what re-emits
            settled counts of node x to later elements is reported as "x.handover".
        layer_events: number of non-zero emissions, likewise.
        work: what reached every weight, for each cell that ran.
        counts: settled counts by emitting node, [batch, *shape], of every element, if recorded.
        raws: after every step (or after the steps `at`), as `raw`, if recorded.
        spikes_until: [len(raws), batch] sum of |spike| over all that emits until then, if recorded.
        at: the steps of `raws`; None: every step.
        shown: those among them of `outputs`; None: all. The others are where windows begin.
        window: of a rate network, the steps over which outputs are averaged.
        layer_steps: by emitting node, [steps] spikes summed over the batch, if recorded.
        trace: by emitting node, [steps, batch, *shape] signed spikes, if recorded. Without hand-over.
    """

    graph: Graph
    raw: Mapping[str, Tensor]
    steps: int
    element_steps: Tensor
    element_settled: Tensor
    layer_spikes: Mapping[str, Tensor]
    layer_events: Mapping[str, Tensor]
    work: tuple[Work, ...]
    counts: Mapping[str, Tensor] | None = None
    raws: tuple[Mapping[str, Tensor], ...] | None = None
    layer_steps: Mapping[str, Tensor] | None = None
    trace: Mapping[str, Tensor] | None = None
    spikes_until: Tensor | None = None
    at: tuple[int, ...] | None = None
    shown: tuple[int, ...] | None = None
    window: Window | None = None

    @property
    def elements(self) -> int:
        """Recurrent updates one after the other; 1 for feed-forward networks."""
        return len(self.element_steps)

    @property
    def arrivals(self) -> Mapping[str, Tensor]:
        """Of a feed-forward run: what reached every op that does work (`Work`).

        Raises:
            RunError: a recurrent run, which has several cells.
        """
        if len(self.work) != 1:
            raise RunError(
                where="Run.arrivals",
                got=f"a recurrent run of {len(self.work)} cells",
                known="one graph",
                do="read Run.work, which has the arrivals of each cell",
            )
        return self.work[0].arrivals

    @property
    def sample_steps(self) -> Tensor:
        """[batch], steps until each element of a sample was at rest, added up."""
        return self.element_steps.sum(0)

    @property
    def settled(self) -> Tensor:
        """[batch] bool, nothing was in flight at the end of any element."""
        return self.element_settled.all(0)

    @property
    def output(self) -> Any:
        """The module's own output structure, float32 tensors, at the end.

        Of a rate network: the mean over the steps of its window.
        """
        return self._decoded(self.raw, self.steps)

    @property
    def outputs(self) -> tuple[Any, ...] | None:
        """`output` after every step (or after the steps `at`), if recorded.

        Of a rate network as if the run had ended there.

        """
        if self.raws is None or self.shown == ():
            return None
        steps = range(1, len(self.raws) + 1) if self.at is None else self.at
        shown = steps if self.shown is None else self.shown
        return tuple(self._decoded(self.raws[steps.index(step)], step) for step in shown)

    def _decoded(self, raw: Mapping[str, Tensor], steps: int) -> Any:
        if self.window is None:
            return decode(self.graph, raw)
        first = self.window.first(steps)
        if first == 0:
            return decode(self.graph, raw, steps)
        at = range(1, len(self.raws or ()) + 1) if self.at is None else self.at
        assert self.raws is not None
        before = self.raws[at.index(first)]
        return decode(self.graph, {name: raw[name] - before[name] for name in raw}, steps - first)

    @property
    def spikes(self) -> int:
        """Sum of |spike| over all emitting nodes, samples and steps."""
        return sum(int(each.sum()) for each in self.layer_spikes.values())

    @property
    def events(self) -> int:
        """Number of non-zero emissions over all emitting nodes, samples and steps."""
        return sum(int(each.sum()) for each in self.layer_events.values())
