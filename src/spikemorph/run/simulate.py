"""Run a spiking network: one verb for all engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import RunError, UsageError, expect
from spikemorph.evaluate.encode import Samples, input_counts
from spikemorph.run.default import Engine, default_engine
from spikemorph.run.handover import FRESH, Handover, check_handover
from spikemorph.run.record import Everything, Outputs, Record, kept_steps
from spikemorph.run.result import Run


def simulate(
    network: SpikingNetwork,
    x: Samples,
    *,
    steps: int | None = None,
    engine: Engine | None = None,
    record: Record | Sequence[Record] = (),
    handover: Handover = FRESH,
    lengths: Tensor | None = None,
) -> Run:
    """Run a batch from rest. Nothing is kept between two calls.

    A recurrent network runs element by element: each settles before its counts reach the next.

    Args:
        network: from `convert` or `load`.
        x: [batch, *shape], or a tuple with one tensor an argument.
        steps: None runs until nothing is in flight; a number runs exactly so many (in every element),
            `Run.settled` and `Run.element_settled` say what was at rest by then.
        engine: Event() by default where it applies, else Dense(); Reference() is the slow oracle.
        record: what to keep besides the outputs and totals.
        handover: Fresh() or Delta(), how settled counts reach the next element; both are exact.
        lengths: [batch], elements of each sample where sequences end early; the result is that of the
            network captured at that length, what stands behind the end of a sequence means nothing.

    Raises:
        DataError: the input or the lengths do not fit.
        RunError: steps below 1.
        UsageError: arguments of the wrong kind.
    """
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise RunError(
            where="simulate(steps)",
            got=repr(steps),
            known="a whole number of at least 1, or None",
            do="use steps=None to run until quiescent",
        )
    expect("simulate(network)", network, (SpikingNetwork,), "convert the graph first")
    engine = default_engine(network) if engine is None else engine
    if isinstance(engine, type) or not hasattr(engine, "run"):
        raise UsageError(
            where="simulate(engine)",
            got=repr(engine),
            known="an engine: Event(), Dense(), Reference()",
            do="leave it out for the default",
        )
    wanted = tuple(record) if isinstance(record, tuple | list) else (record,)
    for each in wanted:
        expect("simulate(record)", each, get_args(Record), "use SpikeCounts(), a tuple of records, or ()")
    check_handover("simulate(handover)", handover)
    kept = _for_window(network, steps, wanted)
    counts = input_counts(network.graph, x, lengths)
    run = engine.run(network, counts, steps=steps, record=kept, handover=handover, lengths=lengths)
    return run if kept == wanted else replace(run, shown=kept_steps(wanted) or ())


def _for_window(network: SpikingNetwork, steps: int | None, wanted: tuple[Record, ...]) -> tuple[Record, ...]:
    """The records; of a rate network with where the windows of its outputs begin."""
    if network.window is None:
        return wanted
    room = network.room
    if steps is None or steps > room:
        raise RunError(
            where="simulate(steps)",
            got=repr(steps),
            known=f"a rate network never comes to rest, and its counts have room for {room} steps",
            do="give the number of steps, such as steps=32",
        )
    if any(isinstance(each, Everything) for each in wanted):
        return wanted
    asked = [each for each in wanted if isinstance(each, Outputs)]
    if any(each.steps is None for each in asked):
        return wanted
    ends = {steps, *(step for each in asked for step in each.steps or ())}
    rest = tuple(each for each in wanted if not isinstance(each, Outputs))
    return (*rest, Outputs(network.window.around(ends)))
