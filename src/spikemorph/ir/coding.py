"""Nodes and output structures as JSON values and back; decoding trusts nothing."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from spikemorph.ir import functions, ops
from spikemorph.ir.graph import Node, Origin
from spikemorph.ir.structure import Items, Leaf, Named, Structure

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]

OPS: Mapping[str, type] = {kind.__name__: kind for kind in ops.ALL_OPS}
LINKS: Mapping[str, type] = {kind.__name__: kind for kind in (*functions.FUNCTIONS, ops.Affine)}
"""What a type name can mean: these classes and nothing else."""

HINTS: Mapping[type, Mapping[str, Any]] = {
    kind: typing.get_type_hints(kind) for kind in (*OPS.values(), *LINKS.values())
}

LARGEST = 2**63 - 1
"""Whole numbers of ops, shapes and structures stay within 64 bits."""
FARTHEST = sys.float_info.max


class DamagedError(Exception):
    """A JSON value that is not what it should be; whoever knows the file makes a FileError of it."""


def expect(holds: bool, where: str, got: object, known: str) -> None:
    """Nothing, if it holds.

    Raises:
        DamagedError: it does not.
    """
    if not holds:
        words = repr(got)
        raise DamagedError(f"{where} is {words if len(words) <= 80 else words[:77] + '...'}, not {known}")


# ---------------------------------------------------------------- nodes
def encode_node(node: Node) -> dict[str, JSON]:
    """Everything but the origin."""
    return {
        "name": node.name,
        "op": _encode(node.op),
        "inputs": list(node.inputs),
        "shape": list(node.shape),
        "element_axis": node.element_axis,
    }


def encode_origin(node: Node) -> list[str]:
    """The three strings of an origin."""
    return [node.origin.module, node.origin.source, node.origin.call]


def decode_node(value: Any) -> Node:
    """The node of `encode_node` with an entry "origin".

    Raises:
        DamagedError: anything is missing, too much, unknown or of another type.
    """
    entries = {"name", "op", "inputs", "shape", "element_axis", "origin"}
    expect(isinstance(value, dict) and value.keys() == entries, "a node", value, f"{sorted(entries)}")
    name = string(value["name"], "the name of a node")
    where = f"node '{name}'"
    origin = [string(part, f"{where}, origin") for part in listed(value["origin"], f"{where}, origin")]
    expect(len(origin) == 3, f"{where}, origin", origin, "three strings")
    axis = value["element_axis"]
    return Node(
        name=name,
        op=_decode(OPS, value["op"], where),
        inputs=tuple(
            string(each, f"{where}, inputs") for each in listed(value["inputs"], f"{where}, inputs")
        ),
        shape=tuple(whole(each, f"{where}, shape") for each in listed(value["shape"], f"{where}, shape")),
        origin=Origin(*origin),
        element_axis=None if axis is None else whole(axis, f"{where}, element_axis"),
    )


# ---------------------------------------------------------------- ops, functions
def _encode(value: Any) -> dict[str, JSON]:
    """{"type": class name, field: value, ...} of an op or function."""
    hints = HINTS[type(value)]
    parts = {each.name: _encode_as(hints[each.name], getattr(value, each.name)) for each in fields(value)}
    return {"type": type(value).__name__, **parts}


def _encode_as(hint: Any, value: Any) -> JSON:
    if isinstance(value, tuple):
        (inner, _) = typing.get_args(hint)
        return [_encode_as(inner, each) for each in value]
    if type(value) in HINTS:
        return _encode(value)
    # Clamp(0, 6) and Clamp(0.0, 6.0) are equal, so they must read the same.
    real = isinstance(value, int) and not isinstance(value, bool) and float in (hint, *typing.get_args(hint))
    return float(value) if real else value


def _decode(kinds: Mapping[str, type], value: Any, where: str) -> Any:
    """The op or function, built only if every field is there and of its declared type."""
    expect(isinstance(value, dict), where, value, "an object")
    name = value.get("type")
    expect(isinstance(name, str) and name in kinds, f"{where}, type", name, "a known op or function")
    kind = kinds[name]
    hints = HINTS[kind]
    got = sorted(value.keys() - {"type"})
    expect(got == sorted(hints), f"{where}, fields of {name}", got, f"{sorted(hints)}")
    return kind(**{
        field: _decode_as(hint, value[field], f"{where}, {field}") for field, hint in hints.items()
    })


def _decode_as(hint: Any, value: Any, where: str) -> Any:
    if hint in READERS:
        return READERS[hint](value, where)
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return tuple(_decode_as(choices[0], each, where) for each in listed(value, where))
    assert typing.get_origin(hint) in (typing.Union, types.UnionType), f"no reader for {hint}"
    if type(None) in choices:
        inner = next(each for each in choices if each is not type(None))
        return None if value is None else _decode_as(inner, value, where)
    return _decode({each.__name__: each for each in choices if each in HINTS}, value, where)


def whole(value: Any, where: str) -> int:
    """The value, an int of 64 bits."""
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
    expect(fits, where, value, "a whole number of 64 bits")
    return int(value)


def real(value: Any, where: str) -> float:
    """The value, a finite number."""
    fits = isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool))
    expect(fits and abs(value) <= FARTHEST, where, value, "a finite number")
    return float(value)


def _truth(value: Any, where: str) -> bool:
    expect(isinstance(value, bool), where, value, "true or false")
    return bool(value)


def string(value: Any, where: str) -> str:
    """The value, a string."""
    expect(isinstance(value, str), where, value, "a string")
    return str(value)


def listed(value: Any, where: str) -> list[Any]:
    """The value, a list."""
    expect(isinstance(value, list), where, value, "a list")
    return list(value)


READERS: Mapping[Any, Callable[[Any, str], Any]] = {int: whole, float: real, bool: _truth, str: string}


# ---------------------------------------------------------------- structure
def encode_structure(structure: Structure) -> JSON:
    """A leaf as its number, else {"tuple": [...]}, {"list": [...]} or {"dict": [[key, value], ...]}."""
    match structure:
        case Leaf(index):
            return index
        case Items(items, is_list):
            return {"list" if is_list else "tuple": [encode_structure(each) for each in items]}
        case Named(keys, items):
            pairs = zip(keys, items, strict=True)
            return {"dict": [[key, encode_structure(each)] for key, each in pairs]}


def decode_structure(value: Any) -> Structure:
    """The inverse of `encode_structure`.

    Raises:
        DamagedError: none of its forms.
        RecursionError: nested without end.
    """
    where = "structure"
    match value:
        case {"list": list(parts), **rest} if not rest:
            return Items(tuple(decode_structure(each) for each in parts), is_list=True)
        case {"tuple": list(parts), **rest} if not rest:
            return Items(tuple(decode_structure(each) for each in parts))
        case {"dict": list(parts), **rest} if not rest:
            pairs = [listed(each, where) for each in parts]
            expect(all(len(each) == 2 for each in pairs), where, value, "pairs of key and value")
            keys = tuple(string(key, where) for key, _ in pairs)
            return Named(keys, tuple(decode_structure(each) for _, each in pairs))
        case _:
            return Leaf(whole(value, where))
