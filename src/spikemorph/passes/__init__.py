"""Graph to graph rewrites: from what was captured to what can be laid on integer grids."""

from __future__ import annotations

from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.passes.fuse import fuse_elementwise
from spikemorph.passes.levels import Levels
from spikemorph.passes.lower import lower_averages, lower_batch_norms
from spikemorph.passes.plan import insert_identities
from spikemorph.passes.prune import prune
from spikemorph.passes.rewire import flatten_adds, pools_behind_activations
from spikemorph.passes.runner import Pass, run_passes


def plan(graph: Graph, levels: Levels) -> Graph:
    """The planned graph: quantisers in place of activations, identity neurons where maps do not compose.

    Args:
        graph: float dialect, from `capture`.
        levels: decide the ranges of counts and thereby where maps compose.

    Raises:
        GraphError: a pass broke its promise (a bug).
    """
    last = Pass("insert_identities", lambda each: insert_identities(each, levels))
    return run_passes(graph, (*_passes(levels), last))


def plan_without_identities(graph: Graph, levels: Levels) -> Graph:
    """The same without identity neurons: every other node of `plan` under its name."""
    return run_passes(graph, _passes(levels))


def _passes(levels: Levels) -> tuple[Pass, ...]:
    averages = (ops.AvgPool, ops.AdaptiveAvgPool, ops.Mean, ops.Upsample)
    return (
        Pass("prune", prune),
        Pass("lower_batch_norms", lower_batch_norms, (ops.BatchNorm,)),
        Pass("lower_averages", lower_averages, averages),
        Pass("flatten_adds", flatten_adds),
        Pass("pools_behind_activations", pools_behind_activations),
        Pass("fuse_elementwise", lambda each: fuse_elementwise(each, levels), (ops.Elementwise,)),
    )
