"""The captured graph must compute what the module computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from spikemorph.capture.export import Exported, placed
from spikemorph.capture.values import Act, Form
from spikemorph.errors import CaptureError
from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir.graph import Graph

TOLERANCE = 1e-4
"""Largest difference, relative to the largest value, that is put down to rounding."""


def check_capture(
    graph: Graph, exported: Exported, outputs: Sequence[Form], owners: Mapping[str, Act]
) -> None:
    """Compare the graph with the module on the example inputs.

    Args:
        outputs: where the module has the batch of every output.
        owners: every exported operation that is one node here.

    Raises:
        CaptureError: the module gives NaN, or the graph computes something else; names the first operation.
    """
    for number, value in enumerate(exported.expected):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CaptureError(
                where=f"output {number}",
                got="NaN or infinity from the module itself",
                known="finite outputs on the example inputs",
                do="pass ordinary data as example inputs, and check the trained weights",
            )
    values = evaluate_float(graph, exported.batch_first(), keep=True)
    triples = zip(graph.outputs, outputs, exported.expected, strict=True)
    if all(
        difference(values[name], form.batch_first(wanted.cpu())) <= TOLERANCE
        for name, form, wanted in triples
    ):
        return
    found = _first_difference(graph, exported, owners)
    if found is not None:
        raise _differs(graph, *found)


def difference(got: Tensor, wanted: Tensor) -> float:
    """Largest difference relative to the largest wanted value; infinite where shapes or types differ."""
    if got.shape != wanted.shape or got.is_floating_point() != wanted.is_floating_point():
        return float("inf")
    if not wanted.is_floating_point():
        return 0.0 if torch.equal(got, wanted) else float("inf")
    gap = float((got.double() - wanted.double()).abs().max())
    scale = float(wanted.double().abs().max())
    return 0.0 if gap == 0 else gap / scale if scale > 0 else float("inf")


def _first_difference(
    graph: Graph, exported: Exported, owners: Mapping[str, Act]
) -> tuple[str, float] | None:
    """The first node that differs, in float64, where rounding is no excuse; None: it was rounding."""
    inputs = tuple(each.cpu().double() for each in exported.inputs)
    wanted = _recorded(exported, inputs)
    values = evaluate_float(graph, tuple(each.double() for each in exported.batch_first()), keep=True)
    for operation, act in owners.items():
        if act.name in values and operation in wanted:
            gap = difference(values[act.name], act.form.batch_first(wanted[operation]))
            if gap > TOLERANCE:
                return act.name, gap
    return None


def _recorded(exported: Exported, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Every tensor value of the exported program in float64, by operation name."""
    found: dict[str, Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                found[n.name] = value
            return value

        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            return super().call_function(target, args, _in_float64(kwargs))

    constants = {
        name: each.cpu().double() if each.is_floating_point() else each.cpu()
        for name, each in exported.constants.items()
    }
    with torch.no_grad():
        Recorder(exported.program.graph_module).run(*placed(exported.program, constants, inputs))
    return found


def _in_float64(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors that the program makes itself, such as zeros, become float64 too."""
    return {
        key: torch.float64 if isinstance(each, torch.dtype) and each.is_floating_point else each
        for key, each in kwargs.items()
    }


def _differs(graph: Graph, name: str, gap: float) -> CaptureError:
    node = graph.by_name[name]
    return CaptureError(
        where=str(node.origin),
        got=f"{node.origin.call}, captured as {type(node.op).__name__} {name!r}, "
        f"differs from torch by {gap:.2g} of the largest value",
        known="a captured graph computes what the module computes",
        do="this is a fault of spikemorph: report the operation and its arguments; avoid it until then",
    )
