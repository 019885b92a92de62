"""`spikemorph tune`, and `spikemorph convert` within bounds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from spikemorph.cli import output
from spikemorph.cli.models import captured, load_model, load_samples, parse_spike
from spikemorph.convert.files import save
from spikemorph.convert.network import Spike
from spikemorph.data import NAMED, Split
from spikemorph.errors import LevelsError, UsageError
from spikemorph.files import atomic_text, check_target
from spikemorph.ir.graph import Graph
from spikemorph.measure.energy import MEMORY_EVENTS, MODELS, CostModel
from spikemorph.tune import Point, Search, Tuned, tune
from spikemorph.tune.draw import svg, text


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be tuned, and on what.

    Args:
        data: calibrates.
        judge: other data, that judges; None: the validation part of a registered name, else a part of `data`.
        parted: a part of `data` is wanted, of a registered name, too.
    """

    model: str
    weights: Path | None
    data: str
    samples: int
    judge: str | None = None
    parted: bool = False

    def judges(self) -> tuple[Tensor, Tensor | None] | None:
        """Samples that judge; None: a part of those that were given."""
        if self.judge is not None:
            return load_samples(self.judge, Split.VALIDATION, None)
        named = self.data in {source.name for source in NAMED}
        return load_samples(self.data, Split.VALIDATION, self.samples) if named and not self.parted else None


@final
@dataclass(frozen=True, slots=True)
class Files:
    """What may be written; None: not that one.

    Args:
        out: the chosen network.
        plot: the trade-off as SVG.
        journal: what an interrupted search goes on from; None: beside `out`.
        float_network: the captured network.
    """

    out: Path | None
    plot: Path | None = None
    journal: Path | None = None
    float_network: Path | None = None

    def check(self) -> None:
        """All can be written, and none over another.

        Raises:
            UsageError: two of one name.
            FileError: a folder is missing.
        """
        given = (self.out, self.plot, self.kept, self.float_network)
        targets = [check_target(path) for path in given if path is not None]
        if len(set(targets)) < len(targets):
            raise UsageError(
                where="--out, --plot, --journal",
                got="one file for two things",
                known="files of different names",
                do="give each a name of its own",
            )

    @property
    def kept(self) -> Path | None:
        """The journal."""
        if self.journal is not None or self.out is None:
            return self.journal
        return self.out.with_name(f"{self.out.name}.tune.jsonl")


def cost_model(name: str) -> CostModel:
    """One of the named cost models.

    Raises:
        UsageError: unknown.
    """
    known = {model.name: model for model in MODELS}
    if name not in known:
        raise UsageError(
            where="--cost-model",
            got=repr(name),
            known=", ".join(known),
            do=f"leave it out for {MEMORY_EVENTS.name}",
        )
    return known[name]


def parse_ladder(written: str) -> tuple[int, ...]:
    """Levels such as 63,31,15.

    Raises:
        UsageError: no whole numbers.
    """
    parts = written.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise UsageError(where="--levels", got=repr(written), known="whole numbers", do="try 63,31,15,7,3")
    return tuple(int(part) for part in parts)


def _spikes(written: str) -> tuple[Spike, ...]:
    return tuple(dict.fromkeys(parse_spike(each) for each in written.split(",")))


def parse_search(spikes: str | None, **given: Any) -> Search:
    """What to look for; its errors name options.

    Args:
        spikes: such as binary,ternary,graded:4; None: any.

    Raises:
        UsageError: no bound.
        LevelsError: out of range.
    """
    given |= {} if spikes is None else {"spikes": _spikes(spikes)}
    try:
        return Search(**given)
    except LevelsError as error:
        raise LevelsError(
            where=_as_options(error.where), got=error.got, known=error.known, do=_as_options(error.do)
        ) from error


def _as_options(words: str) -> str:
    """Search(max_loss) as --max-loss, levels=(7, 3) as --levels 7,3."""
    words = re.sub(r"Search\((\w+)\)", lambda met: f"--{met[1]}", words)
    words = re.sub(r"(\w+)=\((.*?)\),", lambda met: f"--{met[1]} {met[2].replace(', ', ',')},", words)
    words = re.sub(r"(\w+)=([\d.]+)", r"--\1 \2", words)
    return re.sub(r"--\w+", lambda met: met[0].replace("_", "-"), words)


def run(asked: Asked, search: Search, files: Files, *, as_json: bool) -> int:
    """Search, print the trade-off, write the network; 1 where nothing keeps to the bounds."""
    tuned, graph = _tuned(asked, search, files)
    if files.plot is not None:
        atomic_text(files.plot, svg(tuned))
    _write(tuned, graph, files)
    if as_json:
        output.emit_json({"file": _written(tuned, files), **tuned.to_dict()})
    else:
        _show(tuned, files)
    return 0 if tuned.chosen is not None else 1


def convert(asked: Asked, search: Search, files: Files, *, as_json: bool) -> int:
    """The same search for its network alone."""
    tuned, graph = _tuned(asked, search, files)
    _write(tuned, graph, files)
    summary = {
        "file": _written(tuned, files),
        **{key: value for key, value in tuned.to_dict().items() if key not in {"points", "front"}},
    }
    if as_json:
        output.emit_json(summary)
    else:
        rows = [[key, str(value)] for key, value in tuned.nearest.to_dict().items()]
        output.table(
            "nothing keeps to the bounds" if tuned.chosen is None else str(files.out), ["", "value"], rows
        )
        _verdict(tuned, files)
    return 0 if tuned.chosen is not None else 1


def _tuned(asked: Asked, search: Search, files: Files) -> tuple[Tuned, Graph]:
    files.check()
    x, y = load_samples(asked.data, Split.TRAIN, asked.samples)
    judges = asked.judges()
    model = load_model(asked.model, asked.weights)
    output.say(f"capturing {asked.model}")
    graph = captured(model, x, asked.data)
    with output.Bars() as bars:
        stages: dict[str, Any] = {}

        def watch(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bars.bar(stage)
            stages[stage](done, total)

        try:
            with output.remarks():
                tuned = tune(graph, x, search, y, judges=judges, journal=files.kept, watch=watch)
        except KeyboardInterrupt:
            if files.kept is not None:
                output.say("interrupted: the same command goes on from here")
            raise
    for note in tuned.notes:
        output.say(note)
    return tuned, graph


def _write(tuned: Tuned, graph: Graph, files: Files) -> None:
    if tuned.network is not None and files.out is not None:
        save(tuned.network, files.out)
        if files.float_network is not None:
            save(graph, files.float_network)


def _written(tuned: Tuned, files: Files) -> str | None:
    return str(files.out) if tuned.network is not None and files.out is not None else None


# ---------------------------------------------------------------- for people
HEAD = ("", "loss", "steps", "mean", "spikes", "events", "operations", "microjoules")


def _show(tuned: Tuned, files: Files) -> None:
    rows = [_row(point, tuned) for point in tuned.front]
    output.table(f"what no other way beats, of {len(tuned.points)}; a sample", HEAD, rows)
    output.show(text(tuned))
    if tuned.levels:
        rows = [[name or "(the model itself)", str(p)] for name, p in tuned.levels.items()]
        output.table("levels", ["module", "p"], rows)
    _verdict(tuned, files)


def _row(point: Point, tuned: Tuned) -> list[str]:
    found = point.reading
    return [
        f"{'> ' if point == tuned.chosen else ''}{point}",
        f"{found.loss:.2f}",
        str(found.steps_max),
        f"{found.steps_mean:.1f}",
        f"{found.spikes_per_neuron:.3f}",
        f"{found.events_per_neuron:.3f}",
        f"{found.synaptic_operations:,.0f}",
        f"{found.joules * 1e6:.4g}",
    ]


def _verdict(tuned: Tuned, files: Files) -> None:
    words = {"accuracy": "points of accuracy", "agreement": "percent of top classes"}
    point, unit = tuned.nearest, words.get(tuned.measure, "percent of squared error")
    found = point.reading
    lost, priced = round(found.loss, 6), f"{found.joules * 1e6:.4g} microjoules"
    facts = f"{lost:.3g} {unit} lost, {found.steps_max} steps, {priced}"
    output.show(
        f"{'chosen' if tuned.chosen is not None else 'nothing keeps to the bounds; nearest'}: {point}"
    )
    output.show(f"{facts} ({tuned.search.model.name})")
    if tuned.measure == "accuracy":
        output.show(f"the float network is right in {tuned.float_value:.2f} % of them")
    output.show(
        f"judged on {tuned.held_out} samples, calibrated on {tuned.calibrated} others; chosen on those that "
        "judge, so measure it on test data"
    )
    if not tuned.apart:
        output.show("if the network was trained on them, it loses more on new data: --judge takes other data")
    if _written(tuned, files) is not None:
        stop = "" if found.steps is None else f" --steps {found.steps}"
        output.show(f"spikemorph run {files.out}{stop} --data ...")


__all__ = ["Asked", "Files", "convert", "cost_model", "parse_ladder", "parse_search", "run"]
