"""Other simulators on the same architecture, one file each; absent ones are reported with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from spikemorph.measure.forward import Form


@final
@dataclass(frozen=True, slots=True)
class Adapted:
    """A network of another simulator.

    Args:
        version: of that simulator.
        forms: ways to run it; inputs are [batch, *shape], shown in every step.
        spikes: spikes of a whole run on inputs as the first form wants them.
    """

    version: str
    forms: tuple[Form, ...]
    spikes: Callable[[Tensor], float]


@final
@dataclass(frozen=True, slots=True)
class Absent:
    """Why a simulator has no row."""

    reason: str


Peer = Callable[[nn.Module, Tensor, int, int], Adapted | Absent]
"""peer(float module at rest, inputs [batch, *shape] to calibrate with, steps, neuron layers expected)."""


def spikingjelly(module: nn.Module, x: Tensor, steps: int, layers: int) -> Adapted | Absent:
    """SpikingJelly's rate-coding converter, IF neurons, multi-step."""
    from spikemorph.measure.peers import jelly

    return jelly.adapt(module, x, steps, layers)


def sinabs(module: nn.Module, x: Tensor, steps: int, layers: int) -> Adapted | Absent:
    """Sinabs' `from_model`, IAF neurons."""
    from spikemorph.measure.peers import synsense

    return synsense.adapt(module, x, steps, layers)


PEERS: dict[str, Peer] = {"spikingjelly": spikingjelly, "sinabs": sinabs}
"""By engine name in the rows."""


def missing(package: str, error: ImportError) -> Absent:
    """The reason when an import fails."""
    return Absent(f"{package} cannot be imported ({error}): pip install 'spikemorph[peers]'")


def refused(package: str, error: Exception) -> Absent:
    """The reason when a converter raises."""
    text = " ".join(str(error).split())
    return Absent(f"{package} refuses this network: {type(error).__name__}: {text[:300]}")


def incomplete(package: str, found: int, layers: int) -> Absent:
    """The reason when a converter left activations as they were."""
    return Absent(f"{package} made {found} spiking layers of {layers} activations: not the same network")
