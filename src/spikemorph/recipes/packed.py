"""Shipped float networks: large weights in two bytes or one, the rest as it was, one safetensors file.

The network that results are compared with is the one that is read back, not the one that was trained.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spikemorph.errors import FileError
from spikemorph.files import atomic_write
from spikemorph.ir import store
from spikemorph.ir.graph import Graph

FORMAT = 1
"""Written into every file; a reader refuses files of another one."""
ENTRY = "spikemorph-packed"
WHOLE, HALF, BYTE, STEP = "whole:", "half:", "byte:", "step:"
"""How a tensor is stored, in front of its name."""
_LARGEST = 127
_GRAPH = "graph"


@final
@dataclass(frozen=True, slots=True)
class Half:
    """Two bytes a weight: float16."""


@final
@dataclass(frozen=True, slots=True)
class Byte:
    """One byte a weight: int8 times a float32 step for each index of axis 0, symmetric around zero."""


Precision = Half | Byte
"""Of float weights of two or more axes; others, and those that float16 cannot hold, stay as they are."""


def pack_state(state: Mapping[str, Tensor], path: Path | str, precision: Precision) -> None:
    """One file with a state dict. It appears whole or not at all.

    Raises:
        FileError: it cannot be written.
    """
    _write(Path(path), _packed(state, precision), {})


def unpack_state(path: Path | str) -> dict[str, Tensor]:
    """The tensors of `pack_state`, by name, what was packed as float32.

    Raises:
        FileError: not there, damaged, or no file of `pack_state`.
    """
    tensors, metadata = _read(Path(path))
    if _GRAPH in metadata:
        raise _foreign(path, "a packed graph", "a packed state dict")
    return tensors


def pack_graph(graph: Graph, path: Path | str, precision: Precision) -> None:
    """One file with a float graph. It appears whole or not at all.

    Raises:
        GraphError: the graph breaks the rules of its dialect; no file is written.
        FileError: it cannot be written.
    """
    packed = _packed(graph.tensors, precision)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "graph.safetensors"
        store.write(plain, graph.with_nodes(graph.nodes, tensors=_unpacked(packed)), "graph", {})
        with safe_open(plain, framework="pt", device="cpu") as file:
            kept, header = set(file.keys()), file.metadata()[store.ENTRY]
    used = {key: each for key, each in packed.items() if key.partition(":")[2] in kept}
    _write(Path(path), used, {_GRAPH: header})


def unpack_graph(path: Path | str) -> Graph:
    """The graph of `pack_graph`, checked, what was packed as float32.

    Raises:
        FileError: not there, damaged, or no file of `pack_graph`.
    """
    tensors, metadata = _read(Path(path))
    if _GRAPH not in metadata:
        raise _foreign(path, "a packed state dict", "a packed graph")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "graph.safetensors"
        save_file(tensors, plain, metadata={store.ENTRY: metadata[_GRAPH]})
        try:
            return store.read(plain)[0]
        except FileError as error:
            raise FileError(where=f"file {path}", got=error.got, known=error.known, do=error.do) from error


def rounded(state: Mapping[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    """What a state dict is after packing and unpacking."""
    return _unpacked(_packed(state, precision))


def halved(graph: Graph) -> Graph:
    """A float graph with the weights that `Half` packs in float16, which every stage takes: half the file.

    What it computes is what the graph computes after `rounded(..., Half())`.
    """
    packed = _packed(graph.tensors, Half())
    return graph.with_nodes(
        graph.nodes, tensors={key.partition(":")[2]: each for key, each in packed.items()}
    )


# ---------------------------------------------------------------- tensors
def _packed(state: Mapping[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        if not tensor.is_floating_point() or tensor.dim() < 2 or not tensor.numel():
            made[WHOLE + name] = tensor.clone()
        elif isinstance(precision, Byte):
            made |= _bytes(name, tensor.float())
        elif (half := tensor.half()).isfinite().all():
            made[HALF + name] = half
        else:
            made[WHOLE + name] = tensor.clone()
    return made


def _bytes(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if not tensor.isfinite().all():
        return {WHOLE + name: tensor}
    largest = tensor.flatten(1).abs().amax(1)
    step = torch.where(largest > 0, largest / _LARGEST, 1.0)
    counts = (tensor / _along(step, tensor)).round().clamp(-_LARGEST, _LARGEST)
    return {BYTE + name: counts.to(torch.int8), STEP + name: step}


def _unpacked(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for key, tensor in packed.items():
        kind, _, name = key.partition(":")
        if kind + ":" == WHOLE:
            made[name] = tensor
        elif kind + ":" == HALF:
            made[name] = tensor.float()
        elif kind + ":" == BYTE:
            made[name] = tensor.float() * _along(packed[STEP + name], tensor)
    return made


def _along(step: Tensor, tensor: Tensor) -> Tensor:
    return step.reshape(-1, *[1] * (tensor.dim() - 1))


# ---------------------------------------------------------------- files
def _write(path: Path, tensors: dict[str, Tensor], extra: dict[str, str]) -> None:
    metadata = {ENTRY: json.dumps({"format": FORMAT}), **extra}

    def save(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    atomic_write(path, save)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Unpacked tensors and the metadata."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata: dict[str, str] = file.metadata() or {}
            packed = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no mapping
    except (SafetensorError, OSError) as error:
        raise _foreign(path, f"no readable safetensors file: {error}", "a file of packed weights") from error
    if metadata.get(ENTRY) != json.dumps({"format": FORMAT}):
        got = f"an entry {ENTRY!r} of {metadata.get(ENTRY)!r}"
        raise _foreign(path, got, f"packed weights of format {FORMAT}")
    fault = next((key for key, tensor in packed.items() if not _sound(key, tensor, packed)), None)
    if fault is not None:
        raise _foreign(path, f"a tensor {fault!r} that does not fit", "whole, half, or byte and step")
    return _unpacked(packed), metadata


def _sound(key: str, tensor: Tensor, packed: Mapping[str, Tensor]) -> bool:
    kind, _, name = key.partition(":")
    match kind + ":":
        case "whole:":
            return True
        case "half:":
            return tensor.dtype == torch.float16
        case "byte:":
            step = packed.get(STEP + name)
            return tensor.dtype == torch.int8 and step is not None and step.shape == tensor.shape[:1]
        case "step:":
            return tensor.dtype == torch.float32 and BYTE + name in packed
        case _:
            return False


def _foreign(path: Path | str, got: str, known: str) -> FileError:
    return FileError(where=f"file {path}", got=got, known=known, do="fetch or make the file again")
