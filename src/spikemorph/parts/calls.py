"""What one run of a model shows of the modules that it calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, final

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn


@final
@dataclass
class Call:
    """One call of a module of the part.

    Args:
        args: of the part's first module: copies.
        result: of the part's last module: a copy.
        versions: of the arguments' tensors before the call; empty: torch counts none.
        changed: the call has written into its arguments.
    """

    args: tuple[Any, ...]
    result: Any = None
    versions: tuple[int, ...] = ()
    changed: bool = False


@final
@dataclass
class Met:
    """A module in the run.

    Args:
        order: of its first call among all modules, 0 for the model itself.
        times: how often it was called.
        plain: with tensors alone, always.
        keywords: names of arguments that it was called with.
        work: parameters times positions of its largest result: near the input there are more of those.
    """

    order: int
    times: int = 0
    plain: bool = True
    keywords: tuple[str, ...] = ()
    work: int = 0


@final
@dataclass(frozen=True)
class Watched:
    """A run: every module that was called, by path, and the calls of the part's own modules."""

    met: dict[str, Met] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict)


def watch(model: nn.Module, images: Any, part: Sequence[str]) -> Watched:
    """Run the model once and see what it calls."""
    watched = Watched(calls={path: [] for path in part})
    handles = []
    try:
        for path, module in model.named_modules(remove_duplicate=False):
            if isinstance(module, torch.jit.ScriptModule):  # takes no hooks
                continue
            before, after = _hooks(watched, path, part)
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return watched


def _hooks(watched: Watched, path: str, part: Sequence[str]) -> tuple[Any, Any]:
    calls = watched.calls.get(path)

    def before(module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        met = watched.met.setdefault(path, Met(len(watched.met)))
        met.times += 1
        met.plain &= tensors_alone(args, named)
        met.keywords = met.keywords or tuple(named)
        if calls is not None:
            calls.append(Call(_copy(args) if path == part[0] else args, versions=_versions(args)))

    def after(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        positions = [prod(each.shape[2:]) for each in _tensors(result)]
        weights = sum(each.numel() for each in module.parameters())
        watched.met[path].work = weights * max(positions, default=0)
        if calls is not None:
            calls[-1].result = _copy(result) if path == part[-1] else result
            calls[-1].changed = _versions(args) != calls[-1].versions

    return before, after


def tensors_alone(args: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    """Whether a module is called as `capture` calls it."""
    return bool(args) and not named and all(isinstance(each, Tensor) for each in args)


def _tensors(value: Any) -> list[Tensor]:
    return [each for each in pytree.tree_leaves(value) if isinstance(each, Tensor)]


def _copy(value: Any) -> Any:
    return pytree.tree_map_only(Tensor, torch.clone, value)


def _versions(args: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(each._version for each in _tensors(args) if not each.is_inference())
