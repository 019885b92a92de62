"""CRAFT on rendered words: heat maps and boxes of a pretrained text detector, over steps, without training.

Everything that is chosen, levels and ramps for each number of steps, the window of the training-free network,
is chosen by the error of the heat maps on calibration scenes, which needs no labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.capture import capture
from spikemorph.convert.balance import LeastSquaresIn
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Graded, Spike, SpikingNetwork, Ternary, spike_name
from spikemorph.convert.training_free import TrainingFree
from spikemorph.data import Split
from spikemorph.data.words import Words, load_words
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.measure.errors import error_of
from spikemorph.measure.over_steps import over_steps
from spikemorph.passes.levels import Levels, PerChannel
from spikemorph.quantise import quantise
from spikemorph.recipes.craft_network import Craft, craft
from spikemorph.recipes.over_steps import QUIESCENT, best_window
from spikemorph.recipes.recipe import Recipe, Trained
from spikemorph.recipes.result import Case, Metric, Progress, Result, assess
from spikemorph.recipes.text_boxes import boxes_of, shared
from spikemorph.recipes.training import Report

NAME = "craft"
STEPS = (8, 16, 32, 64)
CALIBRATION, CHOOSING = 32, 2
"""Scenes from which units and thresholds come, and the first of them by which is chosen."""
TESTED, ALL = 3, 100
GRADED = Graded(4)
HEADS = ("region", "affinity")


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """A lossless network: its levels, and the steps over which input and biases enter."""

    levels: int
    ramp: int


Choices = Mapping[str, Choice]
"""Steps, or QUIESCENT, to what is best there."""
CANDIDATES = Choice(3, 3), Choice(7, 1), Choice(7, 7), Choice(15, 15), Choice(31, 31)
GRADED_CANDIDATES = Choice(7, 1), Choice(15, 4), Choice(31, 8)
MAIN = 31
"""Levels of the network that is verified, neuron by neuron."""


# ---------------------------------------------------------------- networks
@cache
def float_network() -> Graph:
    """The captured detector."""
    return capture(craft(), load_words(Split.VALIDATION, samples=1).x)


@cache
def quantised(levels: int) -> Graph:
    """Its quantised network, from calibration scenes."""
    calibration = load_words(Split.VALIDATION, samples=CALIBRATION)
    return quantise(float_network(), calibration.x, Levels(levels, granularity=PerChannel()))


def lossless(choice: Choice, spike: Spike) -> SpikingNetwork:
    """The spiking network of a choice."""
    return convert(quantised(choice.levels), Lossless(spike, ramp=choice.ramp))


def training_free(steps: int) -> SpikingNetwork:
    """Integrate-and-fire neurons for runs of so many steps, their window chosen on calibration scenes."""
    calibration = load_words(Split.VALIDATION, samples=CALIBRATION)
    network = convert(float_network(), TrainingFree(LeastSquaresIn(steps)), calibration.x)
    some = calibration.first(CHOOSING).x
    wanted = evaluate(float_network(), some)
    return best_window(network, some, lambda got, here: -squared(got, wanted[here]), steps)


def squared(got: Tensor, wanted: Tensor) -> float:
    """Squared error of heat maps."""
    return float((got - wanted).square().sum())


# ---------------------------------------------------------------- over steps
@final
@dataclass(frozen=True)
class Seen:
    """Heat maps [n, 2, h, w] by steps or QUIESCENT, and spikes a neuron until then."""

    heat: Mapping[str, Tensor]
    spikes: Mapping[str, float]


def seen(
    network: SpikingNetwork,
    x: Tensor,
    steps: tuple[int, ...],
    *,
    rest: bool,
    progress: Callable[[int], None] = lambda done: None,
) -> Seen:
    """What a network makes of scenes after so many steps, and at rest."""
    parts: dict[str, list[Tensor]] = {}
    spikes: dict[str, float] = {}
    neurons = sum(torch.Size(node.shape).numel() for node in network.graph.neurons)
    for part in over_steps(network, x, steps or (1,), quiescent=rest, batch=4, progress=progress):
        for number, row in zip(part.outputs, part.spikes, strict=True):
            spikes[str(number)] = spikes.get(str(number), 0.0) + float(row.sum()) / neurons
            parts.setdefault(str(number), []).append(part.outputs[number])
        if isinstance(part.quiescent, Tensor):
            spikes[QUIESCENT] = spikes.get(QUIESCENT, 0.0) + part.run.spikes / neurons
            parts.setdefault(QUIESCENT, []).append(part.quiescent)
    keys = {str(step) for step in steps} | {QUIESCENT}
    heat = {key: torch.cat(each) for key, each in parts.items() if key in keys}
    return Seen(heat, {key: each / len(x) for key, each in spikes.items() if key in keys})


def choose(spike: Spike, candidates: Sequence[Choice], report: Report) -> tuple[Choices, dict[str, Any]]:
    """For each number of steps the candidate of least error on calibration scenes, and all errors."""
    x = load_words(Split.VALIDATION, samples=CHOOSING).x
    wanted = evaluate(float_network(), x)
    table: dict[str, dict[str, float]] = {}
    for choice in candidates:
        found = seen(lossless(choice, spike), x, STEPS, rest=True)
        errors = {key: error_of("heat", None, each, wanted).relative for key, each in found.heat.items()}
        table[f"{choice.levels} levels, ramp of {choice.ramp}"] = errors
        report(f"{spike_name(spike)} {choice}: {errors}")
    rows = dict(zip(table, candidates, strict=True))
    return {
        key: rows[min(table, key=lambda name, key=key: table[name][key])]  # type: ignore[misc]
        for key in (*map(str, STEPS), QUIESCENT)
    }, table


# ---------------------------------------------------------------- result
def found_in(heat: Tensor) -> list[Tensor]:
    """Boxes in every one of heat maps [n, 2, h, w]."""
    return [boxes_of(each) for each in heat]


def words_of(y: Tensor) -> list[Tensor]:
    """The boxes of the words of every scene, labels [n, 4, 4]."""
    return [each[each[:, 0] >= 0] for each in y]


BOXES = Metric("boxes", lambda heat, y: shared(found_in(heat), words_of(y)))


@final
@dataclass(frozen=True)
class Row:
    """One method, by steps or QUIESCENT.

    Args:
        words, agreement: boxes shared with the words and with the float network's boxes, in percent.
        heat: errors of both heat maps against those of the float network.
        spikes: a neuron.
    """

    words: Mapping[str, float]
    agreement: Mapping[str, float]
    heat: Mapping[str, Mapping[str, Any]]
    spikes: Mapping[str, float]


def row_of(parts: Sequence[Seen], wanted: Tensor, y: Tensor) -> Row:
    """What several networks, each for other steps, made of the same scenes."""
    heat = {key: each for part in parts for key, each in part.heat.items()}
    keys = [key for key in (*map(str, STEPS), QUIESCENT) if key in heat]
    boxes = {key: found_in(heat[key]) for key in keys}
    truth, theirs = words_of(y), found_in(wanted)
    return Row(
        {key: shared(boxes[key], truth) for key in keys},
        {key: shared(boxes[key], theirs) for key in keys},
        {key: heat_errors(heat[key], wanted) for key in keys},
        {key: each for part in parts for key, each in part.spikes.items()},
    )


def heat_errors(heat: Tensor, wanted: Tensor) -> dict[str, dict[str, Any]]:
    """Errors of each heat map [n, 2, h, w]."""
    errors = {name: error_of(name, None, heat[:, i], wanted[:, i]) for i, name in enumerate(HEADS)}
    kept = ("mean_absolute", "largest", "relative", "r2", "correlation")
    return {name: {key: getattr(each, key) for key in kept} for name, each in errors.items()}


def lossless_row(choices: Choices, spike: Spike, x: Tensor, progress: Callable[[int], None]) -> list[Seen]:
    """The networks of all choices, each run once, at the steps that it was chosen for."""
    parts = []
    for choice in dict.fromkeys(choices.values()):
        own = [key for key, each in choices.items() if each == choice]
        steps = tuple(int(key) for key in own if key != QUIESCENT)
        parts.append(seen(lossless(choice, spike), x, steps, rest=QUIESCENT in own, progress=progress))
    return parts


def measure(case: Case, progress: Progress, full: bool) -> Result:
    """The main network neuron by neuron; then every method over steps."""
    data = load_words(Split.TEST, samples=ALL if full else TESTED)
    chosen = chosen_in(case.notes)
    main = lossless(chosen["ternary"][QUIESCENT], Ternary())
    result = assess(replace(case, network=main), data, progress, metric=BOXES)
    wanted = evaluate(case.float_graph, data.x)

    def tell(done: int) -> None:
        progress(done, len(data))

    parts = {
        "lossless": lossless_row(chosen["ternary"], Ternary(), data.x, tell),
        f"lossless, {spike_name(GRADED)}": lossless_row(chosen["graded"], GRADED, data.x, tell),
        "training-free": [
            seen(training_free(steps), data.x, (steps,), rest=False, progress=tell) for steps in STEPS
        ],
    }
    rows = {name: row_of(each, wanted, data.y) for name, each in parts.items()}
    lossless_words, graded_words = (rows[name].words for name in list(rows)[:2])
    return replace(
        result,
        by_method={name: dict(row.words) for name, row in rows.items()},
        loss={key: result.float - value for key, value in lossless_words.items()},
        loss_graded={key: result.float - value for key, value in graded_words.items()},
        notes={
            **result.notes,
            "words": sum(len(each) for each in words_of(data.y)),
            "agreement_of_boxes": {name: dict(row.agreement) for name, row in rows.items()},
            "heat_errors": {name: dict(row.heat) for name, row in rows.items()},
            "spikes_per_neuron": {name: dict(row.spikes) for name, row in rows.items()},
        },
    )


# ---------------------------------------------------------------- recipe
def as_notes(choices: Choices) -> dict[str, list[int]]:
    """Choices as plain data."""
    return {key: [each.levels, each.ramp] for key, each in choices.items()}


def as_choices(notes: Mapping[str, Sequence[int]]) -> Choices:
    """The inverse of `as_notes`."""
    return {key: Choice(*each) for key, each in notes.items()}


def chosen_in(notes: Mapping[str, Any]) -> dict[str, Choices]:
    """Of "ternary" and "graded" spikes, what was chosen for each number of steps."""
    return {name: as_choices(each) for name, each in notes["chosen"].items()}


def fit(folder: Path, report: Report) -> Trained:
    """Nothing is trained: levels and ramps are chosen on calibration scenes, ternary and graded."""
    ternary, by_ternary = choose(Ternary(), CANDIDATES, report)
    graded, by_graded = choose(GRADED, GRADED_CANDIDATES, report)
    notes = {
        "chosen": {"ternary": as_notes(ternary), "graded": as_notes(graded)},
        "chosen_by": f"heat-map error on {CHOOSING} calibration scenes: steps -> levels, ramp",
        "errors_on_calibration": {"ternary": by_ternary, "graded": by_graded},
        "calibration_scenes": CALIBRATION,
        "trained": False,
    }
    return rebuild(notes)


def rebuild(notes: Mapping[str, Any]) -> Trained:
    """The pretrained network and its quantised one, from calibration scenes, in about a minute."""
    levels = chosen_in(notes)["ternary"][QUIESCENT].levels
    return Trained(float_network(), quantised(levels), dict(notes))


def shipped() -> dict[str, Any]:
    """The notes of the choices that were made."""
    place = resources.files("spikemorph.recipes") / "networks" / f"{NAME}.notes.json"
    notes: dict[str, Any] = json.loads(place.read_text())
    return notes


def words(split: Split) -> Words:
    """Scenes, as many as the recipe looks at."""
    return load_words(split, samples=TESTED)


RECIPE = Recipe(NAME, MAIN, 8, fit, measure, words, Craft, rebuild=rebuild)
