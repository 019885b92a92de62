"""The nesting of a module's outputs (tensor, tuple, list, dict), as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True, slots=True)
class Leaf:
    """Output number `index`."""

    index: int


@final
@dataclass(frozen=True, slots=True)
class Items:
    """A tuple (or list) of structures."""

    items: tuple[Structure, ...]
    is_list: bool = False


@final
@dataclass(frozen=True, slots=True)
class Named:
    """A dict of structures, in order."""

    keys: tuple[str, ...]
    items: tuple[Structure, ...]


Structure = Leaf | Items | Named


def build(structure: Structure, leaves: Sequence[Any]) -> Any:
    """The nested value with `leaves` put in place."""
    return fold(structure, lambda index: leaves[index])


def fold(structure: Structure, leaf: Callable[[int], Any]) -> Any:
    """The nested value with leaf(index) at every place."""
    match structure:
        case Leaf(index):
            return leaf(index)
        case Items(items, is_list):
            parts = [fold(each, leaf) for each in items]
            return parts if is_list else tuple(parts)
        case Named(keys, items):
            return {key: fold(each, leaf) for key, each in zip(keys, items, strict=True)}


def parse(value: Any) -> Structure:
    """The structure of a nested value whose leaves are ints (leaf numbers).

    Raises:
        TypeError: something else than int, list, tuple, dict with string keys.
    """
    if isinstance(value, bool):
        raise TypeError(f"{value!r} is no leaf number")
    if isinstance(value, int):
        return Leaf(value)
    if isinstance(value, list | tuple):
        return Items(tuple(parse(each) for each in value), isinstance(value, list))
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return Named(tuple(value), tuple(parse(each) for each in value.values()))
    raise TypeError(f"outputs of type {type(value).__name__}")


def size(structure: Structure) -> int:
    """The number of distinct outputs that a structure needs."""
    highest = -1

    def leaf(index: int) -> None:
        nonlocal highest
        highest = max(highest, index)

    fold(structure, leaf)
    return highest + 1
