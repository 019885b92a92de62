"""What one count stands for (`Graph.units`): in files, and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spikemorph.errors import GraphError
from spikemorph.ir.coding import JSON, expect, listed, real, string, whole
from spikemorph.ir.graph import Graph

DEEPEST = 64
"""Axes that torch can lay out."""


def encode_units(units: Mapping[str, Tensor]) -> JSON:
    """{name: [shape, values]}; JSON holds every float64 exactly."""
    return {
        name: [list(unit.shape), unit.double().reshape(-1).tolist()] for name, unit in sorted(units.items())
    }


def decode_units(value: Any) -> dict[str, Tensor]:
    """The inverse of `encode_units`.

    Raises:
        DamagedError: anything else.
    """
    expect(isinstance(value, dict), "units", value, "an object")
    return {string(name, "a unit"): _decoded(f"units of '{name}'", each) for name, each in value.items()}


def _decoded(where: str, value: Any) -> Tensor:
    parts = listed(value, where)
    expect(len(parts) == 2, where, parts, "a shape and values")
    shape = [whole(size, where) for size in listed(parts[0], where)]
    values = [real(each, where) for each in listed(parts[1], where)]
    expect(len(shape) <= DEEPEST, where, shape, f"at most {DEEPEST} axes")
    expect(all(size > 0 for size in shape) and math.prod(shape) == len(values), where, shape, "its shape")
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def check_units(graph: Graph) -> None:
    """Nothing, where every unit is positive and belongs to a node that emits.

    Raises:
        GraphError: another unit.
    """
    emitting = {node.name: node for node in graph.neurons}
    for name, unit in graph.units.items():
        if name not in emitting:
            raise _bad(name, "no node of this name emits spikes")
        if unit.dtype != torch.float64 or not bool((unit.isfinite() & (unit > 0)).all()):
            raise _bad(name, f"{unit.dtype}, from {float(unit.min())} to {float(unit.max())}")
        shape = emitting[name].shape
        fits = unit.dim() <= len(shape) and all(
            size in {1, own} for size, own in zip(reversed(unit.shape), reversed(shape), strict=False)
        )
        if not fits:
            raise _bad(name, f"shape {list(unit.shape)} for counts {list(shape)}")


def _bad(name: str, got: str) -> GraphError:
    return GraphError(
        where=f"unit of '{name}'",
        got=got,
        known="positive float64 numbers that broadcast against the counts of an emitting node",
        do="correct what made this graph",
    )
