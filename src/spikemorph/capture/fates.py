"""What is gone after capture, for the inspect table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch.export import ExportedProgram

from spikemorph.capture.naming import origin_of, packet
from spikemorph.ir.graph import Origin

_DROPOUT = "dropout: identity in eval mode"
_COPY = "copy: values are not changed"
_LAYOUT = "memory layout only"
_REASONS = {
    "dropout": _DROPOUT,
    "feature_dropout": _DROPOUT,
    "alpha_dropout": _DROPOUT,
    "feature_alpha_dropout": _DROPOUT,
    "native_dropout": _DROPOUT,
    "clone": _COPY,
    "detach": "detach: gradients only",
    "contiguous": _LAYOUT,
    "alias": _COPY,
    "to": "conversion to the type it has",
    "_to_copy": "conversion to the type it has",
}


@final
@dataclass(frozen=True, slots=True)
class Vanished:
    """An operation that left no node.

    Args:
        reason: why it can go.
    """

    origin: Origin
    reason: str


def vanished(program: ExportedProgram) -> tuple[Vanished, ...]:
    """Operations of a program, as exported, that do nothing at rest."""
    return tuple(
        Vanished(origin_of(node), _REASONS[packet(node.target)])
        for node in program.graph.nodes
        if node.op == "call_function" and packet(node.target) in _REASONS and _on_data(node)
    )


def _on_data(node: object) -> bool:
    """Copies of constants are of no interest."""
    operands = getattr(node, "all_input_nodes", [])
    return any(not each.name.startswith(("p_", "b_", "c_")) for each in operands)
