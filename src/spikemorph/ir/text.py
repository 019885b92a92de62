"""A graph as text, for reading and for diffs."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass

from spikemorph.ir.graph import Graph, Node
from spikemorph.ir.structure import Items, Leaf, Named, Structure


def text(graph: Graph) -> str:
    """A head line, one aligned line a node (name, op, inputs, shape), and the outputs."""
    head = f"{graph.dialect.value} graph, {len(graph.nodes)} nodes"
    rows = [_row(node) for node in graph.nodes]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    foot = f"outputs: {_nested(graph.structure, graph.outputs)}"
    return "\n".join([head, *(f"  {line}".rstrip() for line in lines), foot]) + "\n"


def _row(node: Node) -> tuple[str, str, str, str]:
    sizes = [str(size) for size in node.shape]
    if node.element_axis is not None:
        sizes[node.element_axis] += " elements"
    inputs = ", ".join(_word(name) for name in node.inputs)
    return _word(node.name), _call(node.op), f"<- {inputs}" if inputs else "", f"[{', '.join(sizes)}]"


def _call(value: object) -> str:
    """An op or function with every field that is not at its default."""
    assert is_dataclass(value)
    parts = []
    for each in fields(value):
        got = getattr(value, each.name)
        if each.default is MISSING or got != each.default:
            parts.append(f"{each.name}={_value(got)}")
    return f"{type(value).__name__}({', '.join(parts)})"


def _value(value: object) -> str:
    if is_dataclass(value):
        return _call(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_value(each) for each in value)}]"
    return _word(value) if isinstance(value, str) else repr(value)


def _word(name: str) -> str:
    """A name as it is; quoted and escaped where it could be taken for something else."""
    plain = name.isprintable() and name and not set(name) & set(" ,()[]{}=:'\"")
    return name if plain else ascii(name)


def _nested(structure: Structure, outputs: tuple[str, ...]) -> str:
    match structure:
        case Leaf(index):
            return _word(outputs[index])
        case Items(items, is_list):
            inside = ", ".join(_nested(each, outputs) for each in items)
            return f"[{inside}]" if is_list else f"({inside})"
        case Named(keys, items):
            pairs = zip(keys, items, strict=True)
            return f"{{{', '.join(f'{_word(key)}: {_nested(each, outputs)}' for key, each in pairs)}}}"
