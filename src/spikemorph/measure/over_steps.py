"""Outputs of a spiking network as if it had been stopped after T steps, for several T in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import RunError
from spikemorph.evaluate.batching import Batches, batches
from spikemorph.run.record import Outputs
from spikemorph.run.result import Run
from spikemorph.run.simulate import simulate

DEFAULT_STEPS = (8, 16, 32, 64)


@final
@dataclass(frozen=True)
class Reached:
    """What one batch gave.

    Args:
        inputs: of the batch, float32, as the network takes them.
        outputs: steps -> the module's own output structure after so many.
        quiescent: the same at rest; None of a rate network, or where it was not asked for.
        spikes: [steps, batch] sum of |spike| until then.
        run: the whole run: to rest, or to the largest number of steps.
    """

    inputs: tuple[Tensor, ...]
    outputs: Mapping[int, Any]
    quiescent: Any | None
    spikes: Tensor
    run: Run


def over_steps(
    network: SpikingNetwork,
    data: Batches,
    steps: tuple[int, ...] = DEFAULT_STEPS,
    *,
    quiescent: bool = True,
    batch: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Reached]:
    """Run the data batch by batch, each once, and look at its outputs after these steps.

    Args:
        network: lossless or rate-coded, feed-forward.
        data: samples, or a loader; labels are ignored.
        steps: rising, from 1 on; every layer is passed within a step. None at all: only the rest.
        quiescent: of a lossless network: run on until at rest.
        batch: samples at once.
        progress: is told samples done.

    Raises:
        DataError: empty or unfit data.
        RunError: unfit steps, or more than a rate network has room for.
    """
    rates = network.window is not None
    if not steps and (rates or not quiescent):
        raise RunError(
            where="over_steps(steps)",
            got="no steps",
            known="only a lossless network comes to rest, where it can be looked at without any",
            do="give steps, such as (8, 16, 32)",
        )
    if rates and max(steps) > network.room:
        raise RunError(
            where="over_steps(steps)",
            got=str(max(steps)),
            known=f"the counts of this rate network have room for {network.room} steps",
            do="use fewer steps, or fewer weight bits, which leave more room",
        )
    whole = None if quiescent and not rates else max(steps)
    done = 0
    for inputs in batches(network.graph, data, size=batch, where="data over steps"):
        run = simulate(network, inputs, steps=whole, record=Outputs(tuple(steps)) if steps else ())
        outputs, spikes = _looked_at(run, steps)
        done += len(inputs[0])
        progress(done)
        yield Reached(
            inputs,
            outputs,
            run.output if whole is None else None,
            spikes,
            run,
        )


def _looked_at(run: Run, steps: tuple[int, ...]) -> tuple[Mapping[int, Any], Tensor]:
    if not steps:
        return {}, torch.zeros(0, len(run.settled))
    assert run.outputs is not None and run.spikes_until is not None
    shown = run.at if run.at is not None else tuple(range(1, len(run.spikes_until) + 1))
    rows = torch.tensor([shown.index(step) for step in steps])
    return dict(zip(steps, run.outputs, strict=True)), run.spikes_until[rows]
