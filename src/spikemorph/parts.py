"""The part of a larger model that becomes spiking, with everything around it as it is.

part     = Part(detector)                             # its modules `backbone` and `head`
graph    = part.capture(images)
qgraph   = quantise(graph, part.inputs(calibration), Levels(activation=63))
spiking  = part.place(convert(qgraph))                # a detector: spiking(images) gives boxes

What the model does in front of the part (resizing, normalisation) and behind it (anchors, decoding,
suppression of overlapping boxes) runs unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import CaptureError, UnsupportedOps, UsageError, expect
from spikemorph.evaluate.encode import Samples
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.run.default import Engine
from spikemorph.run.simulate import simulate

Compute = Callable[[Samples], Any]
"""What reaches the part to what leaves it."""


@final
@dataclass(frozen=True, eq=False)
class Part:
    """Modules of a model that are called one after the other, each with what the one in front gives.

    Args:
        model: at rest (eval mode); nothing in it is changed.
        modules: their paths, in the order in which they are called. The first one takes tensors.

    Raises:
        UsageError: no such module, or none.
    """

    model: nn.Module
    modules: tuple[str, ...] = ("backbone", "head")

    def __post_init__(self) -> None:
        expect("Part(model)", self.model, (nn.Module,), "pass the detector itself")
        known = dict(self.model.named_modules())
        single = isinstance(self.modules, str)
        lacking = (
            None if single else next((path for path in self.modules if path not in known or not path), None)
        )
        if single or not self.modules or lacking is not None:
            raise _no_module(self.model, self.modules, lacking)

    def inputs(self, images: Any) -> Samples:
        """What reaches the part when the model is called with `images`.

        Of a torchvision detector: the images resized, normalised and padded, [n, 3, height, width].

        Raises:
            CaptureError: the part is not called.
        """
        seen: list[tuple[Any, ...]] = []

        def stop(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            if named:
                raise self._named(self.modules[0], named)
            seen.append(args)
            raise _Reached

        first = self.model.get_submodule(self.modules[0])
        handle = first.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                self.model(images)
        except _Reached:
            return seen[0][0] if len(seen[0]) == 1 else seen[0]
        finally:
            handle.remove()
        raise self._unfit(self.modules[0], "never called", "modules that the model calls itself")

    def module(self, images: Any) -> nn.Module:
        """The part as a module of its own: from what `inputs` gives to what its last module gives.

        Args:
            images: what the model is called with.

        Raises:
            CaptureError: its modules are not called one after the other, once each.
        """
        calls = self._calls(images)
        routes = []
        for path, (args, _), (_, given) in zip(self.modules[1:], calls[1:], calls, strict=False):
            route = _Route.between(given, args)
            if route is None:
                known = "tensors of the module in front, as they are"
                raise self._unfit(path, "called with something else than what is in front of it gives", known)
            routes.append(route)
        return _Chain(self.model, self.modules, routes).eval()

    def capture(self, images: Any) -> Graph:
        """The float graph of the part, checked in its place: the model gives what it gave before, to the bit.

        Args:
            images: what the model is called with; two small ones do.

        Raises:
            CaptureError: the part cannot be captured, or not be taken out; the message says which module is
                at fault and what can be named instead.
        """
        if self.model.training:
            raise CaptureError(
                where=type(self.model).__name__,
                got="training mode",
                known="networks at rest: stored batch statistics, no dropout",
                do="call model.eval() before capture",
            )
        chain = self.module(images)
        try:
            graph = capture(chain, self.inputs(images))
        except UnsupportedOps as error:
            raise self._refused(error) from error
        with torch.no_grad():
            if not _same(self.model(images), self._replaced(chain)(images)):
                raise self._unfit(
                    self.modules[-1], "not the only reader of what is in front of it", "parts with one exit"
                )
        return graph

    def place(
        self, network: SpikingNetwork | Graph, *, steps: int | None = None, engine: Engine | None = None
    ) -> nn.Module:
        """The model with the part computed by a spiking network, or by a graph at rest.

        Args:
            network: made from the captured graph; inputs have the shape that was captured.
            steps: of the spiking network, None: until quiescent.
            engine: as in `simulate`.
        """
        expect("place(network)", network, (SpikingNetwork, Graph), "pass what convert or quantise gave")
        if isinstance(network, Graph):
            return self._replaced(lambda x: evaluate(network, x))
        return self._replaced(lambda x: simulate(network, x, steps=steps, engine=engine).output)

    def finish(self, images: Any, outputs: Any) -> Any:
        """What the model makes of `images` where its part gives `outputs`.

        For outputs that are known already, such as those after several numbers of steps.
        """
        with torch.no_grad():
            return self._replaced(lambda x: outputs)(images)

    def _calls(self, images: Any) -> list[tuple[tuple[Any, ...], Any]]:
        """Arguments and results of each module, called once each."""
        seen: dict[str, list[tuple[tuple[Any, ...], Any]]] = {path: [] for path in self.modules}

        def watch(path: str) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
                if named:
                    raise self._named(path, named)
                seen[path].append((args, result))

            return hook

        handles = [
            self.model.get_submodule(path).register_forward_hook(watch(path), with_kwargs=True)
            for path in self.modules
        ]
        try:
            with torch.no_grad():
                self.model(images)
        finally:
            for handle in handles:
                handle.remove()
        for path, calls in seen.items():
            if len(calls) != 1:
                raise self._unfit(path, f"called {len(calls)} times", "modules that are called once")
        return [calls[0] for calls in seen.values()]

    def _replaced(self, compute: Compute) -> nn.Module:
        """The model with the last module computing, and those in front of it handing over its input."""
        made, last = self.model, self.modules[-1]
        for path in self.modules[:-1]:
            made = _with(made, path, _Hollow(self.model.get_submodule(path)))
        return _with(made, last, _Computed(compute)).eval()

    def _refused(self, error: UnsupportedOps) -> CaptureError:
        faulty = [offence.where.partition(" ")[0] for offence in error.offences]
        path = next(
            (
                path
                for path in self.modules
                if any(each == path or each.startswith(f"{path}.") for each in faulty)
            ),
            self.modules[0],
        )
        first, count = error.offences[0], len(faulty)
        return CaptureError(
            where=f"module {path} of {type(self.model).__name__}",
            got=f"{count} operation(s) without a spiking form, the first one {first.got} at {first.where}",
            known=first.known,
            do=f"{self._advice(path, faulty)}, or {first.do}",
        )

    def _named(self, path: str, named: dict[str, Any]) -> CaptureError:
        return CaptureError(
            where=f"module {path} of {type(self.model).__name__}",
            got=f"called with keywords: {', '.join(named)}",
            known="modules that are called with tensors alone",
            do="pass them without their names where the model calls it, or name a module inside of it",
        )

    def _unfit(self, path: str, got: str, known: str) -> CaptureError:
        return CaptureError(
            where=f"module {path} of {type(self.model).__name__}",
            got=got,
            known=f"{known}; the model consists of {_children(self.model)}",
            do=self._advice(path, [path]),
        )

    def _advice(self, path: str, faulty: Sequence[str]) -> str:
        """What to name instead: the modules in front, else the largest one inside without a fault."""
        front = self.modules[: self.modules.index(path)]
        inside = _largest(self.model, path, faulty)
        named = front or ((inside,) if inside else ())
        if not named:
            return "name other modules: Part(model, modules=(...,))"
        return f"name what can be: Part(model, modules={named}); everything behind it then runs as before"


class _Reached(Exception):
    """The model has called the part."""


@final
@dataclass(frozen=True)
class _Route:
    """How the results of a module become the arguments of the next one: numbers of leaves, and a nesting."""

    leaves: tuple[int, ...]
    nesting: Any

    @classmethod
    def between(cls, given: Any, args: tuple[Any, ...]) -> _Route | None:
        """None where an argument is none of the results."""
        numbers = {id(each): i for i, each in enumerate(pytree.tree_leaves(given))}
        leaves, nesting = pytree.tree_flatten(args)
        found = [numbers.get(id(each)) for each in leaves]
        known = tuple(each for each in found if each is not None)
        return cls(known, nesting) if found and len(known) == len(found) else None

    def __call__(self, given: Any) -> tuple[Any, ...]:
        leaves = pytree.tree_leaves(given)
        args: tuple[Any, ...] = pytree.tree_unflatten([leaves[i] for i in self.leaves], self.nesting)
        return args


@final
class _Chain(nn.Module):
    """The modules of a part one after the other, under the paths that they have in the model."""

    def __init__(self, model: nn.Module, modules: Sequence[str], routes: Sequence[_Route]) -> None:
        super().__init__()
        self.paths, self.routes = tuple(modules), tuple(routes)
        for path in modules:
            *parents, name = path.split(".")
            place: nn.Module = self
            for parent in parents:
                if parent not in place._modules:
                    place.add_module(parent, nn.Module())
                place = place.get_submodule(parent)
            place.add_module(name, model.get_submodule(path))

    def forward(self, *x: Tensor) -> Any:
        """What the last module gives."""
        value = self.get_submodule(self.paths[0])(*x)
        for path, route in zip(self.paths[1:], self.routes, strict=True):
            value = self.get_submodule(path)(*route(value))
        return value


class _Held(Tensor):
    """A tensor of the right shape without numbers, with what reached the part."""

    held: tuple[Any, ...]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What is made of it is an ordinary tensor."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


@final
class _Hollow(nn.Module):
    """In place of a module whose results only tell their shapes: anchors, say, are laid out by them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.shapes = copy.deepcopy(module).to("meta")

    def forward(self, *args: Any) -> Any:
        """Results of the module's shapes, not a number."""
        held = next((each.held for each in pytree.tree_leaves(args) if isinstance(each, _Held)), args)
        bare = pytree.tree_map_only(Tensor, lambda each: torch.empty_like(each, device="meta"), args)

        def hollow(like: Tensor) -> _Held:
            made = torch.full((), float("nan"), dtype=like.dtype).expand(like.shape).as_subclass(_Held)
            made.held = held
            return made

        with torch.no_grad():
            return pytree.tree_map_only(Tensor, hollow, self.shapes(*bare))


@final
class _Computed(nn.Module):
    """In place of the last module of a part."""

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, *args: Any) -> Any:
        """What the part gives for what reached its first module."""
        held = next((each.held for each in pytree.tree_leaves(args) if isinstance(each, _Held)), args)
        return self.compute(held[0] if len(held) == 1 else held)


def _with(model: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """A copy of the model that shares every module but the one at the path."""
    made = copy.copy(model)
    made._modules = dict(model._modules)
    name, _, rest = path.partition(".")
    made._modules[name] = _with(model.get_submodule(name), rest, new) if rest else new
    return made


def _same(a: Any, b: Any) -> bool:
    """Nested values that are equal, to the bit."""
    left, right = pytree.tree_flatten(a), pytree.tree_flatten(b)
    pairs = zip(left[0], right[0], strict=False)
    return left[1] == right[1] and all(
        torch.equal(one, other) if isinstance(one, Tensor) else one == other for one, other in pairs
    )


def _largest(model: nn.Module, path: str, faulty: Sequence[str]) -> str | None:
    """The module with the most parameters below a path that is called and has none of the faults in it."""
    sizes = {
        f"{path}.{name}": sum(each.numel() for each in module.parameters())
        for name, module in model.get_submodule(path).named_modules()
        if name
        and type(module).forward is not nn.Module.forward  # a list of modules is none itself
        and not any(f"{each}.".startswith(f"{path}.{name}.") for each in faulty)
    }
    return max(sizes, key=lambda each: sizes[each], default=None)


def _children(model: nn.Module) -> str:
    return ", ".join(name for name, _ in model.named_children()) or "no modules"


def _no_module(model: nn.Module, modules: object, lacking: str | None) -> UsageError:
    names = dict(model.named_children())
    likely = "backbone" if "backbone" in names else next(iter(names), "features")
    return UsageError(
        where="Part(modules)",
        got=repr(modules)
        if lacking is None
        else f"{lacking!r}, which is no module of {type(model).__name__}",
        known=f"a tuple of module paths; it consists of {_children(model)}",
        do=f"name the modules that turn images into maps: Part(model, modules=({likely!r},))",
    )
