"""Sinabs: `from_model`, integrate-and-fire neurons that may spike several times a step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn

from spikemorph.measure.forward import Form, channels_last, folded, last
from spikemorph.measure.peers import Absent, Adapted, incomplete, missing, refused


def adapt(module: nn.Module, x: Tensor, steps: int, layers: int) -> Adapted | Absent:
    """The converted network: inputs [batch * steps, *shape], batch norms folded before."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sinabs.from_torch import from_model
            from sinabs.layers import StatefulLayer
    except ImportError as error:
        return missing("sinabs", error)
    try:
        net: nn.Module = from_model(folded(module), num_timesteps=steps).spiking_model.eval()
    except Exception as error:  # whatever their converter raises is the reason
        return refused("sinabs", error)
    found = [each for each in net.modules() if isinstance(each, StatefulLayer)]
    if len(found) != layers:
        return incomplete("sinabs", len(found), layers)

    def form(setting: str, snn: nn.Module, lay: Callable[[Tensor], Tensor]) -> Form:
        stateful = [each for each in snn.modules() if isinstance(each, StatefulLayer)]

        def call(frames: Tensor) -> object:
            with torch.inference_mode():
                for each in stateful:
                    each.reset_states()
                return snn(frames).unflatten(0, (-1, steps)).mean(1)

        return Form(setting, lambda each: lay(each.repeat_interleave(steps, 0)), call)

    forms = (
        form(f"IAF, T = {steps}", net, Tensor.contiguous),
        form(f"IAF, T = {steps}, channels last", channels_last(net), last),
    )

    def spikes(frames: Tensor) -> float:
        total = 0.0

        def add(_module: nn.Module, _inputs: object, sent: Tensor) -> None:
            nonlocal total
            total += float(sent.sum())

        hooks = [each.register_forward_hook(add) for each in found]
        forms[0].call(frames)
        for hook in hooks:
            hook.remove()
        return total

    return Adapted(version("sinabs"), forms, spikes)
