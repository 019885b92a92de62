"""Two integer graphs compared field by field and number by number, whatever any data would show."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final

import torch

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import GraphError
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph, Node


@final
@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two graphs differ.

    Args:
        layer: node name, "" for the graph as a whole.
        part: what of it: "weight[3, 0, 1, 1]", "stride", "inputs" ...
        qnn, snn: what stands there in each.
    """

    layer: str
    part: str
    qnn: str
    snn: str

    def __str__(self) -> str:
        return f"{self.layer or 'the graph'}: {self.part} is {self.qnn} in the QNN, {self.snn} in the SNN"


def differences(qnn: Graph, snn: Graph) -> tuple[Difference, ...]:
    """Every differing node, field and tensor; of a tensor the first differing entry and their number."""
    found: list[Difference] = []
    names = [node.name for node in qnn.nodes], [node.name for node in snn.nodes]
    if names[0] != names[1]:
        missing = [name for name in names[0] if name not in snn.by_name]
        added = [name for name in names[1] if name not in qnn.by_name]
        if missing or added:
            found.append(Difference("", "nodes", f"without {added}", f"without {missing}"))
        else:
            found.append(Difference("", "order of nodes", ", ".join(names[0]), ", ".join(names[1])))
    for part in ("outputs", "structure"):
        left, right = getattr(qnn, part), getattr(snn, part)
        if left != right:
            found.append(Difference("", part, str(left), str(right)))
    for node in qnn.nodes:
        if node.name in snn.by_name:
            found += _of_node(node, snn.by_name[node.name], qnn, snn)
    return tuple(found)


def _of_node(a: Node, b: Node, qnn: Graph, snn: Graph) -> list[Difference]:
    if type(a.op) is not type(b.op):
        return [Difference(a.name, "op", type(a.op).__name__, type(b.op).__name__)]
    found = [
        Difference(a.name, part, str(getattr(a, part)), str(getattr(b, part)))
        for part in ("inputs", "shape", "element_axis")
        if getattr(a, part) != getattr(b, part)
    ]
    return found + _of_fields(a.name, (a.op, b.op), qnn, snn)


def _of_fields(layer: str, pair: tuple[ops.Op, ops.Op], qnn: Graph, snn: Graph) -> list[Difference]:
    found: list[Difference] = []
    for each in fields(pair[0]):
        left, right = (getattr(op, each.name) for op in pair)
        if isinstance(left, ops.Neuron) and isinstance(right, ops.Neuron):
            found += _of_fields(layer, (left, right), qnn, snn)
        elif (
            isinstance(left, str) and isinstance(right, str) and left in qnn.tensors and right in snn.tensors
        ):
            found += _of_tensor(layer, each.name, qnn.tensors[left], snn.tensors[right])
        elif left != right:
            found.append(Difference(layer, each.name, str(left), str(right)))
    return found


def _of_tensor(layer: str, part: str, a: torch.Tensor, b: torch.Tensor) -> list[Difference]:
    if a.shape != b.shape or a.dtype != b.dtype:
        return [Difference(layer, part, f"{a.dtype} {tuple(a.shape)}", f"{b.dtype} {tuple(b.shape)}")]
    places = (a != b).nonzero()
    if len(places) == 0:
        return []
    index = tuple(places[0].tolist())
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return [Difference(layer, f"{part}{list(index)}{more}", str(a[index].item()), str(b[index].item()))]


def check_dialects(network: SpikingNetwork, graph: Graph) -> None:
    """Nothing, for a lossless network and an integer graph.

    Raises:
        GraphError: anything else.
    """
    if network.graph.dialect is not Dialect.INTEGER:
        raise GraphError(
            where="verify(network)",
            got="a rate network",
            known="lossless networks equal a quantised one at rest; rates only approach the float network",
            do="measure the gap over steps: spikemorph.measure.over_steps",
        )
    if graph.dialect is not Dialect.INTEGER:
        raise GraphError(
            where="verify(graph)",
            got=f"dialect {graph.dialect.value}",
            known="an integer graph, from quantise or freeze",
            do="pass the graph that was converted",
        )
