"""`spikemorph bench`: measure, and show as tables or one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from spikemorph.cli import output
from spikemorph.convert.methods import convert
from spikemorph.data import Split
from spikemorph.errors import UsageError
from spikemorph.files import atomic_text, check_target
from spikemorph.measure.bench import Bench, Row, Subject
from spikemorph.measure.bench import bench as measure_bench
from spikemorph.measure.growth import Curve, growth
from spikemorph.measure.timing import check_whole
from spikemorph.recipes import RECIPES
from spikemorph.recipes.recipe import Recipe

BUSY = 0.5
"""Load of the last minute, before the benchmark, from which on its times are not to be quoted."""


@final
@dataclass(frozen=True, slots=True)
class Wanted:
    """How to measure, as typed."""

    repeats: int
    threads: int
    growth: bool = True
    out: Path | None = None


def bench(name: str, wanted: Wanted, *, as_json: bool) -> int:
    """Measure a recipe's shipped network; 1 where the outputs of the engines differ."""
    if name not in RECIPES:
        raise UsageError(
            where="bench", got=repr(name), known=", ".join(sorted(RECIPES)), do="choose one of these recipes"
        )
    check_whole("repeats", wanted.repeats)
    check_whole("threads", wanted.threads)
    if wanted.out is not None:
        check_target(wanted.out)
    subject = subject_of(RECIPES[name])
    how = {"repeats": wanted.repeats, "threads": wanted.threads}
    with output.guest(), output.Bars() as bars:
        found = measure_bench(subject, **how, progress=bars.bar("engines"))
        curves = growth(subject, **how, progress=bars.bar("growth")) if wanted.growth else {}
    load = found.machine["load"]
    if load is not None and load > BUSY:
        output.say(f"load {load}: something else is running, these times are those of a busy machine")
    made = replace(found, growth={key: asdict(curve) for key, curve in curves.items()})
    if wanted.out is not None:
        atomic_text(wanted.out, json.dumps(made.to_dict(), indent=2) + "\n")
    if as_json:
        output.emit_json(made.to_dict())
    else:
        show(made, curves)
    return 0 if made.identical else 1


def subject_of(recipe: Recipe) -> Subject:
    """A recipe's shipped networks and its test data."""
    float_graph, integer = recipe.graph(None, "float"), recipe.graph(None, "qnn")
    x = recipe.data(Split.TEST).x.float()
    return Subject(recipe.name, float_graph, integer, convert(integer), recipe.float_module(float_graph), x)


def show(made: Bench, curves: Mapping[str, Curve]) -> None:
    """Rows, ratios and slopes as tables, and why an engine is missing."""
    facts = made.machine
    title = (
        f"{made.recipe}: {made.threads} thread(s), {made.repeats} interleaved repeats, {facts['processor']}, "
        f"torch {facts['versions'].get('torch', '?')}"
    )
    head = ["engine", "batch", "ms a sample", "10 %..90 %", "spikes", "G operations/s", "steps", "setting"]
    output.table(title, head, [_cells(row) for row in made.rows])
    cells = [
        [name, f"{value:.3f}", f"{made.ratio_spread[name][0]:.3f}..{made.ratio_spread[name][1]:.3f}"]
        for name, value in made.ratios.items()
    ]
    output.table("ratios of medians; below 1 the event engine is faster", ["", "ratio", "10 %..90 %"], cells)
    if curves:
        output.table(
            "growth of the event engine",
            ["against", "from..to", "ms", "exponent"],
            [_curve_cells(name, curve) for name, curve in curves.items()],
        )
    for name, reason in made.absent.items():
        output.show(f"{name}: no row: {reason}")
    if not made.identical:
        output.show("THE OUTPUTS DIFFER: these times mean nothing")


def _cells(row: Row) -> list[str]:
    rate = row.synaptic_operations_per_second or row.macs_per_second
    return [
        row.engine,
        str(row.batch),
        f"{row.ms_per_sample:.3f}",
        f"{row.spread[0]:.3f}..{row.spread[1]:.3f}",
        "" if row.spikes is None else f"{row.spikes:,.0f}",
        "" if rate is None else f"{rate / 1e9:.2f}" + (" MAC" if row.macs is not None else ""),
        "" if row.steps_max is None else str(row.steps_max),
        row.setting,
    ]


def _curve_cells(name: str, curve: Curve) -> list[str]:
    if not curve.points:
        return [name, curve.reason, "", ""]
    first, last = curve.points[0], curve.points[-1]
    slope = "" if curve.exponent is None else f"{curve.exponent:.2f}"
    return [name, f"{first.at:,.0f}..{last.at:,.0f}", f"{first.ms:.3f}..{last.ms:.3f}", slope]
