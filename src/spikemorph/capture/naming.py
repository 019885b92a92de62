"""Names and origins of nodes, read off the module stack and stack trace of an exported operation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import fx

from spikemorph.ir.graph import Origin

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_TORCH = str(Path(torch.__file__).parent)
_REPEATED_CALL = re.compile(r"@\d+")
_PLAIN_NAMES = {
    "_native_batch_norm_legit_no_training": "batch_norm",
    "max_pool2d_with_indices": "max_pool2d",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "view": "reshape",
    "_unsafe_view": "reshape",
    "constant_pad_nd": "pad",
    "convolution": "conv",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
}


def packet(target: object) -> str:
    """ "conv2d" for aten.conv2d.padding: the operation without namespace and overload."""
    overload_packet = getattr(target, "overloadpacket", None)
    if overload_packet is not None:
        return str(overload_packet.__name__)
    return str(getattr(target, "__name__", target))


def origin_of(node: fx.Node) -> Origin:
    """Module path, source line in user code and aten name of an exported operation."""
    path, _ = _innermost(node)
    return Origin(module=path, source=_source(node.meta.get("stack_trace") or ""), call=str(node.target))


def base_name(node: fx.Node) -> str:
    """The module path where a torch.nn module made the operation, else the path and the operation."""
    path, module_type = _innermost(node)
    if path and module_type.startswith("torch.nn."):
        return path
    short = packet(node.target)
    short = _PLAIN_NAMES.get(short, short).strip("_")
    return f"{path}.{short}" if path else short


def _innermost(node: fx.Node) -> tuple[str, str]:
    """Path and type name of the module that made the operation."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", ""
    path, module_type = list(stack.values())[-1]
    if isinstance(module_type, type):
        module_type = f"{module_type.__module__}.{module_type.__qualname__}"
    return _REPEATED_CALL.sub("", str(path)).removeprefix("L__self__").strip("."), str(module_type)


def _source(trace: str) -> str:
    """ "model.py:31": the last frame outside torch, "" where there is none."""
    frames = [(file, line) for file, line in _FRAME.findall(trace) if not _of_torch(file)]
    return f"{Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""


def _of_torch(file: str) -> bool:
    return file.startswith(_TORCH) or "-packages/torch/" in file or file.startswith("<")


def numbered(base: str) -> Iterator[str]:
    """base, base_2, base_3, ..."""
    yield base
    count = 2
    while True:
        yield f"{base}_{count}"
        count += 1
