"""SpikingJelly: `ann2snn` with its rate-coding recipe, IF neurons with soft reset, multi-step."""

from __future__ import annotations

import copy
import warnings
from importlib.metadata import version

import torch
from torch import Tensor, nn

from spikemorph.measure.forward import Form, channels_last
from spikemorph.measure.peers import Absent, Adapted, incomplete, missing, refused


def adapt(module: nn.Module, x: Tensor, steps: int, layers: int) -> Adapted | Absent:
    """The converted network in multi-step mode: inputs [steps, batch, *shape], batch norms folded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from spikingjelly.activation_based import ann2snn, functional, neuron
    except ImportError as error:
        return missing("spikingjelly", error)
    try:
        recipe = ann2snn.RateCodingRecipe([(x, torch.zeros(len(x)))])
        net = ann2snn.FXConverter(recipe).convert(copy.deepcopy(module)).eval()
        functional.set_step_mode(net, "m")
    except Exception as error:  # whatever their converter raises is the reason
        return refused("spikingjelly", error)
    found = [each for each in net.modules() if isinstance(each, neuron.IFNode)]
    if len(found) != layers:
        return incomplete("spikingjelly", len(found), layers)

    def form(setting: str, snn: nn.Module) -> Form:
        def call(sequence: Tensor) -> object:
            with torch.inference_mode():
                functional.reset_net(snn)
                return snn(sequence).mean(0)

        return Form(setting, lambda each: each.unsqueeze(0).expand(steps, *each.shape).contiguous(), call)

    forms = (
        form(f"IF, multi-step, T = {steps}", net),
        form(f"IF, multi-step, T = {steps}, channels last", channels_last(net)),
    )

    def spikes(sequence: Tensor) -> float:
        total = 0.0

        def add(_module: nn.Module, _inputs: object, sent: Tensor) -> None:
            nonlocal total
            total += float(sent.sum())

        hooks = [each.register_forward_hook(add) for each in found]
        forms[0].call(sequence)
        for hook in hooks:
            hook.remove()
        return total

    return Adapted(version("spikingjelly"), forms, spikes)
