"""The part of a larger model that becomes spiking, with everything around it as it is.

part     = Part(detector)                             # its modules `backbone` and `head`
graph    = part.capture(images)
qgraph   = quantise(graph, part.inputs(calibration), Levels(activation=63))
spiking  = part.place(convert(qgraph))                # a detector: spiking(images) gives boxes

What the model does in front of the part (resizing, normalisation) and behind it (anchors, decoding,
suppression of overlapping boxes) runs unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import CaptureError, UnsupportedOps, expect
from spikemorph.evaluate.encode import Samples
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.parts import refusals
from spikemorph.parts.calls import Watched, tensors_alone, watch
from spikemorph.parts.chain import Chain, Route
from spikemorph.parts.refusals import Refusals
from spikemorph.parts.standins import Compute, Computed, Hollow, same, shell
from spikemorph.run.default import Engine
from spikemorph.run.simulate import simulate


@final
@dataclass(frozen=True, eq=False)
class Part:
    """Modules of a model that are called one after the other, each with what the one in front gives.

    Args:
        model: at rest (eval mode) wherever it is called; nothing in it is changed.
        modules: their paths, in the order in which they are called. The first one takes tensors, of one size
            once the part is captured.

    Raises:
        UsageError: no such module, or none.
    """

    model: nn.Module
    modules: tuple[str, ...] = ("backbone", "head")

    def __post_init__(self) -> None:
        expect("Part(model)", self.model, (nn.Module,), "pass the detector itself")
        known = {path for path, _ in self.model.named_modules(remove_duplicate=False)}
        single = isinstance(self.modules, str)
        lacking = (
            None if single else next((path for path in self.modules if path not in known or not path), None)
        )
        if single or not self.modules or lacking is not None:
            raise refusals.no_module(self.model, self.modules, lacking)

    def inputs(self, images: Any) -> Samples:
        """What reaches the part when the model is called with `images`.

        Of a torchvision detector: the images resized, normalised and padded, [n, 3, height, width].

        Raises:
            CaptureError: the part is not called, or the model is in training mode.
            DataError: no image.
        """
        refusals.check_rest(self.model, images)
        refusals.check_python(self.model, self.modules)
        seen: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = []

        def stop(module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            seen.append((args, named))
            raise _Reached

        first = self.model.get_submodule(self.modules[0])
        handle = first.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                self.model(images)
        except _Reached:
            pass
        finally:
            handle.remove()
        if not seen or not tensors_alone(*seen[0]):
            raise self._refusals(watch(self.model, images, self.modules)).called(self.modules[0])
        return _samples(seen[0][0])

    def module(self, images: Any) -> nn.Module:
        """The part as a module of its own: from what `inputs` gives to what its last module gives.

        Args:
            images: what the model is called with.

        Raises:
            CaptureError: its modules are not called one after the other, once each, or the model is in
                training mode.
            DataError: no image.
        """
        return self._chain(self._watched(images))

    def capture(self, images: Any) -> Graph:
        """The float graph of the part, checked in its place: the model gives what it gave before, to the bit.

        Args:
            images: what the model is called with; two small ones do.

        Raises:
            CaptureError: the part cannot be captured, or not be taken out; the message says which module is
                at fault and what can be named instead.
            DataError: no image.
        """
        watched = self._watched(images)
        refusals.check_unwatched(self.model, self.modules)
        chain = self._chain(watched)
        graph = self._captured(chain, watched)
        self._check_in_place(chain, watched, images)
        return graph

    def place(
        self, network: SpikingNetwork | Graph, *, steps: int | None = None, engine: Engine | None = None
    ) -> nn.Module:
        """The model with the part computed by a spiking network, or by a graph at rest.

        It shares the weights around the part with the model, and says so when it is called with images that
        come to another size than was captured, or when the network is of another part.

        Args:
            network: made from the captured graph.
            steps: of the spiking network, None: until quiescent.
            engine: as in `simulate`.
        """
        expect("place(network)", network, (SpikingNetwork, Graph), "pass what convert or quantise gave")
        graph = network if isinstance(network, Graph) else network.graph

        def compute(x: Samples) -> Any:
            refusals.check_size(self.model, self.modules[0], graph, (x,) if isinstance(x, Tensor) else x)
            if isinstance(network, Graph):
                return evaluate(network, x)
            return simulate(network, x, steps=steps, engine=engine).output

        return self._replaced(compute)

    def finish(self, images: Any, outputs: Any) -> Any:
        """What the model makes of `images` where its part gives `outputs`.

        For outputs that are known already, such as those after several numbers of steps.
        """
        with torch.no_grad():
            return self._replaced(lambda x: outputs)(images)

    def _watched(self, images: Any) -> Watched:
        """A run in which every module of the part is called once, the first one with tensors.

        Raises:
            CaptureError: no such run.
        """
        refusals.check_rest(self.model, images)
        refusals.check_python(self.model, self.modules)
        watched, first = watch(self.model, images, self.modules), self.modules[0]
        say = self._refusals(watched)
        for path, calls in watched.calls.items():
            met = watched.met.get(path)
            if met and (met.keywords or (path == first and not met.plain)):
                raise say.called(path)
            if len(calls) != 1:
                raise say.unfit(path, f"called {len(calls)} times", "modules that are called once")
        if watched.calls[first][0].changed:
            do = "write y = x + 1 there in place of x += 1, and nn.ReLU() in place of nn.ReLU(inplace=True)"
            known = "modules that leave what they are called with as it is"
            raise say.unfit(first, "writes into what it is called with", known, do)
        return watched

    def _chain(self, watched: Watched) -> nn.Module:
        routes = []
        for front, path in zip(self.modules, self.modules[1:], strict=False):
            route = Route.between(watched.calls[front][0].result, watched.calls[path][0].args)
            if route is None:
                known = "tensors of the module in front, as they are"
                got = "called with something else than what is in front of it gives"
                raise self._refusals(watched).unfit(path, got, known)
            routes.append(route)
        return Chain(self.model, self.modules, routes).eval()

    def _captured(self, chain: nn.Module, watched: Watched) -> Graph:
        x = _samples(watched.calls[self.modules[0]][0].args)
        try:
            return capture(chain, x)
        except UnsupportedOps as error:
            raise self._refusals(watched).unsupported(error) from error
        except CaptureError as error:
            raise self._refusals(watched).failed(self._at_fault(watched, x), error) from error

    def _at_fault(self, watched: Watched, x: Samples) -> str:
        """The first module with which the ones in front of it cannot be captured."""
        for count, path in enumerate(self.modules[:-1], 1):
            try:
                capture(Part(self.model, self.modules[:count])._chain(watched), x)
            except CaptureError:
                return path
        return self.modules[-1]

    def _check_in_place(self, chain: nn.Module, watched: Watched, images: Any) -> None:
        """Nothing, where the model cannot tell the part taken out from its modules.

        What the part gives is compared as well: a detector that finds no boxes would show no difference.
        """
        last, given = self.modules[-1], []
        say = self._refusals(watched)

        def compute(x: Samples) -> Any:
            given.append(pytree.tree_map_only(Tensor, torch.clone, result := _called(chain, x)))
            return result

        with torch.no_grad():
            wanted = self.model(images)
            try:
                found = self._replaced(compute)(images)
            except CaptureError:
                raise
            except Exception as error:
                got = f"not to be taken out: {type(error).__name__}: {str(error).strip()}"
                raise say.unfit(last, got, "parts that only their results leave") from error
        if len(given) != 1:
            known, do = "modules that the model calls by their paths", f"call it as self.{last}(...) there"
            raise say.unfit(last, "not the module that the model calls", known, do)
        if not same(given[0], watched.calls[last][0].result):
            raise say.unfit(last, "other outputs in its place", "models that do the same in every call")
        if not same(found, wanted):
            raise say.unfit(last, "not the only reader of what is in front of it", "parts with one exit")

    def _replaced(self, compute: Compute) -> nn.Module:
        """The model with the last module computing, and those in front of it handing over its input."""
        *front, last = ((path, self.model.get_submodule(path)) for path in self.modules)
        made: dict[int, nn.Module] = {
            id(module): Hollow(module, partial(refusals.read, self.model, self.modules, path))
            for path, module in front
        }
        foreign = partial(refusals.foreign, self.model, last[0])
        lost = refusals.lost(self.model, self.modules) if front else None
        made[id(last[1])] = Computed(last[1], compute, foreign, lost)
        return shell(self.model, made).eval()

    def _refusals(self, watched: Watched) -> Refusals:
        return Refusals(self.model, self.modules, watched.met)


class _Reached(Exception):
    """The model has called the part."""


def _samples(args: tuple[Tensor, ...]) -> Samples:
    return args[0] if len(args) == 1 else args


def _called(chain: nn.Module, x: Samples) -> Any:
    return chain(x) if isinstance(x, Tensor) else chain(*x)
