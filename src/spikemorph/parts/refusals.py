"""Why a part is refused, and what can be named instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from spikemorph.capture.export import check_eval
from spikemorph.errors import CaptureError, DataError, UnsupportedOps, UsageError
from spikemorph.ir.graph import Graph
from spikemorph.parts.calls import Met


@final
@dataclass(frozen=True)
class Refusals:
    """Errors about a part.

    Args:
        met: modules that the model calls; only those are advised.
    """

    model: nn.Module
    modules: tuple[str, ...]
    met: Mapping[str, Met]

    def unfit(self, path: str, got: str, known: str, do: str = "") -> CaptureError:
        """A module that does not fit into a part."""
        return CaptureError(
            where=_where(self.model, path),
            got=got,
            known=f"{known}; the model consists of {_children(self.model)}",
            do=do or self._advice(path, [path]),
        )

    def called(self, path: str) -> CaptureError:
        """A first module that is not called with tensors alone."""
        met = self.met.get(path)
        if met is None:
            return self.unfit(path, "never called", "modules that the model calls itself")
        if not met.keywords:
            return self.unfit(path, "called with something else than tensors", "tensors, one an argument")
        return CaptureError(
            where=_where(self.model, path),
            got=f"called with keywords: {', '.join(met.keywords)}",
            known="modules that are called with tensors alone",
            do="pass them without their names where the model calls it, or name a module inside of it",
        )

    def unsupported(self, error: UnsupportedOps) -> CaptureError:
        """Operations that have no spiking form."""
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
            where=_where(self.model, path),
            got=f"{count} operation(s) without a spiking form, the first one {first.got} at {first.where}",
            known=first.known,
            do=f"{self._advice(path, faulty)}, or {first.do}",
        )

    def failed(self, path: str, error: CaptureError) -> CaptureError:
        """A module that cannot be captured for any other reason."""
        return CaptureError(
            where=_where(self.model, path),
            got=f"{error.where}: {error.got}",
            known=error.known,
            do=f"{self._advice(path, [path])}, or {error.do}",
        )

    def _advice(self, path: str, faulty: Sequence[str]) -> str:
        """What to name instead: the modules in front, else the one inside that does most without a fault."""
        front = self.modules[: self.modules.index(path)]
        inside = self._inside(path, faulty)
        named = front or ((inside,) if inside else ())
        if not named:
            return "name other modules: Part(model, modules=(...,))"
        return f"name what can be: Part(model, modules={named}); everything behind it then runs as before"

    def _inside(self, path: str, faulty: Sequence[str]) -> str | None:
        """Of the modules below the path, those in front of the first faulty one where there are any."""
        fit = {
            name: met
            for name, met in self.met.items()
            if name.startswith(f"{path}.")
            and met.times == 1
            and met.plain
            and met.work > 0
            and not any(f"{each}.".startswith(f"{name}.") for each in faulty)
        }
        first = min((self.met[each].order for each in faulty if each != path and each in self.met), default=0)
        front = {name: met for name, met in fit.items() if met.order < first}
        return max(front or fit, key=lambda name: fit[name].work, default=None)


def read(model: nn.Module, modules: tuple[str, ...], path: str, reader: str) -> CaptureError:
    """Numbers inside of the part that something else reads."""
    last = modules.index(path) + 1
    return CaptureError(
        where=_where(model, path),
        got=f"its results are read by {reader}",
        known=f"results that only module {modules[last]} reads; their shapes, types and devices anyone may",
        do=f"let the part end there: Part(model, modules={modules[:last]}); what is behind it runs as before",
    )


def lost(model: nn.Module, modules: tuple[str, ...]) -> CaptureError:
    """A last module that gets what the stand-ins in front of it have not given."""
    return CaptureError(
        where=_where(model, modules[-1]),
        got=f"called with something else than what stands for {modules[-2]} gives",
        known="modules that the model calls by their paths, one after the other",
        do=f"call that one as self.{modules[-2]}(...) there",
    )


def foreign(model: nn.Module, path: str, got: str) -> UsageError:
    """What is to stand in for a part is not made from it."""
    return UsageError(
        where=_where(model, path),
        got=got,
        known="the outputs of the part",
        do="place what was made from the graph of this part: graph = part.capture(images)",
    )


def check_rest(model: nn.Module, images: Any) -> None:
    """Nothing, where the model is at rest and there are images.

    Raises:
        CaptureError: training mode.
        DataError: no image.
    """
    check_eval(model)
    if isinstance(images, Tensor | list | tuple | dict) and (
        images.numel() == 0 if isinstance(images, Tensor) else len(images) == 0
    ):
        raise DataError(
            where="images",
            got=f"shape {list(images.shape)}" if isinstance(images, Tensor) else f"{images!r}",
            known="what the model is called with, at least one image",
            do="pass one or two images, as the model takes them",
        )


def check_python(model: nn.Module, modules: tuple[str, ...]) -> None:
    """Nothing, where the modules of the part are ones of Python.

    Raises:
        CaptureError: scripted ones.
    """
    for path in modules:
        if isinstance(model.get_submodule(path), torch.jit.ScriptModule):
            raise CaptureError(
                where=_where(model, path),
                got="a scripted module",
                known="modules of Python, which torch.export and hooks take",
                do="put the module that was scripted in its place before capture",
            )


def check_unwatched(model: nn.Module, modules: tuple[str, ...]) -> None:
    """Nothing, where no hook can hand numbers of the part to something else.

    Raises:
        CaptureError: a forward hook.
    """
    for path in modules:
        for name, module in model.get_submodule(path).named_modules(prefix=path):
            if module._forward_hooks:
                raise CaptureError(
                    where=_where(model, path),
                    got=f"a forward hook on {name}",
                    known="modules without forward hooks: those of a part are not called once it is replaced",
                    do="remove it before capture: handle.remove()",
                )


def check_size(model: nn.Module, path: str, graph: Graph, inputs: tuple[Any, ...]) -> None:
    """Nothing, where what reached the part has the size that was captured.

    Raises:
        DataError: another one.
    """
    for node, x in zip(graph.inputs, inputs, strict=False):
        if isinstance(x, Tensor) and tuple(x.shape[1:]) != node.shape:
            raise DataError(
                where=_where(model, path),
                got=f"called with inputs of shape {list(x.shape)}",
                known=f"[batch, {', '.join(map(str, node.shape))}], the one size that was captured",
                do="give the model images that come to this size, such as all padded to one square"
                + _fixed(model, node.shape),
            )


def _fixed(model: nn.Module, shape: Sequence[int]) -> str:
    """How a detector of torchvision resizes to this size, where that is the size of images."""
    if not hasattr(getattr(model, "transform", None), "fixed_size") or len(shape) != 3 or shape[0] != 3:
        return ""
    return f", or let it resize them: model.transform.fixed_size = {shape[2], shape[1]}"


def no_module(model: nn.Module, modules: object, lacking: str | None) -> UsageError:
    """Paths that are none."""
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


def _where(model: nn.Module, path: str) -> str:
    return f"module {path} of {type(model).__name__}"


def _children(model: nn.Module) -> str:
    return ", ".join(name for name, _ in model.named_children()) or "no modules"
