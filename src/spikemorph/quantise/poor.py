"""Calibration data that says too little, and a warning about what comes of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from spikemorph.errors import CalibrationWarning
from spikemorph.evaluate.batching import Batches, batches
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.quantise.looks import looks_of
from spikemorph.quantise.observe import observe

CHUNK = 32


def remark(graph: Graph, calibration: Batches, planned: Callable[[], Graph], what: str) -> None:
    """A CalibrationWarning, where the samples are too few, all alike or without any contrast: see `Looks`.

    Args:
        graph: with the inputs that the data is for.
        planned: its neurons to be.
        what: found from the data: "thresholds", or "units".
    """
    found = looks_of(batches(graph, calibration, size=CHUNK, where="calibration")).flaw
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
