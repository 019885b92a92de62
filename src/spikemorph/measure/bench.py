"""A spiking network against its float network, its quantised network and other simulators, in time.

One process, one number of threads. All engines run in every repeat, one after the other; inputs are prepared
before: counts for the integer engines, float32 tensors in the layout of each rival.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from spikemorph.convert.network import Graded, SpikingNetwork
from spikemorph.errors import RunError
from spikemorph.evaluate.encode import input_counts
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.evaluate.intervals import spans
from spikemorph.ir import ops
from spikemorph.ir.graph import Graph
from spikemorph.measure.forward import Form, fastest, float_forms, graph_forms, job
from spikemorph.measure.machine import machine
from spikemorph.measure.operations import macs, synaptic_operations
from spikemorph.measure.peers import PEERS, Absent
from spikemorph.measure.timing import Job, Progress, check_whole, interleaved, summary, threads_of
from spikemorph.run.dense import Dense
from spikemorph.run.event import Event
from spikemorph.run.handover import FRESH, Delta, Handover
from spikemorph.run.result import Run

BATCH = 64
SINGLES = 16
"""Samples that are run one by one in a repeat of batch 1."""


@final
@dataclass(frozen=True)
class Subject:
    """What is measured.

    Args:
        float_graph: the captured float network.
        integer_graph: its quantised network.
        network: converted from it.
        module: the float network as a torch module at rest; None: there is only the graph.
        x: [n, *shape] float32, typical inputs of a network of one input.
    """

    name: str
    float_graph: Graph
    integer_graph: Graph
    network: SpikingNetwork
    module: nn.Module | None
    x: Tensor


@final
@dataclass(frozen=True)
class Row:
    """One engine at one batch. Counts are of a sample.

    Args:
        spread: 10th and 90th percentile of `ms_per_sample` over the repeats.
        setting: how the engine was set; of several, the fastest.
        synaptic_operations_per_second: of spiking runs; `macs_per_second` of those that are not.
        steps_max: steps until quiescent (an element), or the fixed number.
    """

    engine: str
    batch: int
    threads: int
    ms_per_sample: float
    spread: tuple[float, float]
    setting: str
    spikes: float | None = None
    synaptic_operations: float | None = None
    synaptic_operations_per_second: float | None = None
    macs: int | None = None
    macs_per_second: float | None = None
    steps_max: int | None = None


@final
@dataclass(frozen=True)
class Bench:
    """All rows of one network.

    Args:
        ratios: medians of two rows divided; `ratio_spread` has percentiles of the same within a repeat.
        identical: readouts of the spiking engines and of the QNN are equal, bit for bit.
        absent: why an engine has no row.
        growth: see `measure.growth`.
    """

    recipe: str
    repeats: int
    threads: int
    elements: int
    rows: tuple[Row, ...]
    ratios: Mapping[str, float]
    ratio_spread: Mapping[str, tuple[float, float]]
    identical: bool
    absent: Mapping[str, str]
    machine: Mapping[str, Any]
    growth: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@final
@dataclass(frozen=True)
class Entry:
    """A row before it is timed."""

    row: Row
    job: Job


def bench(
    subject: Subject, *, repeats: int, threads: int, progress: Progress = lambda done, total: None
) -> Bench:
    """Time every engine at batch 64 and sample by sample; peers at batch 64.

    Raises:
        RunError: repeats or threads below 1, or a network of several inputs.
    """
    check_whole("repeats", repeats)
    parts = samples_of(subject)
    with threads_of(threads):
        facts = machine()
        entries, runs = _engines(subject, parts, threads)
        peers, absent = _peers(subject, parts[BATCH][0], runs["event"], threads)
        entries += _float(subject, parts, threads) + peers
        times = interleaved([each.job for each in entries], repeats, progress)
    rows = tuple(_timed(each.row, spent) for each, spent in zip(entries, times, strict=True))
    by_key = {(row.engine, row.batch): spent for row, spent in zip(rows, times, strict=True)}
    pairs = _pairs(by_key)
    return Bench(
        recipe=subject.name,
        repeats=repeats,
        threads=threads,
        elements=runs["event"].elements,
        rows=rows,
        ratios=ratios(rows),
        ratio_spread={
            name: summary([a / b for a, b in zip(by_key[up], by_key[down], strict=True)]).spread
            for name, (up, down) in pairs.items()
        },
        identical=_identical(subject, parts[BATCH][0], runs),
        absent=absent,
        machine=facts,
    )


def ratios(rows: tuple[Row, ...]) -> dict[str, float]:
    """Median of the event engine divided by that of each rival at the same batch, where both are there."""
    medians = {(row.engine, row.batch): row.ms_per_sample for row in rows}
    return {name: medians[up] / medians[down] for name, (up, down) in _pairs(medians).items()}


def samples_of(subject: Subject) -> dict[int, tuple[Tensor, ...]]:
    """Inputs by batch: 64 samples spread evenly over all, and the first of these one by one.

    Raises:
        RunError: a network of several inputs, or no sample.
    """
    if len(subject.network.graph.inputs) != 1 or len(subject.x) == 0:
        raise RunError(
            where=f"bench({subject.name})",
            got=f"{len(subject.network.graph.inputs)} inputs, {len(subject.x)} samples",
            known="networks of one input, and at least one sample",
            do="time such a network with your own loop around simulate",
        )
    spread = subject.x[torch.linspace(0, len(subject.x) - 1, BATCH).long()].contiguous()
    return {1: tuple(spread[:: BATCH // SINGLES].split(1)), BATCH: (spread,)}


def event_job(
    network: SpikingNetwork, counts: tuple[Tensor, ...], engine: Event, *, steps: int | None = None
) -> Job:
    """One run of the event engine on prepared counts."""
    return Job(lambda: engine.run(network, counts, steps=steps, record=()), len(counts[0]))


def facts_of(run: Run) -> dict[str, float]:
    """Spikes and synaptic operations, a sample."""
    samples = len(run.settled)
    return {"spikes": run.spikes / samples, "synaptic_operations": synaptic_operations(run) / samples}


def _pairs(
    rows: Mapping[tuple[str, int], object],
) -> dict[str, tuple[tuple[str, int], tuple[str, int]]]:
    """Ratio name -> (engine, batch) above and below the line."""
    found = {}
    for engine in (name for name, batch in rows if batch == BATCH and name.startswith("event")):
        for rival, batch, ending in (
            ("float", BATCH, "_b64"),
            ("float", 1, "_b1"),
            ("qnn", BATCH, ""),
            ("dense", BATCH, ""),
            *((peer, BATCH, "") for peer in PEERS),
        ):
            if (rival, batch) in rows:
                name = f"{engine.replace('-', '_')}_to_{rival}{ending}"
                found[name] = ((engine, batch), (rival, batch))
    return found


@final
@dataclass(frozen=True)
class _Way:
    """A way to run the same quantised network as spikes."""

    name: str
    network: SpikingNetwork
    engine: Event | Dense
    handover: Handover
    setting: str

    def run(self, counts: tuple[Tensor, ...]) -> Run:
        return self.engine.run(self.network, counts, steps=None, record=(), handover=self.handover)


def _ways(network: SpikingNetwork, threads: int) -> list[_Way]:
    """As it is, and with the largest spikes that it has use for, by fresh and by delta hand-over; dense."""
    event, until = Event(threads=threads), "until quiescent"
    known = spans(network.graph)
    most = max((int(known[node.name].size) for node in network.graph.neurons), default=1)
    graded = replace(network, spike=Graded(most))
    sizes = f"{until}, spikes of up to {most}"
    if not _recurrent(network.graph):
        ways = [
            _Way("event", network, event, FRESH, until),
            _Way("event-graded", graded, event, FRESH, sizes),
        ]
    else:
        ways = [
            _Way("event", network, event, FRESH, f"{until}, fresh hand-over"),
            _Way("event-delta", network, event, Delta(), f"{until}, delta hand-over"),
            _Way("event-graded", graded, event, FRESH, f"{sizes}, fresh hand-over"),
            _Way("event-graded-delta", graded, event, Delta(), f"{sizes}, delta hand-over"),
        ]
    if network.spike == graded.spike:
        ways = [each for each in ways if each.network is network]
    return [*ways, _Way("dense", network, Dense(), FRESH, f"{until}, float64")]


def _engines(
    subject: Subject, parts: Mapping[int, tuple[Tensor, ...]], threads: int
) -> tuple[list[Entry], dict[str, Run]]:
    """Rows of the integer engines, and what came out at batch 64."""
    network = subject.network
    entries: list[Entry] = []
    runs: dict[str, Run] = {}
    for batch, inputs in parts.items():
        counts = [input_counts(network.graph, part) for part in inputs]
        for way in _ways(network, threads):
            done = [way.run(each) for each in counts]
            if batch == BATCH:
                runs[way.name] = done[0]
            row = _spiking(way.name, batch, threads, way.setting, done)
            entries.append(Entry(row, _loop(way.run, counts)))
        cost = macs(subject.float_graph)
        row = Row("qnn", batch, threads, 0.0, (0.0, 0.0), "at rest, integers in float64", macs=cost)
        entries.append(Entry(row, _loop(lambda given: evaluate_counts(subject.integer_graph, given), counts)))
    return entries, runs


def _spiking(name: str, batch: int, threads: int, setting: str, runs: list[Run]) -> Row:
    found = [facts_of(run) for run in runs]
    mean = {key: sum(each[key] for each in found) / len(found) for key in found[0]}
    most = max(int(run.element_steps.max()) for run in runs)
    return Row(
        name,
        batch,
        threads,
        0.0,
        (0.0, 0.0),
        setting,
        spikes=mean["spikes"],
        synaptic_operations=mean["synaptic_operations"],
        steps_max=most,
    )


def _loop(call: Callable[[tuple[Tensor, ...]], object], inputs: list[tuple[Tensor, ...]]) -> Job:
    def run() -> None:
        for each in inputs:
            call(each)

    return Job(run, sum(len(each[0]) for each in inputs))


def _float(subject: Subject, parts: Mapping[int, tuple[Tensor, ...]], threads: int) -> list[Entry]:
    """Rows of the float network, in its fastest form at each batch."""
    module, cost = subject.module, macs(subject.float_graph)
    example = parts[BATCH][0]
    forms = graph_forms(subject.float_graph) if module is None else float_forms(module, example)
    entries = []
    for batch, inputs in parts.items():
        form, placed = fastest(forms, inputs)
        row = Row("float", batch, threads, 0.0, (0.0, 0.0), form.setting, macs=cost)
        entries.append(Entry(row, job(form, placed)))
    return entries


def _peers(subject: Subject, x: Tensor, event: Run, threads: int) -> tuple[list[Entry], dict[str, str]]:
    """Rows of other simulators at T = the largest number of steps of the event run; why others have none."""
    if _recurrent(subject.network.graph):
        return [], dict.fromkeys(PEERS, "a recurrent network; its converter is for feed-forward ones")
    if subject.module is None:
        return [], dict.fromkeys(PEERS, "there is no torch module of this network")
    steps = max(1, int(event.element_steps.max()))
    layers = sum(isinstance(node.op, ops.Neuron) and not node.op.identity for node in event.graph.nodes)
    entries, absent = [], {}
    for name, peer in PEERS.items():
        adapted = peer(subject.module, x, steps, layers)
        if isinstance(adapted, Absent):
            absent[name] = adapted.reason
            continue
        spikes = adapted.spikes(adapted.forms[0].place(x)) / len(x)
        form, placed = fastest(adapted.forms, (x,))
        setting = f"{adapted.version}: {form.setting}"
        row = Row(name, BATCH, threads, 0.0, (0.0, 0.0), setting, spikes=spikes, steps_max=steps)
        entries.append(Entry(row, _steps_job(form, placed[0], len(x))))
    return entries, absent


def _steps_job(form: Form, placed: Tensor, samples: int) -> Job:
    return Job(lambda: form.call(placed), samples)


def _timed(row: Row, times: tuple[float, ...]) -> Row:
    found = summary(times)
    each = 1e3 / found.median

    def rate(count: float | None) -> float | None:
        return None if count is None else count * each

    return replace(
        row,
        ms_per_sample=found.median,
        spread=found.spread,
        synaptic_operations_per_second=rate(row.synaptic_operations),
        macs_per_second=rate(row.macs),
    )


def _identical(subject: Subject, x: Tensor, runs: Mapping[str, Run]) -> bool:
    values = evaluate_counts(subject.integer_graph, input_counts(subject.integer_graph, x))
    return all(
        bool((run.raw[node.name] == values[node.name].long()).all())
        for run in runs.values()
        for node in subject.integer_graph.readouts
    )


def _recurrent(graph: Graph) -> bool:
    return any(isinstance(node.op, ops.Recurrence) for node in graph.nodes)
