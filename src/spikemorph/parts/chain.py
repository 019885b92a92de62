"""Modules of a model one after the other, as a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch.utils._pytree as pytree
from torch import Tensor, nn

from spikemorph.parts.standins import shell


@final
@dataclass(frozen=True)
class Route:
    """How the results of a module become the arguments of the next one: numbers of leaves, and a nesting."""

    leaves: tuple[int, ...]
    nesting: Any

    @classmethod
    def between(cls, given: Any, args: tuple[Any, ...]) -> Route | None:
        """None where an argument is none of the results."""
        numbers = {id(each): i for i, each in enumerate(pytree.tree_leaves(given))}
        leaves, nesting = pytree.tree_flatten(args)
        found = [numbers.get(id(each)) for each in leaves]
        known = tuple(each for each in found if each is not None)
        return cls(known, nesting) if found and len(known) == len(found) else None

    def __call__(self, given: Any) -> tuple[Any, ...]:
        """The arguments."""
        leaves = pytree.tree_leaves(given)
        args: tuple[Any, ...] = pytree.tree_unflatten([leaves[i] for i in self.leaves], self.nesting)
        return args


@final
class Chain(nn.Module):
    """The modules of a part one after the other, under the paths that they have in the model."""

    def __init__(self, model: nn.Module, modules: Sequence[str], routes: Sequence[Route]) -> None:
        super().__init__()
        self.paths, self.routes = tuple(modules), tuple(routes)
        made: dict[int, nn.Module] = {}
        for path in modules:
            *parents, name = path.split(".")
            place: nn.Module = self
            for parent in parents:
                if parent not in place._modules:
                    place.add_module(parent, nn.Module())
                place = place.get_submodule(parent)
            place.add_module(name, shell(model.get_submodule(path), made))

    def forward(self, *x: Tensor) -> Any:
        """What the last module gives."""
        value = self.get_submodule(self.paths[0])(*x)
        for path, route in zip(self.paths[1:], self.routes, strict=True):
            value = self.get_submodule(path)(*route(value))
        return value
