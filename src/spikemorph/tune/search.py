"""The search: all ways on samples held out, then layer by layer."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.convert.methods import convert
from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import DataError, GraphError, LevelsError, expect
from spikemorph.evaluate.encode import Samples, as_inputs
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
from spikemorph.tune.judge import SQUARED, Held, Lost, Reading, held_out, judge, lost_at_rest
from spikemorph.tune.tuned import Point, Tuned, nearest

FORMAT = 1
"""Of the journal's answers."""
SEED = 0
"""Of the permutation that parts the samples."""

Watch = Callable[[str, int, int], None]


def tune(
    graph: Graph,
    data: Samples,
    search: Search,
    labels: Tensor | None = None,
    *,
    journal: Path | None = None,
    watch: Watch = lambda stage, done, total: None,
) -> Tuned:
    """The best way for a network, and the trade-off between all that were tried.

    Samples that judge never calibrate. The winner was chosen on the samples that judge, so its loss there is
    a little flattering: measure it on test data.

    Args:
        graph: float dialect, feed-forward.
        data: float samples, a tuple of tensors for several inputs.
        labels: [samples] int64 classes, for a network with one row of scores a sample. Real-valued ones say
            that outputs are no scores, but values: then a loss is squared error against the float network.
        journal: a file that keeps every judgement; a search that finds it goes on from there.
        watch: told the stage, what is done, and how much there is.

    Raises:
        DataError: unfit data, too few samples to hold any out, or to resolve `max_loss`.
        GraphError: not a float graph, or a recurrent network.
        FileError: the journal cannot be read or written.
    """
    expect("tune(search)", search, (Search,), "use Search(max_loss=0.5)")
    bench = _bench(graph, data, search, labels, journal)
    points = [point for each in _judged(bench, search.candidates(), watch) for point in each]
    if not points:
        raise GraphError(
            where="tune", got="no way that this network takes", known="; ".join(bench.notes), do="see inspect"
        )
    start = min(
        (point for point in points if _at_rest(point) and point.keeps(search)),
        key=lambda point: point.worth(search),
        default=None,
    )
    if start is not None and search.rounds:
        found = _lowered(bench, start, watch)
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
        notes=tuple(bench.notes),
    )


def _at_rest(point: Point) -> bool:
    return isinstance(point.candidate, Counts) and point.reading.steps is None


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
        planned = plan(self.graph, self._levels(Counts(self.search.levels[0], self.search.spikes[0])))
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
    graph: Graph, data: Samples, search: Search, labels: Tensor | None, journal: Path | None
) -> _Bench:
    expect("tune(graph)", graph, (Graph,), "capture(model, example_inputs) first")
    expect("tune(labels)", labels, (Tensor, type(None)), "pass a tensor, torch.tensor(labels)")
    expect("tune(journal)", journal, (Path, type(None)), 'pass a path, Path("journal.jsonl")')
    if graph.dialect is not Dialect.FLOAT or is_sequence(graph):
        raise GraphError(
            where="tune(graph)",
            got="a recurrent network" if is_sequence(graph) else f"dialect {graph.dialect.value}",
            known="the captured float graph of a feed-forward network",
            do="quantise and convert recurrent networks at levels of your choice",
        )
    inputs = as_inputs(graph, data)
    if labels is not None and len(labels) != len(inputs[0]):
        raise DataError(
            where="tune(labels)",
            got=f"{len(labels)} for {len(inputs[0])} samples",
            known="one a sample",
            do="give every sample its label, or leave all out",
        )
    judges, rest = _parted(len(inputs[0]), search)
    held = held_out(graph, tuple(each[judges] for each in inputs), None if labels is None else labels[judges])
    _check_resolution(held, search)
    about = [FORMAT, graph_hash(graph), _digest(*inputs, *([] if labels is None else [labels]))]
    about += [repr(each) for each in (search.held_out, search.weight_bits, search.granularity)]
    about += [repr(search.model), search.costed, repr(search.rounding)]
    return _Bench(graph, tuple(each[rest] for each in inputs), held, search, Journal(journal, about), {})


def _parted(samples: int, search: Search) -> tuple[Tensor, Tensor]:
    """Which samples judge and which calibrate, in order; drawn, as many data sets come sorted."""
    judges = round(samples * search.held_out)
    if judges < 1 or samples - judges < 2:
        raise DataError(
            where="tune(data)",
            got=f"{samples} samples, of which {search.held_out:g} are to be held out",
            known="at least 2 that calibrate and others that judge",
            do="pass a few hundred samples",
        )
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(SEED))
    return order[:judges].sort().values, order[judges:].sort().values


def _check_resolution(held: Held, search: Search) -> None:
    finest = 100 / len(held)
    if held.measure != SQUARED and search.max_loss is not None and search.max_loss < finest:
        raise DataError(
            where="tune(max_loss)",
            got=f"{search.max_loss:g} points on {len(held)} samples held out",
            known=f"one sample is {finest:.5g} points: anything finer cannot be told",
            do=f"pass at least {math.ceil(100 / search.max_loss / search.held_out)} samples, or allow"
            f" {math.ceil(100 * finest) / 100:g} points",
        )


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
    bound = start.reading.loss if search.max_loss is None else search.max_loss
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
