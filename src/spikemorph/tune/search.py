"""The search: all ways on samples held out, then layer by layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from torch import Tensor

from spikemorph.convert.methods import convert
from spikemorph.convert.network import SpikingNetwork, Ternary
from spikemorph.errors import GraphError, LevelsError, expect
from spikemorph.evaluate.encode import Samples
from spikemorph.ir import ops
from spikemorph.ir.elements import is_sequence
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.store import graph_hash
from spikemorph.passes import plan
from spikemorph.passes.levels import Levels, Override
from spikemorph.quantise import quantise
from spikemorph.tune.candidates import Candidate, Counts
from spikemorph.tune.config import Search
from spikemorph.tune.journal import Journal
from spikemorph.tune.judge import Held, Lost, Reading, held_out, judge, lost_at_rest
from spikemorph.tune.samples import Labelled, check_resolution, code_digest, part
from spikemorph.tune.tuned import Point, Tuned, nearest

FORMAT = 2
"""Of the journal's answers."""

Watch = Callable[[str, int, int], None]


def tune(
    graph: Graph,
    data: Samples,
    search: Search,
    labels: Tensor | None = None,
    *,
    judges: Labelled | None = None,
    journal: Path | None = None,
    watch: Watch = lambda stage, done, total: None,
) -> Tuned:
    """The best way for a network, and the trade-off between all that were tried.

    Samples that judge never calibrate, and the network should not have been trained on them: it is surer of
    what it knows by heart, so its losses there are too small. The winner was chosen on the samples that
    judge, so its loss there is a little flattering: measure it on test data.

    Args:
        graph: float dialect, feed-forward.
        data: float samples, a tuple of tensors for several inputs.
        labels: [samples] int64 classes, for a network with one row of scores a sample. Real-valued ones say
            that outputs are no scores, but values: then a loss is squared error against the float network.
        judges: samples and labels that judge, such as a validation set; all of `data` calibrates. None: a
            part of `data` is held out for it.
        journal: a file that keeps every judgement; a search that finds it goes on from there.
        watch: told the stage, what is done, and how much there is.

    Raises:
        DataError: unfit data, too few samples to hold any out, or to resolve `max_loss`.
        GraphError: not a float graph, or a recurrent network.
        FileError: the journal cannot be read or written.
    """
    expect("tune(search)", search, (Search,), "use Search(max_loss=0.5)")
    bench = _bench(graph, (data, labels), judges, search, journal)
    points = [point for each in _judged(bench, search.candidates(), watch) for point in each]
    if not points:
        raise GraphError(
            where="tune", got="no way that this network takes", known="; ".join(bench.notes), do="see inspect"
        )
    start = first_lowered(bench, points) if search.rounds else None
    found = None if start is None else _lowered(bench, start, watch)
    if found is not None:
        points += [point for each in _judged(bench, (found,), lambda *_: None) for point in each]
    chosen = min((p for p in points if p.keeps(search)), key=lambda p: p.worth(search), default=None)
    counts = chosen.candidate if chosen is not None and isinstance(chosen.candidate, Counts) else None
    return Tuned(
        search=search,
        points=tuple(points),
        chosen=chosen,
        nearest=nearest(points, search) if chosen is None else chosen,
        network=None if chosen is None else bench.network(chosen.candidate),
        levels=None if counts is None else {name: bench.levels_of(counts, name) for name in bench.modules},
        measure=bench.held.measure,
        float_value=bench.held.float_value,
        calibrated=len(bench.calibration[0]),
        held_out=len(bench.held),
        judged=bench.journal.asked,
        recalled=bench.journal.found,
        apart=judges is not None,
        notes=tuple(bench.notes),
    )


def first_lowered(bench: _Bench, points: list[Point]) -> Point | None:
    """The lossless network whose layers are lowered: the best at rest; where none rests in time, the best."""
    search = bench.search
    fit = [point for point in points if isinstance(point.candidate, Counts) and point.keeps(search)]
    resting = [point for point in fit if point.reading.steps is None]
    if fit and not resting:
        bench.notes.append(
            f"no lossless network within the bounds rests in {search.max_steps} steps: layers are lowered by"
            " what they lose at rest, and judged after those steps"
        )
    return min(resting or fit, key=lambda point: point.worth(search), default=None)


@final
@dataclass(frozen=True)
class _Bench:
    """What every judgement needs."""

    graph: Graph
    calibration: tuple[Tensor, ...]
    held: Held
    search: Search
    journal: Journal
    integers: dict[int, Graph]

    @property
    def notes(self) -> list[str]:
        """What a user should know."""
        return self.journal.notes

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules with activations, in order of use."""
        planned = plan(self.graph, self._levels(Counts(self.search.levels[0], Ternary())))
        names = [n.origin.module for n in planned.nodes if isinstance(n.op, ops.Quantiser) and n.op.chain]
        return tuple(dict.fromkeys(names))

    def levels_of(self, counts: Counts, module: str) -> int:
        """Of the activations of a module."""
        return self._levels(counts).activation_of(module)

    def _levels(self, counts: Counts) -> Levels:
        return Levels(
            counts.levels,
            self.search.weight_bits,
            granularity=self.search.granularity,
            overrides={name: Override(activation=p) for name, p in counts.lowered.items()},
        )

    def integer(self, counts: Counts) -> Graph:
        """The quantised network; those whose layers are alike are kept."""
        if counts.lowered:
            return self._quantised(counts)
        if counts.levels not in self.integers:
            self.integers[counts.levels] = self._quantised(counts)
        return self.integers[counts.levels]

    def _quantised(self, counts: Counts) -> Graph:
        return quantise(self.graph, self.calibration, self._levels(counts), self.search.rounding)

    def network(self, candidate: Candidate) -> SpikingNetwork:
        """The spiking network of a candidate."""
        if isinstance(candidate, Counts):
            return convert(self.integer(candidate), candidate.method)
        return convert(self.graph, candidate.method, self.calibration)

    def readings(self, candidate: Candidate) -> list[Reading]:
        """What the candidate loses and costs."""
        search = self.search
        stops = search.stops if isinstance(candidate, Counts) else candidate.stops

        def think() -> list[dict[str, Any]]:
            made = judge(self.network(candidate), self.held, stops, search.model, search.costed)
            return [dataclasses.asdict(each) for each in made]

        found = self.journal.answer([candidate.to_dict(), stops], think, _readings)
        return [Reading(**each) for each in found]

    def lost(self, counts: Counts) -> Lost:
        """What it loses at rest."""

        def think() -> dict[str, float]:
            return dataclasses.asdict(lost_at_rest(self.integer(counts), self.held))

        alike = {"levels": counts.levels, "lowered": dict(counts.lowered)}
        return Lost(**self.journal.answer(["at rest", alike], think, lambda each: _numbers(each, Lost)))


def _numbers(value: object, kind: type) -> bool:
    """Whether a value has the fields of a dataclass, finite numbers, and None at most for `steps`."""
    names = {each.name for each in dataclasses.fields(kind)}
    return (
        isinstance(value, dict)
        and value.keys() == names
        and all(
            (name == "steps" and each is None)
            or (isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each))
            for name, each in value.items()
        )
    )


def _readings(value: object) -> bool:
    return isinstance(value, list) and all(_numbers(each, Reading) for each in value)


# ---------------------------------------------------------------- set up
def _bench(
    graph: Graph,
    given: Labelled,
    judges: Labelled | None,
    search: Search,
    journal: Path | None,
) -> _Bench:
    expect("tune(graph)", graph, (Graph,), "capture(model, example_inputs) first")
    expect("tune(journal)", journal, (Path, type(None)), 'pass a path, Path("journal.jsonl")')
    if graph.dialect is not Dialect.FLOAT or is_sequence(graph):
        raise GraphError(
            where="tune(graph)",
            got="a recurrent network" if is_sequence(graph) else f"dialect {graph.dialect.value}",
            known="the captured float graph of a feed-forward network",
            do="quantise and convert recurrent networks at levels of your choice",
        )
    samples = part(graph, given, judges, search.held_out)
    held = held_out(graph, samples.judges, samples.labels)
    check_resolution(held, search, apart=judges is not None)
    about = [FORMAT, code_digest(), graph_hash(graph), samples.digest]
    about += [repr(each) for each in (search.held_out, search.weight_bits, search.granularity)]
    about += [repr(search.model), search.costed, repr(search.rounding)]
    return _Bench(graph, samples.calibration, held, search, Journal(journal, about), {})


# ---------------------------------------------------------------- all ways, then layer by layer
def _judged(bench: _Bench, candidates: tuple[Candidate, ...], watch: Watch) -> Iterator[list[Point]]:
    for done, candidate in enumerate(candidates, 1):
        try:
            yield [Point(candidate, reading) for reading in bench.readings(candidate)]
        except (GraphError, LevelsError) as error:
            bench.notes.append(f"left out: {candidate}: {error.got}")
        watch("candidates", done, len(candidates))


def _lowered(bench: _Bench, start: Point, watch: Watch) -> Counts | None:
    """The levels of single modules lowered while the loss allows, the least sensitive first; None: nowhere.

    Each round lowers every module by itself by one rung and looks what that costs at rest; then all, in the
    order of that cost, one on top of the other, and those that cross the bound are taken back.
    """
    assert isinstance(start.candidate, Counts)
    search, first = bench.search, start.candidate
    bound = max(start.reading.loss, 0.0) if search.max_loss is None else search.max_loss
    current, names = first, [name for name in bench.modules if name]
    if len(names) < len(bench.modules):
        bench.notes.append(
            "activations that are no modules of their own keep the levels of the whole network"
        )
    done, total = 0, 2 * len(names) * search.rounds

    def lost(counts: Counts) -> Lost | None:
        nonlocal done
        done += 1
        try:
            return bench.lost(counts)
        except LevelsError:
            return None
        finally:
            watch("layer by layer", done, total)

    for _ in range(search.rounds):
        alone = [(lost(lower), name) for name in names if (lower := _down(bench, current, name)) is not None]
        order = sorted((each.loss, each.error, name) for each, name in alone if each is not None)
        before = current
        for loss, _, name in order:
            lower = _down(bench, current, name)
            if lower is None or loss > bound:
                continue
            found = lost(lower)
            if found is not None and found.loss <= bound:
                current = lower
        if current == before:
            break
    watch("layer by layer", total, total)
    return None if current == first else current


def _down(bench: _Bench, counts: Counts, module: str) -> Counts | None:
    """The module one rung lower; None at the end of the ladder."""
    here = bench.levels_of(counts, module)
    lower = [p for p in bench.search.levels if p < here]
    return replace(counts, lowered={**counts.lowered, module: max(lower)}) if lower else None
