"""Calibration data that says too little, and a warning about what comes of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from torch import Tensor

from spikemorph.errors import CalibrationWarning
from spikemorph.evaluate.batching import Batches, batches
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.quantise.observe import observe

FEW = 8
"""Fewer samples are remarked on."""
CHUNK = 32


def remark(graph: Graph, calibration: Batches, planned: Callable[[], Graph], what: str) -> None:
    """A CalibrationWarning, where the samples are too few, all alike or without any contrast.

    Args:
        graph: with the inputs that the data is for.
        planned: its neurons to be.
        what: found from the data: "thresholds", or "units".
    """
    found = flaw(graph, calibration)
    if found is None:
        return
    neurons = planned()
    seen = observe(neurons, calibration)
    rows = [seen[node.name] for node in neurons.body if isinstance(node.op, ops.Quantiser)]
    silent = sum(int((each == 0).all(1).sum()) for each in rows)
    guessed = f"{silent} of {sum(map(len, rows))} belong to activations that never were above zero: guessed"
    warnings.warn(
        CalibrationWarning(
            where="calibration",
            got=found,
            known=f"{what} fit what is seen: they clip whatever is larger in other samples; {guessed}",
            do="pass a few hundred different samples of training data; labels are not needed",
        ),
        stacklevel=3,
    )


def flaw(graph: Graph, data: Batches) -> str | None:
    """What is poor about calibration samples, None for nothing.

    Args:
        data: looked at until nothing can be wrong any more; no iterator, of which nothing would be left.
    """
    seen, alike, flat = 0, True, True
    first: tuple[Tensor, ...] | None = None
    for inputs in batches(graph, data, size=CHUNK, where="calibration"):
        first = tuple(each[:1] for each in inputs) if first is None else first
        seen += len(inputs[0])
        alike = alike and all(bool((x == one).all()) for x, one in zip(inputs, first, strict=True))
        flat = flat and all(_flat(x) for x in inputs)
        if seen >= FEW and not alike and not flat:
            return None
    noun = "sample" if seen == 1 else "samples"
    if flat:
        return f"{seen} {noun} without contrast: nothing differs from place to place"
    return f"{seen} {noun}{', all alike' if alike and seen > 1 else ''}"


def _flat(x: Tensor) -> bool:
    """Whether nothing differs along the last axes of [batch, channels, ...], or within [batch, features]."""
    rows = x.flatten(2) if x.dim() > 2 else x.reshape(len(x), -1)
    return rows.shape[-1] > 1 and bool((rows == rows[..., :1]).all())
