"""Names and origins of nodes, read off the module stack and stack trace of an exported operation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import fx

from spikemorph.ir.graph import Origin

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_TORCH = f"{Path(torch.__file__).parent}/"
_GETATTR = re.compile(r"getattr\(([^()]*), '([^']*)'\)")
_SELF = re.compile(r"^L(__self__|\['\w+'\])")
_ITEM = re.compile(r"\['?([^\]']*)'?\]")
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
    """The operation without namespace and overload: conv2d for aten.conv2d.padding."""
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
    return _plain_path(str(path)), str(module_type)


def _plain_path(path: str) -> str:
    """A strict export writes paths as expressions: getattr(L['self'].layers, '0').act[1]."""
    path = _REPEATED_CALL.sub("", path)
    while _GETATTR.search(path):
        path = _GETATTR.sub(r"\1.\2", path)
    if "(" in path or path == "getattr":  # what torch 2.6 leaves of such an expression in a saved program
        return ""
    path = _SELF.sub("", path)
    return _ITEM.sub(r".\1", path).strip(".")


def attention_of(node: fx.Node) -> str | None:
    """Path of the torch.nn.MultiheadAttention that made the operation, None for others."""
    path, module_type = _innermost(node)
    return path if module_type.endswith(".MultiheadAttention") else None


def _source(trace: str) -> str:
    """The last frame outside torch, as model.py:31; empty where there is none."""
    frames = [(file, line) for file, line in _FRAME.findall(trace) if not _of_torch(file)]
    return f"{Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""


def _of_torch(file: str) -> bool:
    return file.startswith((_TORCH, "<")) or "-packages/torch/" in file


def numbered(base: str) -> Iterator[str]:
    """base, base_2, base_3, ..."""
    yield base
    count = 2
    while True:
        yield f"{base}_{count}"
        count += 1
