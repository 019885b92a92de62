"""CIFAR-10 without training: every method on the same float network, calibration images and steps.

Two networks, a VGG with max-pools and a narrow ResNet-18; beside ours, SpikingJelly's own recipe of local
threshold balancing (arXiv 2409.03368) with its own delayed readout. Settings are chosen on training images
without their labels; test images are seen once, at the end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.convert.balance import LeastSquaresIn, LocalThresholdBalancing
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Binary, Graded, Spike, SpikingNetwork, Ternary
from spikemorph.convert.training_free import Delayed, TrainingFree
from spikemorph.data import Split
from spikemorph.data.cifar import load_cifar10
from spikemorph.evaluate.integers import evaluate
from spikemorph.files import atomic_text
from spikemorph.ir.graph import Graph
from spikemorph.ir.store import graph_hash
from spikemorph.passes.levels import Max
from spikemorph.recipes import cifar10_resnet18, cifar10_vgg
from spikemorph.recipes.contest import (
    Candidate,
    Family,
    Quantised,
    Setting,
    Source,
    choose,
    classic,
    closest,
    read_off,
    recorded,
    ways,
)
from spikemorph.recipes.jelly import Theirs
from spikemorph.recipes.over_steps import FULL, QUIESCENT, STEPS, hits, losses, measured
from spikemorph.recipes.packed import halved
from spikemorph.recipes.recipe import Recipe, Trained
from spikemorph.recipes.result import Case, Progress, Result, accuracy, assess
from spikemorph.recipes.training import Report

CALIBRATION, BATCH, SHOWN = 1000, 25, 60
"""Training images to calibrate with, in batches of so many; of these, to choose settings on."""
PASSES = (4, 16, 64)
"""Of local threshold balancing through the calibration images."""
GRADED, THEIRS = "lossless, graded(4)", "SpikingJelly"


UNITS = tuple(
    Setting(levels, ramp)
    for levels, ramps in ((3, (4, 8)), (7, (4, 8, 12)), (15, (12, 24)), (31, (24, 48)), (63, (96,)))
    for ramp in ramps
)
SIZED = tuple(
    Setting(levels, ramp)
    for levels, ramps in ((7, (1, 4)), (15, (1, 4, 8)), (31, (4, 8)), (63, (8, 16)))
    for ramp in ramps
)


# ---------------------------------------------------------------- candidates
@final
@dataclass(frozen=True, eq=False)
class Networks:
    """What candidates of several families share, each made once."""

    quantised: Quantised
    rates: dict[LocalThresholdBalancing | LeastSquaresIn, SpikingNetwork] = field(default_factory=dict)

    def integer(self, levels: int) -> Graph:
        """The quantised network."""
        return self.quantised(levels, max(levels, 15))

    def rate(self, balancing: LocalThresholdBalancing | LeastSquaresIn, spike: Spike) -> SpikingNetwork:
        """Integrate-and-fire neurons; their thresholds are the same whatever they send."""
        if balancing not in self.rates:
            method, source = TrainingFree(balancing, Delayed(0)), self.quantised.source
            self.rates[balancing] = convert(source.graph, method, source.calibration)
        return replace(self.rates[balancing], spike=spike)

    def lossless(self, setting: Setting, spike: Ternary | Graded) -> SpikingNetwork:
        """Neurons that track the counts of the quantised network."""
        return convert(self.integer(setting.levels), Lossless(spike, ramp=setting.ramp))


def families(made: Networks) -> Mapping[str, Family]:
    """All candidates, by method; thresholds for T steps compete at T alone."""
    rounds = CALIBRATION // BATCH

    def balanced(spike: Spike) -> Family:
        ways_to = {n: LocalThresholdBalancing(n * rounds, BATCH) for n in PASSES}
        return {f"{n} passes": _candidate(partial(made.rate, how, spike)) for n, how in ways_to.items()}

    def fitted(spike: Spike) -> Family:
        return {f"in {n}": _candidate(partial(made.rate, LeastSquaresIn(n), spike), (n,)) for n in FULL}

    def lossless(settings: tuple[Setting, ...], spike: Ternary | Graded) -> Family:
        return {str(each): _candidate(partial(made.lossless, each, spike)) for each in settings}

    return {
        "local threshold balancing, binary": balanced(Binary()),
        "local threshold balancing, ternary": balanced(Ternary()),
        "least squares, binary": fitted(Binary()),
        "least squares, ternary": fitted(Ternary()),
        "rate, binary": {**classic(99.9), "max": read_off(Max())},
        "lossless, ternary": lossless(UNITS, Ternary()),
        GRADED: lossless(SIZED, Graded(4)),
    }


def _candidate(build: Callable[[], SpikingNetwork], steps: tuple[int, ...] | None = None) -> Candidate:
    return Candidate(lambda _source: build(), steps)


# ---------------------------------------------------------------- choosing
def settle(module: nn.Module, graph: Graph, folder: Path, report: Report) -> tuple[Graph, dict[str, Any]]:
    """The quantised network that is closest at rest, and every choice that calibration data makes.

    What a killed run has chosen is read from the folder.
    """
    source = Source(graph, calibration())
    made, shown = Networks(Quantised(source)), source.calibration[:SHOWN]
    kept = folder / f"choices-{graph_hash(graph)}.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for name, family in families(made).items():
        if name not in found:
            won = choose(source, family, shown, FULL)
            found[name] = {key: each.to_json() for key, each in won.items()}
            atomic_text(kept, json.dumps(found))
        report(f"{name}: {found[name]}")
    if THEIRS not in found:
        theirs = Theirs(module, source.calibration.split(BATCH), FULL)
        found[THEIRS] = theirs.choose(shown, evaluate(graph, shown))
        atomic_text(kept, json.dumps(found))
    report(f"{THEIRS}: {found[THEIRS]}")
    theirs_won = found.pop(THEIRS)
    levels = _levels(found)
    return made.integer(levels), {"levels": levels, "chosen": found, THEIRS: theirs_won}


def _levels(chosen: Mapping[str, Any]) -> int:
    best = chosen["lossless, ternary"][QUIESCENT][0]
    return next(each.levels for each in UNITS if str(each) == best)


def calibration() -> Tensor:
    """Training images, without their labels."""
    return load_cifar10(Split.TRAIN).x[:CALIBRATION]


def fit_resnet(folder: Path, report: Report) -> Trained:
    """The narrow ResNet-18, trained here."""
    trained = cifar10_resnet18.train_float(folder, report)
    graph = halved(capture(trained, calibration()[:2]))
    module, held_out = _module(RESNET18, graph), load_cifar10(Split.VALIDATION)
    with torch.inference_mode():
        right = accuracy(module(held_out.x), held_out.y)
    report(f"float network: {right:.2f} % of the validation images")
    integer, notes = settle(module, graph, folder, report)
    epochs = sum(each.epochs for each in cifar10_resnet18.CYCLES)
    return Trained(graph, integer, {"validation_float": right, "epochs": epochs, **notes})


def fit_vgg(folder: Path, report: Report) -> Trained:
    """The float network of another recipe."""
    graph = cifar10_vgg.RECIPE.graph(None, "float")
    return Trained(graph, *settle(_module(VGG, graph), graph, folder, report))


def _module(recipe: Recipe, graph: Graph) -> nn.Module:
    module = recipe.float_module(graph)
    assert module is not None
    return module


# ---------------------------------------------------------------- measuring
def compare(module: nn.Module, case: Case, progress: Progress, full: bool, tested: int) -> Result:
    """Every method on the same test images, the first so many."""
    start, steps = time.perf_counter(), FULL if full else STEPS
    data = load_cifar10(Split.TEST).first(tested)
    chosen = recorded(case.notes, steps)
    source = Source(case.float_graph, calibration())
    rows = families(Networks(Quantised(source)))
    found = [way for name, won in chosen.items() for way in ways(source, name, rows[name], won)]
    peer = Theirs(module, source.calibration.split(BATCH), steps)
    passes = {key: n for key, (n, _) in case.notes[THEIRS].items() if int(key) in steps}
    parts = _parts(progress, len(data.x), (1, len(found), len({1, *passes.values()})))
    result = assess(case, data, parts[0])
    ours = measured(found, data.x, hits(data.y), progress=parts[1])
    theirs, facts = peer.measured(data, passes, parts[2])
    plain = closest({name: won for name, won in chosen.items() if name != GRADED})
    return replace(
        result,
        levels=case.notes["levels"],
        notes={
            **case.notes,
            "spikes_per_neuron": ours.spikes,
            "costs": ours.costs,
            "method": plain,
            f"{THEIRS}, run": facts,
        },
        by_method={**ours.by_method, **theirs},
        loss=losses(ours, result.float, plain),
        loss_graded=losses(ours, result.float, closest({GRADED: chosen[GRADED]})),
        seconds=time.perf_counter() - start,
    )


def _parts(progress: Progress, samples: int, runs: tuple[int, ...]) -> list[Progress]:
    """Progress of several parts, each of so many runs of all samples, as that of the whole."""
    total = samples * sum(runs)

    def after(before: int) -> Progress:
        return lambda done, _: progress(before + done, total)

    return [after(samples * sum(runs[:number])) for number in range(len(runs))]


def _recipe(
    name: str,
    tested: int,
    fit: Callable[[Path, Report], Trained],
    build: Callable[[], nn.Module],
    source: str | None = None,
) -> Recipe:
    def measure(case: Case, progress: Progress, full: bool) -> Result:
        return compare(_module(recipe, case.float_graph), case, progress, full, tested)

    recipe = Recipe(name, UNITS[-1].levels, 8, fit, measure, load_cifar10, build, source)
    return recipe


VGG = _recipe("training-free-cifar10-vgg", 250, fit_vgg, cifar10_vgg.Vgg, cifar10_vgg.NAME)
RESNET18 = _recipe("training-free-cifar10-resnet18", 500, fit_resnet, cifar10_resnet18.ResNet18)
