"""What each command does; every function returns the exit code."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from spikemorph import data as sources
from spikemorph.cli import output
from spikemorph.cli.methods import parse_method
from spikemorph.cli.models import captured, example_of, load_model, load_samples, placed
from spikemorph.convert.files import load, load_network, save
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import Method
from spikemorph.convert.methods import convert as convert_graph
from spikemorph.convert.network import SpikingNetwork
from spikemorph.data import Split
from spikemorph.errors import FileError, UsageError
from spikemorph.evaluate.intervals import accumulator_bounds
from spikemorph.files import atomic_text, check_target
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.ops import Neuron
from spikemorph.ir.store import graph_hash
from spikemorph.passes.inspection import inspect as inspect_model
from spikemorph.passes.levels import LeastSquares, Levels, Max, Observer, Percentile, PerChannel, PerTensor
from spikemorph.quantise import quantise
from spikemorph.quantise.methods import Nearest, Reconstruction
from spikemorph.recipes import RECIPES
from spikemorph.recipes.digits import demo as run_demo
from spikemorph.run.default import Engine
from spikemorph.run.dense import Dense
from spikemorph.run.event import Event
from spikemorph.run.handover import Delta, Fresh, Handover
from spikemorph.run.reference import Reference
from spikemorph.run.result import Run
from spikemorph.run.schedule import schedule
from spikemorph.verify.bounds import integer_type, steps_bound
from spikemorph.verify.certificate import Certificate, analog_inputs, spike_kind
from spikemorph.verify.certificate import recheck as recheck_certificate
from spikemorph.verify.certificate import verify as verify_network


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """How to quantise and convert, as typed."""

    levels: int
    weight_bits: int
    spike: str | None = None
    per_channel: bool | None = None
    observer: str = "least-squares"
    spike_input: bool = False
    batch_axis: int = 0
    method: str = "lossless"
    ramp: int = 1
    reconstruct: bool = False
    thresholds: str | None = None

    def to_levels(self) -> Levels:
        """The library's own choices."""
        granularity = PerChannel() if self.per_channel else PerTensor()
        return Levels(
            self.levels, self.weight_bits, observer=_observer(self.observer), granularity=granularity
        )

    def to_method(self) -> Method:
        """The conversion; what was not typed is as the method has it."""
        kind = self.method, self.spike, self.ramp, self.thresholds
        method = parse_method(*kind, spike_input=self.spike_input)
        if isinstance(method, Lossless):
            return method
        per_channel = method.per_channel if self.per_channel is None else self.per_channel
        return replace(method, weight_bits=self.weight_bits, per_channel=per_channel)


@final
@dataclass(frozen=True, slots=True)
class Targets:
    """The files that `convert` writes; None: not that one."""

    network: Path
    qnn: Path | None
    float_network: Path | None

    def check(self) -> None:
        """All can be written, before any work and before one is written."""
        others = [path for path in (self.network, self.float_network) if path is not None]
        taken = {check_target(path) for path in others}
        if self.qnn is not None and check_target(self.qnn) in taken:
            raise UsageError(
                where="--qnn",
                got=f"{self.qnn}, as --out",
                known="files of different names",
                do="give the QNN a name of its own",
            )


@final
@dataclass(frozen=True, slots=True)
class Example:
    """Where the example input comes from."""

    data: str | None
    shape: str | None


@final
@dataclass(frozen=True, slots=True)
class Chosen:
    """A network file, and the data, engine and hand-over to run it with."""

    network: Path
    data: str
    split: Split
    samples: int | None
    engine: str
    handover: str = "fresh"

    def passed_on(self) -> Handover:
        """How settled counts reach the next element."""
        known: dict[str, Handover] = {"fresh": Fresh(), "delta": Delta()}
        if self.handover not in known:
            raise UsageError(
                where="--handover",
                got=repr(self.handover),
                known=", ".join(known),
                do="leave it out for fresh; delta sends changes only",
            )
        return known[self.handover]

    def chosen_engine(self) -> Engine:
        """The engine."""
        engines: dict[str, Engine] = {"event": Event(), "dense": Dense(), "reference": Reference()}
        if self.engine not in engines:
            raise UsageError(
                where="--engine",
                got=repr(self.engine),
                known=", ".join(engines),
                do="leave it out for the default",
            )
        return engines[self.engine]

    def load(self) -> tuple[SpikingNetwork, Tensor, Tensor | None, Engine]:
        """The network, inputs, labels if any, and the engine."""
        engine = self.chosen_engine()
        network = load_network(self.network)
        x, y = load_samples(self.data, self.split, self.samples)
        return network, x, y, engine


def _observer(text: str) -> Observer:
    if text == "least-squares":
        return LeastSquares()
    if text == "max":
        return Max()
    try:
        return Percentile(float(text))
    except ValueError as error:
        raise UsageError(
            where="--observer",
            got=repr(text),
            known="least-squares, max, or a percentile in (0, 100]",
            do="try 99.9",
        ) from error


def demo(*, as_json: bool) -> int:
    """All demo networks; 1 where losslessness fails."""
    with output.Bars() as bars:
        results = run_demo(output.say, bars.bar)
    if as_json:
        output.emit_json([each.to_dict() for each in results])
    else:
        output.show_results("scikit-learn digits: every test image, every neuron, until quiescent", results)
    return 0 if all(each.lossless for each in results) else 1


def inspect(
    reference: str, weights: Path | None, example: Example, settings: Settings, *, as_json: bool
) -> int:
    """The table of fates; 1 where something is refused."""
    model = load_model(reference, weights)
    program = isinstance(model, torch.export.ExportedProgram)
    given = not program or example != Example(None, None)
    sample = placed(example_of(example.data, example.shape), settings.batch_axis) if given else None
    levels = settings.to_levels()
    with output.guest():
        found = inspect_model(model, sample, levels, batch_axis=settings.batch_axis)
    if as_json:
        output.emit_json(found.to_dict())
    else:
        output.show(str(found))
    return 0 if found.convertible else 1


def convert(
    reference: str,
    weights: Path | None,
    calibration: tuple[str, int],
    settings: Settings,
    out: Targets,
    *,
    as_json: bool,
) -> int:
    """Capture, quantise, convert and save; every file appears whole or not at all."""
    levels, method = settings.to_levels(), settings.to_method()
    out.check()
    x, _ = load_samples(calibration[0], Split.TRAIN, calibration[1])
    model = load_model(reference, weights)
    output.say(f"capturing {reference}")
    graph = captured(model, x, calibration[0], settings.batch_axis)
    integer = graph
    if isinstance(method, Lossless):
        output.say(f"quantising on {len(x)} samples")
        with output.remarks():
            integer = quantise(graph, x, levels, Reconstruction() if settings.reconstruct else Nearest())
        network = convert_graph(integer, method)
    else:
        network = _balanced(graph, method, x)
    save(network, out.network)
    if out.qnn is not None:
        save(integer, out.qnn)
    if out.float_network is not None:
        save(graph, out.float_network)
    summary = {"file": str(out.network), **_facts(network), "bytes": out.network.stat().st_size}
    if as_json:
        output.emit_json(summary)
    else:
        output.table(str(out.network), ["", "value"], [[key, str(value)] for key, value in summary.items()])
    return 0


def _balanced(graph: Graph, method: Method, x: Tensor) -> SpikingNetwork:
    with output.remarks(), output.Bars() as bars:
        return convert_graph(graph, method, x, progress=bars.bar("thresholds"))


def _facts(network: SpikingNetwork) -> dict[str, Any]:
    graph, timing = network.graph, schedule(network.graph)
    bound = max(accumulator_bounds(graph).values(), default=0)
    identities = [node.name for node in graph.neurons if isinstance(node.op, Neuron) and node.op.identity]
    return {
        "graph_hash": graph_hash(graph),
        "neurons": sum(int(torch.Size(node.shape).numel()) for node in graph.neurons),
        "layers": len(graph.neurons),
        "identity_neurons": len(identities),
        "spike_kind": spike_kind(network),
        "analog_inputs": analog_inputs(network),
        "accumulator_bound": bound,
        "integer_type": integer_type(bound),
        **_steps(network),
        "elements": timing.elements,
        "look_ahead": timing.look_ahead,
    }


def _steps(network: SpikingNetwork) -> dict[str, Any]:
    """After how many steps all is at rest; a rate network never is, but has room for so many."""
    if network.window is None:
        return {"steps_bound": steps_bound(network), "ramp": network.ramp}
    return {"steps_room": network.room, "window_start": network.window.start}


def verify(
    chosen: Chosen, qnn: Path | None, certificate: Path | None, recheck: Path | None, *, as_json: bool
) -> int:
    """Compare, write the certificate, check an older one; 1 where anything differs."""
    if certificate is not None:
        check_target(certificate)
    handover = chosen.passed_on()
    network, x, _, engine = chosen.load()
    graph = network.graph if qnn is None else _integer_graph(qnn)
    complaints: tuple[str, ...] = ()
    if graph_hash(graph) != network.source:
        complaints = (f"the network was converted from graph {network.source}, not from {graph_hash(graph)}",)
    if recheck is not None:
        made, disagreements = recheck_certificate(_read(recheck), network, graph, x, engine=engine)
        complaints += disagreements
    else:
        made = _verified(network, graph, x, engine, handover)
    if certificate is not None:
        atomic_text(certificate, made.to_json())
    ok = made.lossless and not complaints
    if as_json:
        output.emit_json({**asdict(made), "ok": ok, "complaints": list(complaints)})
    else:
        notes = [f"{recheck}: the certificate is confirmed"] if recheck is not None and ok else []
        if qnn is None:
            notes.append("compared with the graph in the file, by its hash the one it was converted from")
        _show_certificate(made, complaints, notes if ok else [])
    return 0 if ok else 1


def _verified(
    network: SpikingNetwork, graph: Graph, x: Tensor, engine: Engine, handover: Handover
) -> Certificate:
    done = 0
    with output.Bars() as bars:
        bar = bars.bar("samples")

        def watch(run: Run) -> None:
            nonlocal done
            done += len(run.settled)
            bar(done, len(x))

        return verify_network(network, graph, x, engine=engine, watch=watch, handover=handover)


def _integer_graph(path: Path) -> Graph:
    loaded = load(path)
    graph = loaded.graph if isinstance(loaded, SpikingNetwork) else loaded
    if graph.dialect is not Dialect.INTEGER:
        raise FileError(
            where=str(path),
            got="a float graph",
            known="the quantised network, from convert --qnn",
            do="pass that file",
        )
    return graph


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            where=str(path),
            got=str(error),
            known="a certificate in JSON",
            do="make one with verify --certificate",
        ) from error


def _show_certificate(made: Certificate, complaints: tuple[str, ...], notes: list[str]) -> None:
    skipped = ("structural_differences", "first_difference", "accumulator_bounds", "accumulator_types")
    rows = [[key, str(value)] for key, value in asdict(made).items() if key not in skipped]
    output.table("LOSSLESS" if made.lossless else "NOT LOSSLESS", ["", "value"], rows)
    if made.first_difference is not None:
        output.show(f"first difference: {made.first_difference}")
    for each in (*made.structural_differences, *complaints):
        output.show(str(each))
    for each in notes:
        output.show(each)


def reproduce(name: str, folder: Path | None, *, evaluate: bool, full: bool, as_json: bool) -> int:
    """Train or evaluate a recipe; 1 where losslessness fails."""
    if name not in RECIPES:
        raise UsageError(
            where="reproduce",
            got=repr(name),
            known=", ".join(sorted(RECIPES)),
            do="choose one of these recipes",
        )
    recipe = RECIPES[name]
    place = None if evaluate else folder or recipe.workplace
    if place is not None:
        recipe.train(place, output.say)
    with output.Bars() as bars:
        result = recipe.evaluate(place, bars.bar(name), full=full)
    if as_json:
        output.emit_json(result.to_dict())
    else:
        output.show_results(name, [result])
    return 0 if result.lossless else 1


def data(fetch: str | None, *, as_json: bool) -> int:
    """The list of data sets; with a name, that one is brought here first."""
    if fetch is not None:
        sources.fetch(fetch)
    rows = sources.sources()
    if as_json:
        output.emit_json({"sources": [asdict(row) for row in rows]})
    else:
        cells = [
            [r.name, "here" if r.present else "missing", f"{r.samples:,}", r.licence, r.where] for r in rows
        ]
        output.table("data sets", ["name", "", "samples", "licence", "where"], cells)
    return 0
