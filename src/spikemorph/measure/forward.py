"""The float network as fast as plain torch runs it: the rival that a spiking run is measured against."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from spikemorph.evaluate.floats import evaluate_float
from spikemorph.ir.graph import Graph
from spikemorph.measure.timing import Job, interleaved, summary

TRIALS = 5
"""Repeats in which the forms of one network compete."""


@final
@dataclass(frozen=True, slots=True)
class Form:
    """One way to run a network.

    Args:
        setting: its words.
        place: inputs [batch, *shape] as `call` wants them; not timed.
        call: the whole run.
    """

    setting: str
    place: Callable[[Tensor], Tensor]
    call: Callable[[Tensor], object]


def float_forms(module: nn.Module, example: Tensor) -> tuple[Form, ...]:
    """The module as it is, batch norms folded, channels last, laid out for oneDNN, traced and frozen.

    A form that torch cannot make of this module, or whose outputs are not those of the module, is left out.

    Args:
        module: at rest (`eval`), float32.
        example: [batch, *shape].
    """
    wanted = _inferred(module)(example)
    forms = [Form("as it is", _same, _inferred(module))]
    makers: tuple[Callable[[], Form], ...] = (
        lambda: Form("batch norms folded", _same, _inferred(folded(module))),
        lambda: Form("batch norms folded, channels last", last, _inferred(channels_last(folded(module)))),
        lambda: Form("laid out for oneDNN", _same, _inferred(_for_onednn(module))),
        lambda: Form("traced and frozen", _same, _inferred(_frozen(module, example))),
    )
    for make in makers:
        try:
            form = make()
            got = form.call(form.place(example))
            same = _close(got, wanted)
        except Exception:  # torch's own tools raise anything; the other forms remain
            continue
        if same:
            forms.append(form)
    return tuple(forms)


def graph_forms(graph: Graph) -> tuple[Form, ...]:
    """The float graph node by node: slower than a module, for networks that have none here."""
    return (Form("float graph, node by node", _same, lambda x: evaluate_float(graph, (x,), keep=False)),)


def folded(module: nn.Module) -> nn.Module:
    """A copy whose batch norms are folded into the convolutions in front of them, where torch can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the import defines methods of torch.jit, which is deprecated
            from torch.fx.experimental.optimization import fuse

            fused: nn.Module = fuse(module)
    except Exception:  # a forward that torch.fx cannot trace
        return copy.deepcopy(module)
    return fused


def channels_last(module: nn.Module) -> nn.Module:
    """A copy with its convolutions laid out channels last."""
    return copy.deepcopy(module).to(memory_format=torch.channels_last)


def last(x: Tensor) -> Tensor:
    """Images channels last; other inputs as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def fastest(forms: Sequence[Form], parts: Sequence[Tensor]) -> tuple[Form, tuple[Tensor, ...]]:
    """The form with the smallest median on these inputs, and the inputs as it wants them."""
    placed = [tuple(form.place(part) for part in parts) for form in forms]
    if len(forms) == 1:
        return forms[0], placed[0]
    jobs = [job(form, inputs) for form, inputs in zip(forms, placed, strict=True)]
    medians = [summary(times).median for times in interleaved(jobs, TRIALS)]
    best = medians.index(min(medians))
    return forms[best], placed[best]


def job(form: Form, parts: Sequence[Tensor]) -> Job:
    """One run over all parts, one after the other."""

    def call() -> None:
        for part in parts:
            form.call(part)

    return Job(call, sum(len(part) for part in parts))


def _same(x: Tensor) -> Tensor:
    return x.contiguous()


def _inferred(module: nn.Module) -> Callable[[Tensor], object]:
    def call(x: Tensor) -> object:
        with torch.inference_mode():
            return module(x)

    return call


def _for_onednn(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `folded`
        from torch.fx.experimental.optimization import optimize_for_inference

        ready: nn.Module = optimize_for_inference(copy.deepcopy(module))
    return ready


def _frozen(module: nn.Module, example: Tensor) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and here still the fastest
        traced = torch.jit.trace(module, example[:1])
        ready: nn.Module = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return ready


def _close(got: object, wanted: object) -> bool:
    if not isinstance(got, Tensor) or not isinstance(wanted, Tensor):
        return type(got) is type(wanted)
    return got.shape == wanted.shape and torch.allclose(got, wanted, rtol=1e-3, atol=1e-3)
