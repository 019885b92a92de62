"""ImageNet photos without training: pretrained networks, every method, 500 photos to calibrate with.

Levels, ramps, thresholds, windows and the method for each number of steps are chosen on calibration photos
without their labels; 500 photos of other classes are seen once, at the end. Nothing is shipped but the
choices: the networks are made anew from the pretrained weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from spikemorph.capture import capture
from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Graded, Ternary
from spikemorph.data import Dataset, Split
from spikemorph.data.photos import EFFICIENTNET_LITE, TORCHVISION, Normal, load_photos
from spikemorph.data.pretrained import MOBILENET_V2
from spikemorph.evaluate.integers import evaluate
from spikemorph.recipes.contest import (
    Choices,
    Family,
    Quantised,
    Setting,
    Source,
    balanced,
    choose,
    classic,
    closest,
    fitted,
    lossless,
    recorded,
    ways,
)
from spikemorph.recipes.over_steps import FULL, QUIESCENT, STEPS, add_rest, hits, losses, measured
from spikemorph.recipes.recipe import Recipe, Trained
from spikemorph.recipes.result import Case, Progress, Result, assess
from spikemorph.recipes.training import Report
from spikemorph.recipes.zoo import efficientnet_lite0

CALIBRATION, SHOWN, TESTED, FEW, VERIFIED = 128, 40, 200, 40, 4
"""Photos to calibrate with; others, to choose on; test photos without --full, for rates, and verified."""
BATCH = 4
"""Photos of an iteration of local threshold balancing: their many places make up for their number."""
TERNARY, GRADED = "lossless, ternary", "lossless, graded(4)"


UNITS = (
    Setting(7, 12, 15, (8, 16)),
    Setting(15, 20, 31, (16, 32)),
    Setting(31, 44, 63, (64,)),
    Setting(63, 96, 127, (128, 256)),
    Setting(255, 192, 255, ()),
)
SIZED = (
    Setting(31, 10, 63, (8, 16)),
    Setting(63, 16, 127, (16, 32, 64)),
    Setting(127, 32, 255, (128, 256)),
)

FEWER = (
    Setting(15, 20, 31, (8, 16, 32)),
    Setting(31, 44, 63, (64, 128, 256)),
    Setting(255, 192, 255, ()),
)
FEWER_SIZED = (Setting(31, 10, 63, (8, 16)), Setting(63, 16, 127, (16, 32, 64, 128, 256)))


@final
@dataclass(frozen=True, slots=True)
class Tried:
    """What competes: lossless settings, ternary and graded; iterations, least squares, percentiles."""

    units: tuple[Setting, ...] = UNITS
    sized: tuple[Setting, ...] = SIZED
    iterations: tuple[tuple[int, tuple[int, ...]], ...] = (
        (100, (8, 16, 32)),
        (500, (32, 64)),
        (2000, (64, 128, 256)),
    )
    fitted: tuple[int, ...] = FULL
    percentiles: tuple[float, ...] = (99.9,)

    def named(self, words: str) -> Setting:
        """The lossless setting with these words."""
        return next(each for each in (*self.units, *self.sized) if str(each) == words)


def mobilenet_v2() -> nn.Module:
    """torchvision's MobileNetV2 at rest."""
    from torchvision.models import mobilenet_v2 as build

    module: nn.Module = build()
    module.load_state_dict(MOBILENET_V2.state_dict())
    return module.eval()


# ---------------------------------------------------------------- candidates
def families(made: Quantised, tried: Tried) -> Mapping[str, Family]:
    """All candidates, by method."""
    found = {
        TERNARY: lossless(made, tried.units, Ternary()),
        GRADED: lossless(made, tried.sized, Graded(4)),
        "local threshold balancing, binary": balanced(dict(tried.iterations), BATCH),
        "least squares, ternary": fitted(tried.fitted),
        "rate, binary": classic(*tried.percentiles),
    }
    return {name: family for name, family in found.items() if family}


# ---------------------------------------------------------------- choosing
def settle(photos: Photos, folder: Path, report: Report) -> Trained:
    """Every choice that calibration photos make."""
    source, shown = photos.source()
    made, found = Quantised(source), dict[str, Choices]()
    for name, family in families(made, photos.tried).items():
        found[name] = choose(source, family, shown, FULL)
        report(name)
        for key, each in found[name].items():
            report(f"  {key}: {each.candidate} from {each.start}, error {each.error:.4f}")
    chosen = {name: {key: each.to_json() for key, each in won.items()} for name, won in found.items()}
    best = photos.tried.named(found[TERNARY][QUIESCENT].candidate)
    return Trained(source.graph, made(best.levels, best.identity), {"chosen": chosen})


@final
@dataclass(frozen=True)
class Photos:
    """A pretrained network and how it wants its pixels.

    Args:
        tried: what competes.
        shown: photos to choose on.
        tested, few: photos on which counts, and rates, run over steps without --full.
    """

    build: Callable[[], nn.Module]
    normal: Normal
    tried: Tried = Tried()
    shown: int = SHOWN
    tested: int = TESTED
    few: int = FEW

    def source(self) -> tuple[Source, Tensor]:
        """The captured network with photos to calibrate with; and others to choose on, without labels."""
        x = load_photos(Split.VALIDATION, samples=CALIBRATION + self.shown, normal=self.normal).x
        places = torch.arange(len(x))
        apart = places % (len(x) // self.shown) == 0
        graph = capture(self.build(), x[:2])
        return Source(graph, x[~apart]), x[apart][: self.shown]

    def sizes(self, full: bool) -> tuple[int, ...]:
        """Numbers of test photos: of rates, of counts, at rest."""
        whole = len(self.data(Split.TEST).x)
        return (whole,) if full else (self.few, self.tested, whole)

    def data(self, split: Split) -> Dataset:
        """Photos of a split."""
        return load_photos(split, normal=self.normal)


def rebuild(photos: Photos, notes: Mapping[str, Any]) -> Trained:
    """The float network, and the quantised one that was closest at rest."""
    source, _ = photos.source()
    best = photos.tried.named(notes["chosen"][TERNARY][QUIESCENT][0])
    return Trained(source.graph, Quantised(source)(best.levels, best.identity), dict(notes))


# ---------------------------------------------------------------- measuring
def compare(photos: Photos, case: Case, progress: Progress, full: bool) -> Result:
    """Every method on test photos, at rest on all of them; without `full` rates on a few, they take long."""
    start, steps = time.perf_counter(), FULL if full else STEPS
    whole = photos.data(Split.TEST)
    data = whole if full else whole.first(photos.tested)
    few = data if full else data.first(photos.few)
    best = photos.tried.named(case.notes["chosen"][TERNARY][QUIESCENT][0])
    source, _ = photos.source()
    made = Quantised(source)
    made.keep(case.integer_graph, best.levels, best.identity)
    rows, chosen = families(made, photos.tried), recorded(case.notes, steps)
    found = [way for name, won in chosen.items() for way in ways(source, name, rows[name], won)]
    running = [replace(way, rest=False) for way in found if way.steps]
    counts = [way for way in running if way.network.window is None]
    rates = [way for way in running if way.network.window is not None]
    total = VERIFIED + len(counts) * len(data.x) + len(rates) * len(few.x)
    verified = photos.tried.named(chosen[TERNARY][str(STEPS[-1])].candidate)
    own = made(verified.levels, verified.identity)
    spiking = convert(own, Lossless(ramp=verified.ramp))
    shown = replace(case, integer_graph=own, network=spiking)
    result = assess(shown, whole.first(VERIFIED), lambda done, _: progress(done, total))
    table = measured(counts, data.x, hits(data.y), progress=lambda done, _: progress(VERIFIED + done, total))
    for way in found:
        if way.rest:
            add_rest(table, way, whole.x, hits(whole.y))
    before = total - len(rates) * len(few.x)
    beside = measured(rates, few.x, hits(few.y), progress=lambda done, _: progress(before + done, total))
    outputs = evaluate(case.integer_graph, data.x)
    qnn = 100 * float((outputs.argmax(1) == data.y).double().mean())
    plain = closest({name: won for name, won in chosen.items() if name != GRADED})
    scores = evaluate(case.float_graph, whole.x)
    right = {
        n: 100 * float((scores[:n].argmax(1) == whole.y[:n]).double().mean()) for n in photos.sizes(full)
    }
    lost = losses(table, right[len(data.x)], plain) | losses(beside, right[len(few.x)], plain)
    sized = losses(table, right[len(data.x)], closest({GRADED: chosen[GRADED]}))
    at_rest = {name: right[len(whole.x)] - table.by_method[name][QUIESCENT] for name in (TERNARY, GRADED)}
    return replace(
        result,
        samples=len(data.x),
        float=right[len(data.x)],
        qnn=qnn,
        snn=qnn,
        levels=best.levels,
        by_method={**table.by_method, **beside.by_method},
        loss={key: lost[key] for key in plain if key in lost} | {QUIESCENT: at_rest[TERNARY]},
        loss_graded=sized | {QUIESCENT: at_rest[GRADED]},
        notes={
            **case.notes,
            "method": plain,
            "spikes_per_neuron": {**table.spikes, **beside.spikes},
            "costs": {**table.costs, **beside.costs},
            "verified": str(verified),
            "verified_samples": VERIFIED,
            "of_rates": {"samples": len(few.x), "float": right[len(few.x)]},
            "at_rest": {"samples": len(whole.x), "float": right[len(whole.x)]},
        },
        seconds=time.perf_counter() - start,
    )


def _recipe(name: str, photos: Photos) -> Recipe:
    return Recipe(
        name=f"training-free-{name}",
        levels=max(each.levels for each in photos.tried.units),
        weight_bits=8,
        fit=partial(settle, photos),
        measure=partial(compare, photos),
        data=photos.data,
        rebuild=partial(rebuild, photos),
    )


MOBILENET = _recipe("mobilenet-v2", Photos(mobilenet_v2, TORCHVISION))
EFFICIENTNET = _recipe(
    "efficientnet-lite0",
    Photos(efficientnet_lite0, EFFICIENTNET_LITE, Tried(FEWER, FEWER_SIZED, (), (), ()), 20, 20, 20),
)
