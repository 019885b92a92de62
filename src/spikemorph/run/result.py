"""The outcome of a simulation, the same type from every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from spikemorph.evaluate.decode import decode
from spikemorph.ir.graph import Graph


@final
@dataclass(frozen=True)
class Run:
    """What came out. All tensors are int64 on the CPU unless said otherwise.

    Args:
        graph: the integer graph that ran.
        raw: readout integers by readout node name, [batch, *shape], bias included.
        steps: steps simulated, the largest over the batch.
        sample_steps: [batch], 1 + the last step in which any neuron emitted, 0 for silence.
        settled: [batch] bool, nothing was in flight at the end.
        layer_spikes: sum of |spike| by emitting node, [batch]. Spike-encoded inputs emit too.
        layer_events: number of non-zero emissions by emitting node, [batch].
        arrivals: non-zero entries that reached each Conv, Linear, AxisMap, Scale and Mul, summed over
            batch and steps, [*shape of the arriving value]; Mul: both inputs, broadcast, added up.
            Analog input counts here as well. Priced by `measure`.
        counts: final counts by emitting node, [batch, *shape], if recorded.
        raws: after every step, as `raw`, if recorded.
        layer_steps: by emitting node, [steps] spikes summed over the batch, if recorded.
        trace: by emitting node, [steps, batch, *shape] signed spikes, if recorded.
    """

    graph: Graph
    raw: Mapping[str, Tensor]
    steps: int
    sample_steps: Tensor
    settled: Tensor
    layer_spikes: Mapping[str, Tensor]
    layer_events: Mapping[str, Tensor]
    arrivals: Mapping[str, Tensor]
    counts: Mapping[str, Tensor] | None = None
    raws: tuple[Mapping[str, Tensor], ...] | None = None
    layer_steps: Mapping[str, Tensor] | None = None
    trace: Mapping[str, Tensor] | None = None

    @property
    def output(self) -> Any:
        """The module's own output structure, float32 tensors, at the end."""
        return decode(self.graph, self.raw)

    @property
    def outputs(self) -> tuple[Any, ...] | None:
        """`output` after every step, if recorded."""
        return None if self.raws is None else tuple(decode(self.graph, raw) for raw in self.raws)

    @property
    def spikes(self) -> int:
        """Sum of |spike| over all emitting nodes, samples and steps."""
        return sum(int(each.sum()) for each in self.layer_spikes.values())

    @property
    def events(self) -> int:
        """Number of non-zero emissions over all emitting nodes, samples and steps."""
        return sum(int(each.sum()) for each in self.layer_events.values())
