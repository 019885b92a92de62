"""Graphs in one safetensors file: a JSON header, tensors, no code.

The header is the metadata entry "spikemorph": {"format", "kind", "dialect", "nodes", "outputs", "structure",
"hash", "extra"}. Whole numbers are stored in the narrowest integer type that holds a tensor's values.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spikemorph.errors import FileError, GraphError
from spikemorph.files import atomic_write
from spikemorph.ir import functions, ops
from spikemorph.ir.graph import Dialect, Graph, Node, Origin
from spikemorph.ir.structure import Items, Leaf, Named, Structure
from spikemorph.ir.verify import named_tensors, used_tensors, verify

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]
Kind = Literal["graph", "network"]

FORMAT = 1
"""Written into every file; a reader refuses files of a higher one."""

ENTRY = "spikemorph"

OPS: Mapping[str, type] = {kind.__name__: kind for kind in ops.ALL_OPS}
LINKS: Mapping[str, type] = {kind.__name__: kind for kind in (*functions.FUNCTIONS, ops.Affine)}
"""What a name in a file can mean: these classes and nothing else."""

NARROW = (torch.int8, torch.int16, torch.int32)
STORED = frozenset(("F16", "BF16", "F32", "F64", "I8", "I16", "I32", "I64"))

LARGEST = 2**63 - 1
"""Whole numbers of ops, shapes and structures stay within 64 bits."""


class _Damaged(Exception):
    """Where the header went wrong, and how; becomes a FileError that knows the path."""


# ---------------------------------------------------------------- front
def write(path: Path | str, graph: Graph, kind: Kind, extra: Mapping[str, JSON]) -> None:
    """One file with the graph; tensors that no node names are left out.

    Args:
        path: written whole or not at all.
        kind: what `extra` belongs to.
        extra: finite numbers, strings, lists and dicts.

    Raises:
        GraphError: the graph breaks the rules of its dialect; no file is written.
        FileError: the file cannot be written.
    """
    verify(graph)
    header = {
        "format": FORMAT,
        "kind": kind,
        "dialect": graph.dialect.value,
        "nodes": [_encode_node(node) | {"origin": _origin(node)} for node in graph.nodes],
        "outputs": list(graph.outputs),
        "structure": encode_structure(graph.structure),
        "hash": graph_hash(graph),
        "extra": extra,
    }
    tensors = {_key(name): _narrowed(tensor) for name, tensor in used_tensors(graph).items()}
    metadata = {ENTRY: _canonical(header)}

    def save(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    atomic_write(path, save)


def read(path: Path | str) -> tuple[Graph, Kind, dict[str, Any]]:
    """The verified graph of a file, its kind, and what was written beside it.

    Raises:
        FileError: there is no such file, it is none of ours, of a newer format, damaged or hostile.
    """
    _check_place(Path(path))
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = _header(file.metadata())
            graph = _graph(header, lambda names: _load(file, names))
            kind, extra = _field(header, "kind"), _field(header, "extra")
        _expect(kind in ("graph", "network"), "kind", kind, "graph or network")
        _expect(isinstance(extra, dict), "extra", extra, "an object")
        verify(graph)
        _expect(graph_hash(graph) == header.get("hash"), "hash", "another one", "the hash of its contents")
    except FileError as error:
        raise FileError(where=f"file {path}", got=error.got, known=error.known, do=error.do) from None
    except (SafetensorError, OSError) as error:
        raise _file_error(path, f"no readable safetensors file: {error}") from error
    except _Damaged as error:
        raise _file_error(path, f"a damaged header: {error}") from error
    except GraphError as error:
        raise _file_error(path, f"a graph that breaks the rules: {error.where}: {error.got}") from error
    except RecursionError as error:
        raise _file_error(path, "a header nested without end") from error
    return graph, kind, extra


def graph_hash(graph: Graph) -> str:
    """SHA-256, in hex, of what the graph computes: its ops, wiring, structure and every tensor they name.

    Origins, the order of tensors and tensors that no node names do not enter.
    """
    description = {
        "dialect": graph.dialect.value,
        "nodes": [_encode_node(node) for node in graph.nodes],
        "outputs": list(graph.outputs),
        "structure": encode_structure(graph.structure),
    }
    digest = hashlib.sha256(_canonical(description).encode())
    for name, tensor in used_tensors(graph).items():
        digest.update(_canonical([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _canonical(value: JSON) -> str:
    """JSON that depends on the value only: sorted keys, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


# ---------------------------------------------------------------- errors
def _file_error(path: Path | str, got: str) -> FileError:
    return FileError(
        where=f"file {path}",
        got=got,
        known="a file that spikemorph wrote, unchanged",
        do="fetch or write the file again",
    )


def _check_place(path: Path) -> None:
    if path.is_file():
        return
    got = "a folder" if path.is_dir() else "neither file nor folder" if path.exists() else "no such file"
    raise FileError(
        where=f"file {path}",
        got=got,
        known="the path of a file that spikemorph wrote",
        do="correct the path; a relative one starts at the current folder",
    )


def _expect(holds: bool, where: str, got: object, known: str) -> None:
    if not holds:
        text = repr(got)
        raise _Damaged(f"{where} is {text if len(text) <= 80 else text[:77] + '...'}, not {known}")


# ---------------------------------------------------------------- header
def _header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    if ENTRY not in (metadata or {}):
        raise FileError(
            where="the file",
            got="a safetensors file of another program",
            known=f"files of spikemorph have a metadata entry '{ENTRY}'",
            do="load it with torch and capture the model; spikemorph reads back only what it wrote",
        )
    assert metadata is not None
    try:
        header = json.loads(metadata[ENTRY], parse_constant=_no_constant)
    except ValueError as error:
        raise _Damaged(f"no JSON ({error})") from error
    _expect(isinstance(header, dict), "it", header, "an object")
    version = _whole(header.get("format"), "format")
    if version > FORMAT:
        raise FileError(
            where="the file",
            got=f"format {version}, written by a newer spikemorph",
            known=f"this spikemorph reads formats up to {FORMAT}",
            do="upgrade spikemorph",
        )
    _expect(version == FORMAT, "format", version, f"{FORMAT}")
    known = {"format", "kind", "dialect", "nodes", "outputs", "structure", "hash", "extra"}
    _expect(header.keys() == known, "the set of entries", sorted(header), f"{sorted(known)}")
    return header


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no finite number")


def _field(header: Mapping[str, Any], name: str) -> Any:
    return header[name]


def _graph(header: Mapping[str, Any], load: Callable[[set[str]], dict[str, Tensor]]) -> Graph:
    dialects = {each.value: each for each in Dialect}
    dialect = header["dialect"]
    _expect(isinstance(dialect, str) and dialect in dialects, "dialect", dialect, f"one of {list(dialects)}")
    nodes = tuple(_decode_node(value) for value in _listed(header["nodes"], "nodes"))
    outputs = tuple(_string(name, "an output") for name in _listed(header["outputs"], "outputs"))
    structure = decode_structure(header["structure"])
    tensors = load({name for node in nodes for name in named_tensors(node.op).values()})
    return Graph(dialects[dialect], nodes, outputs, tensors, structure)


# ---------------------------------------------------------------- nodes
def _encode_node(node: Node) -> dict[str, JSON]:
    return {
        "name": node.name,
        "op": _encode(node.op),
        "inputs": list(node.inputs),
        "shape": list(node.shape),
        "element_axis": node.element_axis,
    }


def _origin(node: Node) -> list[str]:
    return [node.origin.module, node.origin.source, node.origin.call]


def _decode_node(value: Any) -> Node:
    entries = {"name", "op", "inputs", "shape", "element_axis", "origin"}
    _expect(isinstance(value, dict) and value.keys() == entries, "a node", value, f"{sorted(entries)}")
    name = _string(value["name"], "the name of a node")
    where = f"node '{name}'"
    origin = [_string(part, f"{where}, origin") for part in _listed(value["origin"], f"{where}, origin")]
    _expect(len(origin) == 3, f"{where}, origin", origin, "three strings")
    axis = value["element_axis"]
    return Node(
        name=name,
        op=_decode(OPS, value["op"], where),
        inputs=tuple(
            _string(each, f"{where}, inputs") for each in _listed(value["inputs"], f"{where}, inputs")
        ),
        shape=tuple(_whole(each, f"{where}, shape") for each in _listed(value["shape"], f"{where}, shape")),
        origin=Origin(*origin),
        element_axis=None if axis is None else _whole(axis, f"{where}, element_axis"),
    )


# ---------------------------------------------------------------- ops, functions
@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _encode(value: Any) -> dict[str, JSON]:
    """{"type": class name, field: value, ...} of an op or function."""
    hints = _hints(type(value))
    parts = {each.name: _encode_as(hints[each.name], getattr(value, each.name)) for each in fields(value)}
    return {"type": type(value).__name__, **parts}


def _encode_as(hint: Any, value: Any) -> JSON:
    if isinstance(value, tuple):
        (inner, _) = typing.get_args(hint)
        return [_encode_as(inner, each) for each in value]
    if type(value).__name__ in LINKS:
        return _encode(value)
    # Clamp(0, 6) and Clamp(0.0, 6.0) are equal, so they must read the same.
    real = isinstance(value, int) and not isinstance(value, bool) and float in (hint, *typing.get_args(hint))
    return float(value) if real else value


def _decode(kinds: Mapping[str, type], value: Any, where: str) -> Any:
    """The op or function, built only if every field is there and of its declared type."""
    _expect(isinstance(value, dict), where, value, "an object")
    name = value.get("type")
    _expect(isinstance(name, str) and name in kinds, f"{where}, type", name, "a known op or function")
    kind = kinds[name]
    hints = _hints(kind)
    got = sorted(value.keys() - {"type"})
    _expect(got == sorted(hints), f"{where}, fields of {name}", got, f"{sorted(hints)}")
    return kind(**{
        field: _decode_as(hint, value[field], f"{where}, {field}") for field, hint in hints.items()
    })


def _decode_as(hint: Any, value: Any, where: str) -> Any:
    if hint in READERS:
        return READERS[hint](value, where)
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return tuple(_decode_as(choices[0], each, where) for each in _listed(value, where))
    assert typing.get_origin(hint) in (typing.Union, types.UnionType), f"no reader for {hint}"
    if type(None) in choices:
        inner = next(each for each in choices if each is not type(None))
        return None if value is None else _decode_as(inner, value, where)
    return _decode({each.__name__: each for each in choices if each.__name__ in LINKS}, value, where)


def _whole(value: Any, where: str) -> int:
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
    _expect(fits, where, value, "a whole number of 64 bits")
    return int(value)


def _real(value: Any, where: str) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    _expect(fits and abs(value) < math.inf, where, value, "a finite number")
    return float(value)


def _truth(value: Any, where: str) -> bool:
    _expect(isinstance(value, bool), where, value, "true or false")
    return bool(value)


def _string(value: Any, where: str) -> str:
    _expect(isinstance(value, str), where, value, "a string")
    return str(value)


def _listed(value: Any, where: str) -> list[Any]:
    _expect(isinstance(value, list), where, value, "a list")
    return list(value)


READERS: Mapping[Any, Callable[[Any, str], Any]] = {int: _whole, float: _real, bool: _truth, str: _string}


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
    """The inverse of `encode_structure`."""
    where = "structure"
    match value:
        case {"list": list(parts), **rest} if not rest:
            return Items(tuple(decode_structure(each) for each in parts), is_list=True)
        case {"tuple": list(parts), **rest} if not rest:
            return Items(tuple(decode_structure(each) for each in parts))
        case {"dict": list(parts), **rest} if not rest:
            pairs = [_listed(each, where) for each in parts]
            _expect(all(len(each) == 2 for each in pairs), where, value, "pairs of key and value")
            keys = tuple(_string(key, where) for key, _ in pairs)
            return Named(keys, tuple(decode_structure(each) for _, each in pairs))
        case _:
            return Leaf(_whole(value, where))


# ---------------------------------------------------------------- tensors
def _key(name: str) -> str:
    """The tensor's entry in the file: its name, in JSON quotes where safetensors could not take it."""
    plain = name.isascii() and name.isprintable() and not name.startswith(('"', "__"))
    return name if plain else json.dumps(name)


def _narrowed(tensor: Tensor) -> Tensor:
    """A fresh contiguous copy; int64 in the narrowest type that holds every value."""
    dtype = tensor.dtype
    if dtype == torch.int64:
        lo, hi = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 0)
        holds = (each for each in NARROW if torch.iinfo(each).min <= lo and hi <= torch.iinfo(each).max)
        dtype = next(holds, torch.int64)
    return tensor.detach().to("cpu", dtype, copy=True).contiguous()


def _load(file: Any, names: set[str]) -> dict[str, Tensor]:
    """The tensors, as memory of their own, whole numbers as int64."""
    keys = {_key(name): name for name in sorted(names)}
    _expect(set(file.keys()) == keys.keys(), "the set of tensors", sorted(file.keys()), f"{sorted(keys)}")
    tensors = {}
    for key, name in keys.items():
        part = file.get_slice(key)
        _expect(part.get_dtype() in STORED, f"tensor '{name}'", part.get_dtype(), f"of {sorted(STORED)}")
        _expect(
            math.prod(part.get_shape()) <= LARGEST, f"tensor '{name}'", part.get_shape(), "a possible shape"
        )
        _expect(
            max(part.get_shape(), default=0) <= LARGEST, f"tensor '{name}'", "a huge axis", "a possible one"
        )
        tensor = file.get_tensor(key)
        tensors[name] = tensor.clone() if tensor.is_floating_point() else tensor.to(torch.int64, copy=True)
    return tensors
