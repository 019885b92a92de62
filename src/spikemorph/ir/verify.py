"""What makes a graph a graph of its dialect, as code: the specification of the IR."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields

import torch
from torch import Tensor

from spikemorph.errors import GraphError
from spikemorph.ir import ops
from spikemorph.ir.graph import Dialect, Graph, Node
from spikemorph.ir.shapes import infer
from spikemorph.ir.structure import Items, Leaf, Named, Structure
from spikemorph.ir.worth import check_units

ALLOWED: Mapping[Dialect, frozenset[type]] = {
    Dialect.FLOAT: ops.FLOAT_OPS,
    Dialect.PLANNED: ops.PLANNED_OPS,
    Dialect.INTEGER: ops.INTEGER_OPS,
    Dialect.RATE: ops.RATE_OPS,
}
"""The ops of each dialect."""

TENSOR_FIELDS = frozenset((
    "weight",
    "bias",
    "mean",
    "variance",
    "gain",
    "offset",
    "factor",
    "matrix",
    "breakpoints",
    "threshold",
    "first",
    "values",
    "scale",
    "unit",
))
"""Fields of ops that name tensors; every other string of an op is a choice or a remark."""

REAL_FIELDS = frozenset((("Input", "unit"), ("Readout", "scale"), ("Readout", "offset")))
"""(op, field): the float64 tensors of an integer graph; all others are int64."""

REAL_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

DEEPEST = 64
"""Outputs may be nested this deep."""

DO = "correct the pass or the file that made this graph"


def named_tensors(op: ops.Op) -> Mapping[str, str]:
    """Field name -> tensor name for each tensor that the op refers to, its chain's constants included."""
    found = {}
    for each in fields(op):
        value = getattr(op, each.name)
        if each.name in TENSOR_FIELDS and isinstance(value, str):
            found[each.name] = value
    if isinstance(op, ops.Quantiser):
        for place, link in enumerate(op.chain):
            if isinstance(link, ops.Affine):
                found |= {f"chain[{place}].{field}": name for field, name in named_tensors(link).items()}
    if isinstance(op, ops.Recurrence):
        found |= {f"cell.{field}": name for field, name in named_tensors(op.cell).items()}
    return found


def used_tensors(graph: Graph) -> dict[str, Tensor]:
    """The tensors that nodes name, sorted by name; stale ones are left out.

    Raises:
        KeyError: a tensor is missing (`verify` says so properly).
    """
    names = {name for node in graph.nodes for name in named_tensors(node.op).values()}
    return {name: graph.tensors[name] for name in sorted(names)}


def verify(graph: Graph) -> None:
    """Nothing, if the graph keeps every rule of its dialect.

    Raises:
        GraphError: the first rule that is broken, with the node and where it comes from.
    """
    earlier: dict[str, Node] = {}
    checked: set[str] = set()
    for node in graph.nodes:
        _demand(node.name not in earlier, node, "a second node of this name", "names are unique")
        allowed = ALLOWED[graph.dialect]
        known = ", ".join(sorted(each.__name__ for each in allowed))
        _demand(type(node.op) in allowed, node, f"not an op of the {graph.dialect.value} dialect", known)
        for name in node.inputs:
            _demand(name in earlier, node, f"input '{name}'", "the name of an earlier node")
        _check_tensors(graph, node, checked)
        sources = tuple(earlier[name] for name in node.inputs)
        _check_shape(graph, node, sources)
        _check_host(graph, node, sources)
        _check_recurrence(graph, node)
        if graph.dialect.whole:
            _check_integer(graph, node, sources)
        earlier[node.name] = node
    _check_inputs(graph)
    _check_outputs(graph)
    check_units(graph)


def _demand(holds: bool, node: Node, got: str, known: str, do: str = DO) -> None:
    if not holds:
        where = f"node '{node.name}' ({type(node.op).__name__}), {node.origin}"
        raise GraphError(where=where, got=got, known=known, do=do)


def _check_tensors(graph: Graph, node: Node, checked: set[str]) -> None:
    """Every named tensor exists, is of an allowed dtype, and finite; every number of the op is finite."""
    for number in _numbers(node.op):
        _demand(math.isfinite(number), node, f"the number {number}", "finite numbers")
    for field, name in named_tensors(node.op).items():
        _demand(
            name in graph.tensors, node, f"{field} '{name}', which is missing", "every named tensor exists"
        )
        tensor = graph.tensors[name]
        real = not graph.dialect.whole and tensor.dtype in REAL_DTYPES
        whole = tensor.dtype == torch.int64
        if (type(node.op).__name__, field) in REAL_FIELDS:
            known, fits = "float64", tensor.dtype == torch.float64
        elif graph.dialect.whole:
            known, fits = "int64: an integer graph computes in integers", whole
        else:
            known, fits = "a real dtype of at least 16 bits, or int64", real or whole
        _demand(fits, node, f"{field} '{name}' of {tensor.dtype}", known)
        if name not in checked and tensor.is_floating_point():
            finite = bool(torch.isfinite(tensor).all())
            _demand(finite, node, f"NaN or infinite numbers in {field} '{name}'", "finite numbers")
        checked.add(name)


def _numbers(op: object) -> Iterator[float]:
    """The floats among the fields of an op, of its functions and of its chain."""
    for each in fields(op):  # type: ignore[arg-type]
        value = getattr(op, each.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, float):
                yield part
            elif hasattr(part, "__dataclass_fields__"):
                yield from _numbers(part)


def _check_shape(graph: Graph, node: Node, sources: tuple[Node, ...]) -> None:
    """The recorded shape is the one that follows from the inputs; the element axis is one of its axes."""
    if isinstance(node.op, ops.Input):
        _demand(not sources, node, f"{len(sources)} input(s)", "an Input reads an argument, not a node")
        _demand(all(size >= 1 for size in node.shape), node, f"shape {node.shape}", "positive sizes")
    else:
        try:
            shape = infer(node.op, tuple(source.shape for source in sources), graph.tensors)
        except GraphError as error:
            _demand(False, node, error.got, error.known, error.do)
        _demand(shape == node.shape, node, f"recorded shape {node.shape}", f"{shape}, by its inputs")
    axis = node.element_axis
    fits = axis is None or 0 <= axis < len(node.shape)
    _demand(fits, node, f"element axis {axis} of shape {node.shape}", "an axis of the shape, or None")


CELLS: Mapping[Dialect, type] = {
    Dialect.FLOAT: ops.Elementwise,
    Dialect.PLANNED: ops.Quantiser,
    Dialect.INTEGER: ops.Neuron,
    Dialect.RATE: ops.IntegrateFire,
}
"""What a recurrence applies in each dialect."""


def _check_recurrence(graph: Graph, node: Node) -> None:
    if isinstance(node.op, ops.Recurrence):
        wanted = CELLS[graph.dialect]
        got = f"a cell of type {type(node.op.cell).__name__}"
        _demand(isinstance(node.op.cell, wanted), node, got, wanted.__name__)
        chain = node.op.cell.chain if isinstance(node.op.cell, ops.Quantiser) else ()
        constants = any(isinstance(link, ops.Affine) for link in chain)
        _demand(
            not constants, node, "constants in the cell's chain", "functions: constants came with the input"
        )
        axis = node.element_axis
        _demand(axis in (0, None), node, f"element axis {axis}", "0: a recurrence runs along axis 0")


def _check_host(graph: Graph, node: Node, sources: tuple[Node, ...]) -> None:
    """Host ops feed host ops only, indices nothing; in an integer graph host ops read what is decoded."""
    host = isinstance(node.op, ops.HOST)
    for source in sources:
        after_host = isinstance(source.op, ops.HOST)
        known = "after a host op come only host ops and outputs"
        _demand(host or not after_host, node, f"input '{source.name}', a host op", known)
        index = isinstance(source.op, ops.Argmax)
        _demand(not index, node, f"input '{source.name}', an Argmax", "indices are outputs only")
        decoded = after_host or isinstance(source.op, ops.Readout)
        if graph.dialect.whole and host:
            known = "host ops read a Readout or another host op"
            _demand(decoded, node, f"input '{source.name}' ({type(source.op).__name__})", known)


def _check_integer(graph: Graph, node: Node, sources: tuple[Node, ...]) -> None:
    """The rules of the integer dialect beyond dtypes and shapes."""
    for source in sources:
        fits = not isinstance(source.op, ops.Readout) or isinstance(node.op, ops.HOST)
        _demand(
            fits, node, f"input '{source.name}', a Readout", "after a Readout come only host ops and outputs"
        )
    match node.op:
        case ops.Input(lo=lo, hi=hi, unit=unit):
            _demand(lo <= 0 <= hi, node, f"counts {lo}..{hi}", "lo <= 0 <= hi")
            _demand(unit is not None, node, "no unit", "a float64 scalar above 0")
            assert unit is not None
            tensor = graph.tensors[unit]
            fits = tensor.dim() == 0 and bool((tensor > 0).all())
            _demand(fits, node, f"unit '{unit}', {_brief(tensor)}", "a float64 scalar above 0")
        case ops.Conv(bias=bias) | ops.Linear(bias=bias):
            _demand(bias is None, node, f"bias '{bias}'", "None: biases are injected by Neuron and Readout")
        case ops.AxisMap(denominator=denominator):
            _demand(denominator == 1, node, f"denominator {denominator}", "1: the rest went into the unit")
        case ops.Pad(value=value):
            _demand(value == 0, node, f"pad value {value}", "0: zero is count 0")
        case ops.Neuron() as neuron:
            _check_neuron(graph, node, neuron)
        case ops.IntegrateFire(threshold=threshold, first=first):
            for field, name in (("threshold", threshold), ("first", first)):
                tensor = graph.tensors[name]
                _demand(
                    bool((tensor > 0).all()), node, f"{field} '{name}', {_brief(tensor)}", "numbers above 0"
                )
        case ops.Recurrence(cell=ops.Neuron() as neuron):
            _check_neuron(graph, node, neuron)


def _check_neuron(graph: Graph, node: Node, op: ops.Neuron) -> None:
    breakpoints = graph.tensors[op.breakpoints]
    rising = bool((breakpoints[..., 1:] >= breakpoints[..., :-1]).all())
    _demand(rising, node, f"breakpoints '{op.breakpoints}' that fall", "sorted upwards along the last axis")
    if op.values is not None:
        values = graph.tensors[op.values]
        inside = bool(((values >= op.lo) & (values <= op.hi)).all())
        _demand(inside, node, f"values '{op.values}', {_brief(values)}", f"all in {op.lo}..{op.hi}")


def _brief(tensor: Tensor) -> str:
    if tensor.numel() == 0:
        return f"empty, of shape {tuple(tensor.shape)}"
    return f"{tensor.min().item()}..{tensor.max().item()} of shape {tuple(tensor.shape)}"


def _check_inputs(graph: Graph) -> None:
    numbers = [node.op.index for node in graph.nodes if isinstance(node.op, ops.Input)]
    if not numbers or sorted(numbers) != list(range(len(numbers))):
        raise GraphError(
            where="the graph's inputs",
            got=f"argument numbers {sorted(numbers)}",
            known="0, 1, ... each once, at least one",
            do=DO,
        )


def _check_outputs(graph: Graph) -> None:
    """Outputs exist, and the structure has a place for each; an integer graph hands out decoded values."""
    nodes = {node.name: node for node in graph.nodes}
    for name in graph.outputs:
        if name not in nodes:
            raise GraphError(where="the graph's outputs", got=f"'{name}'", known="names of nodes", do=DO)
        fits = not graph.dialect.whole or isinstance(nodes[name].op, (ops.Readout, *ops.HOST))
        _demand(fits, nodes[name], "an output", "outputs of an integer graph are Readouts or host ops")
    leaves = set(_leaves(graph.structure, DEEPEST))
    if not graph.outputs or leaves != set(range(len(graph.outputs))):
        raise GraphError(
            where="the structure of the graph's outputs",
            got=f"leaves {sorted(leaves)} for {len(graph.outputs)} output(s)",
            known="every output has a leaf and every leaf an output, at least one",
            do=DO,
        )


def _leaves(structure: Structure, depth: int) -> Iterator[int]:
    where = "the structure of the graph's outputs"
    if depth == 0:
        raise GraphError(where=where, got="deeper nesting", known=f"at most {DEEPEST} levels", do=DO)
    match structure:
        case Leaf(index):
            yield index
        case Items(items):
            for each in items:
                yield from _leaves(each, depth - 1)
        case Named(keys, items):
            if len(set(keys)) != len(keys) or len(keys) != len(items):
                raise GraphError(
                    where=where, got=f"keys {keys} for {len(items)} values", known="one key a value", do=DO
                )
            for each in items:
                yield from _leaves(each, depth - 1)
