"""The certificate: spiking and quantised network are equal on every neuron of every sample, or where not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.convert.network import Spikes, SpikingNetwork, spike_name
from spikemorph.errors import DataError, FileError, expect
from spikemorph.evaluate.batching import Batches, batches
from spikemorph.evaluate.encode import input_counts, saturated
from spikemorph.evaluate.ends import as_lengths
from spikemorph.evaluate.integers import evaluate_counts
from spikemorph.evaluate.intervals import accumulator_bounds
from spikemorph.ir.elements import is_sequence
from spikemorph.ir.graph import Graph
from spikemorph.ir.store import graph_hash
from spikemorph.run.default import Engine, default_engine
from spikemorph.run.handover import FRESH, Delta, Fresh, Handover
from spikemorph.run.record import Everything, Record, SpikeCounts
from spikemorph.run.result import Run
from spikemorph.run.schedule import schedule
from spikemorph.verify.bounds import integer_type, steps_bound
from spikemorph.verify.extent import Extent, emitting
from spikemorph.verify.first import FirstDifference, first_of, flat_index
from spikemorph.verify.structure import Difference, check_dialects, differences

FORMAT = 1
CHUNK = 100
SEQUENCES = 1000
"""Most samples compared at once; sequences run element by element, so more of them go together."""


@final
@dataclass(frozen=True)
class Certificate:
    """What was compared and proven; `lossless` is the verdict. Steps and spikes are the spiking network's.

    Steps are those of an element (a recurrent update; a feed-forward sample is one element). `look_ahead` is
    how many input elements an update needs beyond its own share of the sequence.

    Where sequences end early, `lengths_hash` is that of their lengths ("" without), and only what stands in
    front of the ends is looked at and counted: data, neurons, outputs, steps. `spikes` and `events` are all
    that were sent; with the fresh hand-over that includes the kept states of samples that have ended.
    """

    lossless: bool
    graph_hash: str
    network_hash: str
    data_hash: str
    samples: int
    neurons: int
    neurons_compared: int
    neurons_different: int
    outputs_compared: int
    outputs_different: int
    structural_differences: tuple[Difference, ...]
    first_difference: FirstDifference | None
    unsettled_samples: int
    saturated_samples: int
    accumulator_bounds: Mapping[str, int]
    accumulator_types: Mapping[str, str]
    integer_type: str
    steps_bound: int
    steps_max: int
    steps_p999: float
    steps_mean: float
    spikes: int
    events: int
    spikes_per_neuron: float
    spike_kind: str
    analog_inputs: str
    engine: str
    handover: str = "none"
    elements: int = 1
    look_ahead: int = 0
    handover_spikes: int = 0
    lengths_hash: str = ""
    format: int = FORMAT

    def to_json(self) -> str:
        """The certificate as a JSON object."""
        return json.dumps(asdict(self), indent=2)


@dataclass
class _Books:
    """Sums over the batches of one verification."""

    data: list[Any] = field(default_factory=list)
    samples: int = 0
    compared: int = 0
    different: int = 0
    outputs: int = 0
    outputs_different: int = 0
    first: FirstDifference | None = None
    unsettled: int = 0
    saturated: int = 0
    emitters: int = 0
    steps: list[Tensor] = field(default_factory=list)
    spikes: int = 0
    events: int = 0
    handed_over: int = 0


def verify(
    network: SpikingNetwork,
    graph: Graph,
    data: Batches,
    *,
    engine: Engine | None = None,
    watch: Callable[[Run], None] | None = None,
    handover: Handover = FRESH,
    lengths: Tensor | None = None,
) -> Certificate:
    """Compare the spiking network at quiescence with the quantised one, neuron by neuron and by structure.

    Of a recurrent network every neuron is compared after every element. Raises nothing about losslessness:
    the certificate says whether and where they differ.

    Args:
        network: from `convert` or `load`.
        graph: the integer graph (QNN) it should equal.
        data: a tensor of samples, a tuple of tensors, or a loader of batches.
        engine: that runs the spiking network, Event() by default where it applies.
        watch: is shown the run of every batch, in order: for progress, and for measures of one's own.
        handover: how settled counts reach the next element of a sequence.
        lengths: [samples], elements of each sample where sequences end early.

    Raises:
        DataError: empty or unfit data, or unfit lengths.
        GraphError: `graph` is no integer graph, or its accumulators exceed what is computed exactly.
    """
    expect("verify(network)", network, (SpikingNetwork,), "the network first, then the graph, then the data")
    expect("verify(graph)", graph, (Graph,), "the network first, then the graph, then the data")
    expect("verify(handover)", handover, (Fresh, Delta), "use Fresh() or Delta()")
    check_dialects(network, graph)
    lengths = None if lengths is None else as_lengths(lengths)
    engine = default_engine(network) if engine is None else engine
    how, books = _How(engine, handover), _Books()
    size = graph.samples_at_once(SEQUENCES if is_sequence(graph) else CHUNK)
    for inputs in batches(graph, data, size=size, where="verification data", lengths=lengths):
        ends = None if lengths is None else lengths[books.samples : books.samples + len(inputs[0])]
        run = _compare_batch(network, graph, inputs, replace(how, lengths=ends), books)
        if watch is not None:
            watch(run)
    if lengths is not None and len(lengths) != books.samples:
        raise DataError(
            where="lengths",
            got=f"{len(lengths)} of them",
            known=f"one for each of the {books.samples} samples",
            do="give every sample its number of elements",
        )
    return replace(_certificate(network, graph, how, books), lengths_hash=lengths_hash(lengths))


@dataclass(frozen=True)
class _How:
    """How the spiking network is run."""

    engine: Engine
    handover: Handover
    lengths: Tensor | None = None

    def run(self, network: SpikingNetwork, inputs: tuple[Tensor, ...], record: Record) -> Run:
        counts = input_counts(network.graph, inputs)
        return self.engine.run(
            network, counts, steps=None, record=(record,), handover=self.handover, lengths=self.lengths
        )


def _compare_batch(
    network: SpikingNetwork, graph: Graph, inputs: tuple[Tensor, ...], how: _How, books: _Books
) -> Run:
    _digest(books, inputs)
    extent = Extent.of(graph, len(inputs[0]), how.lengths)
    rest = evaluate_counts(graph, input_counts(graph, inputs), how.lengths)
    run = how.run(network, inputs, SpikeCounts())
    assert run.counts is not None
    places: list[FirstDifference] = []
    for node in graph.neurons:
        snn, qnn = run.counts.get(node.name), rest[node.name].to(torch.int64)
        books.compared += extent.numbers(node)
        if snn is None or snn.shape != qnn.shape:
            books.different += extent.numbers(node)
            continue
        snn = torch.where(extent.mask(node), snn, qnn)
        wrong = int((snn != qnn).sum())
        books.different += wrong
        if wrong and books.first is None:
            places.append(first_of(node, (qnn, snn), run, books.samples))
    if places:
        books.first = min(places, key=lambda place: place.element)
        if len(run.element_steps) == 1:
            books.first = replace(books.first, step=_last_step(network, books, inputs, how))
    for node in graph.readouts:
        raw, qnn = run.raw.get(node.name), rest[node.name].to(torch.int64)
        books.outputs += extent.numbers(node)
        if raw is None or raw.shape != qnn.shape:
            books.outputs_different += extent.numbers(node)
        else:
            books.outputs_different += int(((raw != qnn) & extent.mask(node)).sum())
    own = Extent.of(network.graph, len(inputs[0]), how.lengths)
    books.emitters += own.emitters(network)
    books.steps.append(own.steps(network, run.element_steps))
    _add_run(books, run, int(saturated(graph, inputs).sum()), inputs[0].shape[0])
    return run


def _digest(books: _Books, inputs: tuple[Tensor, ...]) -> None:
    """One hash an argument, so that the size of the batches does not enter."""
    if not books.data:
        books.data = [hashlib.sha256(str(tuple(each.shape[1:])).encode()) for each in inputs]
    for digest, each in zip(books.data, inputs, strict=True):
        digest.update(each.detach().cpu().contiguous().numpy().tobytes())


def _add_run(books: _Books, run: Run, outside: int, samples: int) -> None:
    books.samples += samples
    books.saturated += outside
    books.unsettled += int((~run.settled).sum())
    books.spikes += run.spikes
    books.events += run.events
    handed = [each for name, each in run.layer_spikes.items() if name.endswith(".handover")]
    books.handed_over += sum(int(each.sum()) for each in handed)


def _last_step(network: SpikingNetwork, books: _Books, inputs: tuple[Tensor, ...], how: _How) -> int:
    """1 + the last step in which a neuron emitted, 0 for never; its sample runs again for it."""
    first = books.first
    assert first is not None
    number = first.sample - books.samples
    ends = None if how.lengths is None else how.lengths[number : number + 1]
    run = replace(how, lengths=ends).run(
        network, tuple(each[number : number + 1] for each in inputs), Everything()
    )
    assert run.trace is not None
    trace = run.trace[first.layer]
    where = first.position if first.channel is None else (first.channel, *first.position)
    emitted = trace[:, 0].flatten(1)[:, flat_index(where, trace.shape[2:])].nonzero()
    return int(emitted.max()) + 1 if len(emitted) else 0


def _certificate(network: SpikingNetwork, graph: Graph, how: _How, books: _Books) -> Certificate:
    structural = differences(graph, network.graph)
    bounds = accumulator_bounds(network.graph)
    timing = schedule(network.graph)
    steps = torch.cat(books.steps).double()
    neurons = sum(int(torch.Size(node.shape).numel()) for node in graph.neurons)
    exact = not (books.different or books.outputs_different or books.unsettled or structural)
    return Certificate(
        lossless=exact,
        graph_hash=graph_hash(graph),
        network_hash=network_hash(network),
        data_hash=hashlib.sha256(b"".join(each.digest() for each in books.data)).hexdigest(),
        samples=books.samples,
        neurons=neurons,
        neurons_compared=books.compared,
        neurons_different=books.different,
        outputs_compared=books.outputs,
        outputs_different=books.outputs_different,
        structural_differences=structural,
        first_difference=books.first,
        unsettled_samples=books.unsettled,
        saturated_samples=books.saturated,
        accumulator_bounds=bounds,
        accumulator_types={name: integer_type(bound) for name, bound in bounds.items()},
        integer_type=integer_type(max(bounds.values(), default=0)),
        steps_bound=steps_bound(network),
        steps_max=int(steps.max()),
        steps_p999=_quantile(steps, 0.999),
        steps_mean=float(steps.mean()),
        spikes=books.spikes,
        events=books.events,
        spikes_per_neuron=books.spikes / max(books.emitters, 1),
        spike_kind=spike_kind(network),
        analog_inputs=analog_inputs(network),
        engine=type(how.engine).__name__.lower(),
        handover=type(how.handover).__name__.lower() if is_sequence(network.graph) else "none",
        elements=timing.elements,
        look_ahead=timing.look_ahead,
        handover_spikes=books.handed_over,
    )


def _quantile(values: Tensor, fraction: float) -> float:
    """As torch.quantile, which takes at most 2**24 numbers."""
    place = fraction * (len(values) - 1)
    low, high = (values.kthvalue(k + 1).values for k in (int(place), -int(-place // 1)))
    return float(low + (high - low) * (place - int(place)))


def emitters(network: SpikingNetwork) -> int:
    """How many neurons, pools and, where it is sent as spikes, input numbers emit."""
    return sum(int(torch.Size(node.shape).numel()) for node in emitting(network))


def spike_kind(network: SpikingNetwork) -> str:
    """What travels between neurons, in words."""
    return spike_name(network.spike)


def analog_inputs(network: SpikingNetwork) -> str:
    """Where analog values enter, in words."""
    if isinstance(network.encoding, Spikes):
        return "none"
    if network.window is not None:
        return "input, injected in every step"
    over = f"evenly over steps 0..{network.ramp - 1}" if network.ramp > 1 else "once at step 0"
    return f"input, injected {over}"


def network_hash(network: SpikingNetwork) -> str:
    """Hash of all that decides what a spiking network does."""
    text = f"{graph_hash(network.graph)}|{network.spike!r}|{network.encoding!r}|{network.source}"
    if network.ramp != 1 or network.window is not None:  # without, as in certificates older than both
        text += f"|{network.ramp}|{network.window!r}"
    return hashlib.sha256(text.encode()).hexdigest()


def lengths_hash(lengths: Tensor | None) -> str:
    """Hash of where the samples end, "" without lengths."""
    if lengths is None:
        return ""
    return hashlib.sha256(lengths.cpu().to(torch.int64).contiguous().numpy().tobytes()).hexdigest()


def recheck(
    text: str,
    network: SpikingNetwork,
    graph: Graph,
    data: Batches,
    *,
    engine: Engine | None = None,
    lengths: Tensor | None = None,
) -> tuple[Certificate, tuple[str, ...]]:
    """Verify again and compare with a certificate read from JSON; the engines may differ.

    Args:
        text: the certificate; one that is older than `lengths_hash` was made without lengths.
        lengths: [samples], as `verify` was given them.

    Returns:
        The new certificate, and one sentence for every field that disagrees with the old one.

    Raises:
        FileError: the text is no certificate of a format this version reads.
    """
    old = {"lengths_hash": "", **parse_certificate(text)}
    handover = Delta() if old.get("handover") == "delta" else FRESH
    new = verify(network, graph, data, engine=engine, handover=handover, lengths=lengths)
    fresh = json.loads(new.to_json())
    skipped = ("engine",)
    wrong = [
        f"{name}: the certificate says {old.get(name)!r}, measured {fresh.get(name)!r}"
        for name in dict.fromkeys((*fresh, *old))
        if name not in skipped and old.get(name) != fresh.get(name)
    ]
    return new, tuple(wrong)


def parse_certificate(text: str) -> dict[str, Any]:
    """The fields of a certificate in JSON.

    Raises:
        FileError: damaged, foreign, or of a future format.
    """
    try:
        read = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise FileError(
            where="the certificate",
            got=str(error),
            known="a JSON object",
            do="make it again with `spikemorph verify`",
        ) from error
    if not isinstance(read, dict) or "graph_hash" not in read or read.get("format") != FORMAT:
        got = type(read).__name__
        if isinstance(read, dict):
            has = "with" if "graph_hash" in read else "without"
            got = f"format {read.get('format')!r}, {has} a graph_hash"
        raise FileError(
            where="the certificate",
            got=got,
            known=f"a certificate of format {FORMAT}, with the hash of a graph",
            do="upgrade spikemorph if the certificate is newer, or make it again with `spikemorph verify`",
        )
    return read
