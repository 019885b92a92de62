"""SpikingJelly's own local threshold balancing (arXiv 2409.03368), its delayed readout included."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, final

import torch
from torch import Tensor, nn

from spikemorph.measure.peers import Absent, incomplete, missing, refused


@final
@dataclass(frozen=True)
class Balanced:
    """A network of `ann2snn.LocalThresholdBalancingRecipe`: binary spikes, float32, analog input every step.

    Args:
        version: of SpikingJelly.
        net: the converted network, single-step.
        starts: steps T -> the first step of its delayed readout.
        neurons: its layers of IF neurons.
    """

    version: str
    net: nn.Module
    starts: Mapping[int, int]
    neurons: tuple[nn.Module, ...]

    def over_steps(self, x: Tensor) -> tuple[dict[int, Tensor], dict[int, float]]:
        """One run: steps T -> mean output over start..T, and T -> spikes until then, of the whole batch.

        Args:
            x: [batch, *shape], shown in every step.
        """
        from spikingjelly.activation_based import functional

        sums: dict[int, Tensor] = {}
        spikes: dict[int, float] = {}
        with torch.inference_mode(), self._counting() as sent:
            functional.reset_net(self.net)
            for step in range(max(self.starts)):
                out = self.net(x)
                for steps, start in self.starts.items():
                    if start <= step < steps:
                        sums[steps] = out + sums[steps] if steps in sums else out
                    if step + 1 == steps:
                        spikes[steps] = float(sum(sent))
        return {steps: each / (steps - self.starts[steps]) for steps, each in sums.items()}, spikes

    @contextlib.contextmanager
    def _counting(self) -> Iterator[list[float]]:
        """Spikes of every layer and step, as they are sent."""
        sent: list[float] = []
        hooks = [
            each.register_forward_hook(lambda _module, _inputs, out: sent.append(float(out.sum())))
            for each in self.neurons
        ]
        try:
            yield sent
        finally:
            for hook in hooks:
                hook.remove()


def balance(
    module: nn.Module, calibration: Sequence[Tensor], steps: Sequence[int], layers: int
) -> Balanced | Absent:
    """Their conversion of a float network.

    Args:
        module: at rest; every ReLU a module of its own.
        calibration: batches [n, *shape]; their thresholds grow once a batch, their start is of the first.
        steps: T, at which the network will be read out.
        layers: ReLUs, all of which have to become IF neurons.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from spikingjelly.activation_based import ann2snn, neuron
    except ImportError as error:
        return missing("spikingjelly", error)
    try:
        with _quiet():
            recipe = ann2snn.LocalThresholdBalancingRecipe(list(calibration))
            net = ann2snn.Converter(recipe=recipe, device="cpu").convert(copy.deepcopy(module)).eval()
            starts = {each: _start(ann2snn, net, calibration, each) for each in steps}
    except Exception as error:  # whatever their converter raises is the reason
        return refused("spikingjelly", error)
    found = tuple(each for each in net.modules() if isinstance(each, neuron.HalfThresholdIFNode))
    if len(found) != layers:
        return incomplete("spikingjelly", len(found), layers)
    return Balanced(version("spikingjelly"), net, starts, found)


def _start(ann2snn: Any, net: nn.Module, calibration: Sequence[Tensor], steps: int) -> int:
    """As its example for ImageNet has it; where no steps would be left, the last five are read."""
    return int(ann2snn.estimate_delay_start(net, list(calibration), "cpu", steps))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Their progress bars and warnings are not ours."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
