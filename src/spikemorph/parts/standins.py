"""What stands in a model for the modules of a part, and copies of modules to stand it in."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from spikemorph.errors import SpikemorphError
from spikemorph.evaluate.encode import Samples

Compute = Callable[[Samples], Any]
"""What reaches the part to what leaves it."""

Refuse = Callable[[str], SpikemorphError]
"""What was met to the error that says so."""

_aten = torch.ops.aten
_LIKE = (_aten.empty_like, _aten.zeros_like, _aten.ones_like, _aten.full_like)
_NEW = (_aten.new_empty, _aten.new_zeros, _aten.new_ones, _aten.new_full)
_OF_SHAPES = frozenset((*_LIKE, *_NEW, _aten.rand_like, _aten.randn_like))
"""Operations on the shape, type and device of their first argument."""

_STORED = ("data_ptr", "untyped_storage", "storage", "_typed_storage", "share_memory_")
_BARE = frozenset((*_STORED, "numpy", "__array__", "__dlpack__", "tolist"))
"""Methods that take the numbers past torch's dispatcher."""


@final
class Held(Tensor):
    """A tensor of a shape, a type and a device, without numbers: whoever reads those is refused.

    It has no storage, and every operation on it arrives in `__torch_dispatch__`, those of C++ included.
    """

    reached: tuple[Any, ...]
    refuse: Refuse

    @classmethod
    def of(cls, like: Tensor, reached: tuple[Any, ...], refuse: Refuse) -> Held:
        """As `like`, with what reached the part."""
        made: Held = Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=like.device
        )
        made.reached, made.refuse = reached, refuse
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Held({list(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What is made of its shape is an ordinary tensor."""
        if getattr(func, "__name__", "") in _BARE:
            raise args[0].refuse(_reader(func.__name__))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """A tensor like it or beside it, or a refusal."""
        if func.overloadpacket in _OF_SHAPES:
            own = args[0]
            bare = torch.empty((), dtype=own.dtype, device=own.device).expand(own.shape)
            return func(bare, *args[1:], **(kwargs or {}))
        own = next(each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, cls))
        raise own.refuse(_reader(str(func)))


@final
class Hollow(nn.Module):
    """In place of a module whose results only tell their shapes: anchors, say, are laid out by them."""

    def __init__(self, module: nn.Module, refuse: Refuse) -> None:
        super().__init__()
        self.original, self.refuse = (module,), refuse

    def forward(self, *args: Any) -> Any:
        """Results of the module's shapes, not a number; they carry along what reached the part."""
        held = _held(args)
        # The model may change what it has handed over.
        reached = held.reached if held is not None else pytree.tree_map_only(Tensor, torch.clone, args)
        return pytree.tree_map_only(
            Tensor, lambda like: Held.of(like, reached, self.refuse), _shapes(self.original[0], args)
        )


@final
class Computed(nn.Module):
    """In place of the last module of a part.

    Args:
        foreign: the error for outputs that are not those of the part.
        lost: the error where the module in front was not replaced; None: there is none in front.
    """

    def __init__(
        self, module: nn.Module, compute: Compute, foreign: Refuse, lost: SpikemorphError | None
    ) -> None:
        super().__init__()
        self.original, self.compute, self.foreign, self.lost = (module,), compute, foreign, lost

    def forward(self, *args: Any) -> Any:
        """What the part gives for what reached its first module."""
        held = _held(args)
        if held is None and self.lost is not None:
            raise self.lost
        reached = held.reached if held is not None else args
        found = self.compute(reached[0] if len(reached) == 1 else reached)
        given, wanted = _listed(found), _listed(_shapes(self.original[0], args))
        if given != wanted:
            raise self.foreign(f"outputs {_shown(given)} in place of {_shown(wanted)}")
        return found


def shell(module: nn.Module, made: dict[int, nn.Module] | None = None) -> nn.Module:
    """A copy that shares the tensors; what is set or switched on it leaves the module as it is.

    Args:
        made: what stands for a module already, by its id().
    """
    made = {} if made is None else made
    if id(module) not in made and isinstance(module, torch.jit.ScriptModule):
        made[id(module)] = copy.deepcopy(module)  # its state is in C++
    if id(module) not in made:
        copied: nn.Module = object.__new__(type(module))  # GraphModule.__new__ makes another class
        made[id(module)] = copied
        for name, value in vars(module).items():
            copied.__dict__[name] = copy.copy(value) if isinstance(value, dict | set | list) else value
        for name, child in module._modules.items():
            copied._modules[name] = None if child is None else shell(child, made)
    return made[id(module)]


def same(a: Any, b: Any) -> bool:
    """Nested values that are equal, to the bit."""
    left, right = pytree.tree_flatten(a), pytree.tree_flatten(b)
    pairs = zip(left[0], right[0], strict=False)
    return left[1] == right[1] and all(
        torch.equal(one, other) if isinstance(one, Tensor) else one == other for one, other in pairs
    )


def _held(args: tuple[Any, ...]) -> Held | None:
    return next((each for each in pytree.tree_leaves(args) if isinstance(each, Held)), None)


def _shapes(module: nn.Module, args: tuple[Any, ...]) -> Any:
    """Results of a module as tensors without numbers.

    Of a copy each time: what it keeps on itself is as empty.
    """
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        fakes = pytree.tree_map_only(
            Tensor,
            lambda each: torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=each.device),
            args,
        )
        return shell(module)(*fakes)


def _listed(value: Any) -> dict[str, Sequence[int]]:
    """Shapes of the tensors of a nested value, by where they are in it."""
    leaves, _ = pytree.tree_flatten_with_path(value)
    return {pytree.keystr(path): tuple(leaf.shape) for path, leaf in leaves if isinstance(leaf, Tensor)}


def _shown(listed: dict[str, Sequence[int]]) -> str:
    return ", ".join(f"{path} {list(shape)}".strip() for path, shape in listed.items()) or "no tensor"


def _reader(operation: str) -> str:
    """The innermost line that is neither torch's nor ours, and the operation there."""
    inner = (__file__, f"{Path(torch.__file__).parent}/")
    frame = sys._getframe()
    while frame.f_back and frame.f_code.co_filename.startswith(inner):
        frame = frame.f_back
    line = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    return f"{frame.f_code.co_qualname} ({line}), by {operation}"
