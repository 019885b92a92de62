"""What the float network does on calibration data: samples of every value that gets a grid."""

from __future__ import annotations

import torch
from torch import Tensor

from spikemorph.evaluate.batching import Batches, batches
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node

KEEP = 2**22
"""Numbers kept of one value over the whole calibration."""

KEEP_OF_ROW = 2**16
"""At most so many of one row. Few would miss what is rare and large: units that clip it lose most."""

CHUNK = 64


def observe(graph: Graph, calibration: Batches) -> dict[str, Tensor]:
    """Samples [rows, n] of every input and quantiser: a row a channel if its units are per channel, else one.

    Args:
        graph: planned dialect.
    """
    on_grids = ops.Input | ops.Quantiser | ops.Recurrence
    kept: dict[str, list[Tensor]] = {node.name: [] for node in graph.nodes if isinstance(node.op, on_grids)}
    for inputs in batches(graph, calibration, size=graph.samples_at_once(CHUNK), where="calibration"):
        values = evaluate_float(graph, inputs)
        for name, parts in kept.items():
            parts.append(rows_of(graph.by_name[name], values[name]))
            if sum(part.shape[1] for part in parts) > 4 * kept_of(len(parts[0])):
                parts[:] = [_thinned(torch.cat(parts, 1))]
    return {name: _thinned(torch.cat(parts, 1)) for name, parts in kept.items()}


def rows_of(node: Node, value: Tensor) -> Tensor:
    """A value [batch, *shape] as rows [channels or 1, n]."""
    if isinstance(node.op, ops.Quantiser) and node.op.per_channel and node.shape:
        return value.movedim(1, 0).flatten(1)
    return value.reshape(1, -1)


def kept_of(rows: int) -> int:
    """Numbers kept of each of so many rows."""
    return min(KEEP_OF_ROW, max(KEEP // rows, 1024))


def _thinned(rows: Tensor) -> Tensor:
    """At most so many numbers a row, evenly spaced by position, and the extremes."""
    keep = kept_of(rows.shape[0])
    if rows.shape[1] <= keep:
        return rows
    evenly = torch.linspace(0, rows.shape[1] - 1, keep - 2).long()
    return torch.cat([rows[:, evenly], rows.amax(1, keepdim=True), rows.amin(1, keepdim=True)], 1)
