"""Graphs in one safetensors file: a JSON header, tensors, no code.

The header is the metadata entry "spikemorph": {"format", "kind", "dialect", "nodes", "outputs", "structure",
"hash", "extra"} and perhaps "units". Whole numbers are stored in the narrowest integer type that holds a
tensor's values.
"""

from __future__ import annotations

import hashlib
import json
import math
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spikemorph.errors import FileError, GraphError
from spikemorph.files import atomic_write
from spikemorph.ir.coding import (
    JSON,
    DamagedError,
    decode_node,
    decode_structure,
    encode_node,
    encode_origin,
    encode_structure,
    expect,
    listed,
    string,
    whole,
)
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.verify import DEEPEST, named_tensors, used_tensors, verify
from spikemorph.ir.worth import decode_units, encode_units

Kind = Literal["graph", "network"]
KINDS: tuple[Kind, ...] = typing.get_args(Kind)

FORMAT = 1
"""Written into every file; a reader refuses files of a higher one."""

ENTRY = "spikemorph"
ENTRIES = frozenset(("format", "kind", "dialect", "nodes", "outputs", "structure", "hash", "extra"))
UNITS = "units"

NARROW = (torch.int8, torch.int16, torch.int32)
MOST = 2**40
"""Numbers in one tensor."""
STORED = frozenset(("F16", "BF16", "F32", "F64", "I8", "I16", "I32", "I64"))


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
    header: dict[str, JSON] = {
        "format": FORMAT,
        "kind": kind,
        "dialect": graph.dialect.value,
        "nodes": [encode_node(node) | {"origin": encode_origin(node)} for node in graph.nodes],
        "outputs": list(graph.outputs),
        "structure": encode_structure(graph.structure),
        "hash": graph_hash(graph),
        "extra": extra,
    }
    if graph.units:
        header[UNITS] = encode_units(graph.units)
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
    try:
        _check_place(Path(path))
        with safe_open(path, framework="pt", device="cpu") as file:
            header = _header(file.metadata())
            graph = _graph(header, lambda names: _load(file, names))
        verify(graph)
        expect(graph_hash(graph) == header["hash"], "the hash", header["hash"], "that of the contents")
    except FileError as error:
        raise FileError(where=f"file {path}", got=error.got, known=error.known, do=error.do) from None
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, f"no readable safetensors file: {error}") from error
    except DamagedError as error:
        raise _unreadable(path, f"a damaged header: {error}") from error
    except GraphError as error:
        got = f"a graph against the rules: {error.where}: {error.got}, known: {error.known}"
        raise _unreadable(path, got) from error
    except RecursionError as error:
        raise _unreadable(path, "a header nested without end") from error
    return graph, header["kind"], header["extra"]


def graph_hash(graph: Graph) -> str:
    """SHA-256, in hex, of what the graph computes: its ops, wiring, structure and every tensor they name.

    Origins, units, the order of tensors and tensors that no node names do not enter.
    """
    description = {
        "dialect": graph.dialect.value,
        "nodes": [encode_node(node) for node in graph.nodes],
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
def _unreadable(path: Path | str, got: str) -> FileError:
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
        header: Any = json.loads(metadata[ENTRY], parse_constant=_finite, parse_float=_finite)
    except ValueError as error:
        raise DamagedError(f"no JSON ({error})") from error
    expect(isinstance(header, dict), "it", header, "an object")
    version = whole(header.get("format"), "format")
    if version > FORMAT:
        raise FileError(
            where="the file",
            got=f"format {version}, written by a newer spikemorph",
            known=f"this spikemorph reads formats up to {FORMAT}",
            do="upgrade spikemorph",
        )
    expect(version == FORMAT, "format", version, f"{FORMAT}")
    expect(header.keys() - {UNITS} == ENTRIES, "the set of entries", sorted(header), f"{sorted(ENTRIES)}")
    expect(header["kind"] in KINDS, "kind", header["kind"], f"one of {KINDS}")
    expect(isinstance(header["extra"], dict), "extra", header["extra"], "an object")
    return dict(header)


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word} is no finite number")
    return number


def _graph(header: Mapping[str, Any], load: Callable[[set[str]], dict[str, Tensor]]) -> Graph:
    dialects = {each.value: each for each in Dialect}
    dialect = header["dialect"]
    expect(isinstance(dialect, str) and dialect in dialects, "dialect", dialect, f"one of {list(dialects)}")
    nodes = tuple(decode_node(value) for value in listed(header["nodes"], "nodes"))
    outputs = tuple(string(name, "an output") for name in listed(header["outputs"], "outputs"))
    structure = decode_structure(header["structure"])
    tensors = load({name for node in nodes for name in named_tensors(node.op).values()})
    return Graph(dialects[dialect], nodes, outputs, tensors, structure, decode_units(header.get(UNITS, {})))


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
    expect(set(file.keys()) == keys.keys(), "the set of tensors", sorted(file.keys()), f"{sorted(keys)}")
    tensors = {}
    for key, name in keys.items():
        part = file.get_slice(key)
        dtype, shape = part.get_dtype(), part.get_shape()
        expect(dtype in STORED, f"tensor '{name}'", dtype, f"one of {sorted(STORED)}")
        # An empty tensor may claim axes of any size; their product must not overflow inside torch.
        possible = math.prod(max(size, 1) for size in shape) <= MOST
        expect(possible and len(shape) <= DEEPEST, f"tensor '{name}'", shape, "a possible shape")
        tensor = file.get_tensor(key)
        tensors[name] = tensor.clone() if tensor.is_floating_point() else tensor.to(torch.int64, copy=True)
    return tensors
