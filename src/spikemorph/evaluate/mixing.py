"""What has no meaning at another length, and the words with which it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from spikemorph.errors import DataError
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.verify import named_tensors

GROUPS = {"factor": 0, "scale": 0, "offset": 0, "bias": 0, "breakpoints": 1, "values": 1}
"""Constants that belong to places of the value, with the number of axes behind those of the place."""

GAINS = ("factor", "scale")
"""Constants that no padding alters: they differ at the border only where the model says so."""


def refused(node: Node, got: str, known: str, do: str = "run samples of one length together") -> DataError:
    """An op that is not what it would be at the sample's own length."""
    return DataError(where=f"lengths, at '{node.name}', {node.origin}", got=got, known=known, do=do)


def mixes(node: Node, *, behind: bool) -> DataError:
    """An op that makes one element of others."""
    instead = (
        "read the last state instead of a mean"
        if behind
        else "use a convolution with a stride, or a max-pool"
    )
    return refused(
        node,
        f"{type(node.op).__name__}, which mixes elements",
        "windows over time in front of the recurrence, the last or first element behind it",
        f"{instead}, or run samples of one length together",
    )


def check_constants(graph: Graph, node: Node, left: int) -> None:
    """Constants of a node are those of any length: alike for all elements but those at the start.

    Padding in front of a value with an offset makes a bias that differs there, whatever the length; what
    padding behind it does is marked by `quantise.integer`.

    Args:
        left: elements at the start that padding may alter.

    Raises:
        DataError: they differ elsewhere.
    """
    axis = node.element_axis
    assert axis is not None
    for field, tensor, own in _placed(graph, node, axis):
        size = tensor.shape[own]
        first = 0 if field in GAINS else min(left, size - 1)
        rest = tensor.narrow(own, first, size - first)
        if bool((rest != rest.narrow(own, 0, 1)).any()):
            raise positions(node, field)


def positions(node: Node, field: str) -> DataError:
    """A constant that belongs to the elements of the captured length."""
    return refused(
        node,
        f"constants ({field}) that differ from element to element",
        "the same gain and bias for all elements, up to what padding does at the start",
        "normalise and add positions outside the model, or run samples of one length together",
    )


def _placed(graph: Graph, node: Node, axis: int) -> Iterator[tuple[str, Tensor, int]]:
    """Constants with an entry for every element: name, tensor, and its axis of the elements."""
    for path, name in named_tensors(node.op).items():
        field, tensor = path.rpartition(".")[2], graph.tensors[name]
        if field in GROUPS:
            own = axis - (len(node.shape) - (tensor.dim() - GROUPS[field]))
            if own >= 0 and tensor.shape[own] == node.shape[axis]:
                yield field, tensor, own


def check_host_ops(graph: Graph, ending: Mapping[str, object]) -> None:
    """Nothing that is computed on decoded outputs runs over their elements.

    Raises:
        DataError: a softmax or argmax does.
    """
    axes = {name: graph.by_name[name].element_axis for name in ending}
    for node in graph.nodes:
        axis = axes.get(node.inputs[0]) if isinstance(node.op, ops.HOST) else None
        if (
            axis is not None
            and isinstance(node.op, ops.Softmax | ops.Argmax)
            and node.op.axis in {axis, None}
        ):
            raise mixes(node, behind=True)
        axes.setdefault(node.name, axis)
