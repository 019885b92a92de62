"""From readout integers to the module's own outputs: the one function that all engines share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spikemorph.evaluate.host import host_values
from spikemorph.ir import structure
from spikemorph.ir.graph import Graph
from spikemorph.ir.ops import Readout


def decode(graph: Graph, raw: Mapping[str, Tensor], steps: int = 1) -> Any:
    """The output structure, float32 tensors (argmax: int64), from readout integers.

    Args:
        graph: integer or rate dialect.
        raw: integers by readout node name, [batch, *shape], bias included.
        steps: of a rate graph, in how many steps they have added up.
    """
    return structure.build(graph.structure, leaves(graph, raw, steps))


def leaves(graph: Graph, raw: Mapping[str, Tensor], steps: int = 1) -> list[Tensor]:
    """The same without the nesting: every output in turn."""
    values = {
        node.name: _scaled(graph, node.op, raw[node.name], steps)
        for node in graph.readouts
        if isinstance(node.op, Readout)
    }
    values = host_values(graph, values)
    return [_rounded(values[name]) for name in graph.outputs]


def _scaled(graph: Graph, op: Readout, raw: Tensor, steps: int) -> Tensor:
    value = raw.to(torch.float64) * graph.tensors[op.scale] / steps
    return value if op.offset is None else value + graph.tensors[op.offset]


def _rounded(value: Tensor) -> Tensor:
    return value.to(torch.float32) if value.is_floating_point() else value
