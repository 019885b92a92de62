"""BCCD: a detector of blood cells whose convolutional part is converted without training, mAP over steps.

The float detector is trained here from MobileNetV2's weights. Backbone and heads become spiking; anchors,
decoding and the suppression of overlapping boxes run as in torchvision. Conversions see unlabelled training
images only; the settings for each number of steps are those that find the boxes of the float detector best
in other training images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from spikemorph.convert.lossless import Lossless
from spikemorph.convert.methods import convert
from spikemorph.convert.network import Graded, Spike, Ternary
from spikemorph.data import Split
from spikemorph.data.bccd import HEIGHT, WIDTH, Boxed, load_bccd
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.measure.detection import Precision, average_precision
from spikemorph.parts import Part
from spikemorph.recipes.bccd_network import SHRINK, detector
from spikemorph.recipes.bccd_training import SCHEDULE, train_float
from spikemorph.recipes.contest import (
    Candidate,
    Choices,
    Family,
    Quantised,
    Source,
    balanced,
    choose,
    classic,
    closest,
    fitted,
    recorded,
    ways,
)
from spikemorph.recipes.over_steps import FULL, QUIESCENT, STEPS, Way, losses, measured
from spikemorph.recipes.packed import Half, halved, rounded
from spikemorph.recipes.recipe import Recipe, Trained
from spikemorph.recipes.result import Case, Metric, Progress, Result, assess
from spikemorph.recipes.training import Report

NAME = "bccd"
CALIBRATION, COMPARED = 64, 24
"""Training images, without boxes: to calibrate with, and others to choose on."""
SURE = 0.4
"""Score from which on a box of the float detector is one to be found."""
SHIPPED = 63
"""Levels of the network that is shipped and verified: the closest at rest."""
OVERALL = "mAP@[.5:.95]"
TERNARY, GRADED = "lossless, ternary", "lossless, graded(4)"


# ---------------------------------------------------------------- candidates
def families(made: Quantised) -> Mapping[str, Family]:
    """All candidates, by method; a ramp takes about as many steps as there are levels."""

    def lossless(levels: int, spike: Spike) -> Candidate:
        method = Lossless(spike, ramp=-(-levels // spike.largest))
        return Candidate(lambda source: convert(made(levels), method))

    return {
        TERNARY: {f"{p} levels": lossless(p, Ternary()) for p in (5, 7, 11, 15, 31, 63)},
        GRADED: {f"{p} levels": lossless(p, Graded(4)) for p in (7, 15, 31, 63)},
        "local threshold balancing, binary": balanced({20: STEPS, 100: FULL}, batch=8),
        "least squares, ternary": fitted(FULL),
        "rate, binary": classic(99.9),
    }


# ---------------------------------------------------------------- data
@final
@dataclass(frozen=True, eq=False)
class Cells:
    """Images as the network takes them, and what is in them.

    Args:
        x: float32 [n, 3, 120, 160], normalised.
        y: float32 [n, most, 5]: left, top, right, bottom, class; rows behind the last box are NaN.
    """

    x: Tensor
    y: Tensor
    name: str
    split: Split

    def some(self, chosen: Tensor) -> Cells:
        """These images."""
        return replace(self, x=self.x[chosen], y=self.y[chosen])


def cells(split: Split) -> Cells:
    """A part of the data set."""
    data = load_bccd(split, shrink=SHRINK)
    return Cells(normalised(data), targets(data), data.name, split)


def part(model: nn.Module) -> Part:
    """Backbone and heads of the detector."""
    return Part(model.eval(), ("backbone", "head"))


def normalised(data: Boxed) -> Tensor:
    """Images as they reach the backbone."""
    x = part(detector()).inputs(list(data.x))
    assert isinstance(x, Tensor)
    return x


def targets(data: Boxed) -> Tensor:
    """Boxes and classes as one tensor, as `Cells` has them."""
    rows = [torch.cat((box, label[:, None]), 1) for box, label in zip(data.boxes, data.labels, strict=True)]
    return padded(rows)


def padded(rows: Sequence[Tensor]) -> Tensor:
    """Rows [k, 5] of every image as one tensor, filled up with NaN."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=float("nan"))


def detected(outputs: Any) -> list[dict[str, Tensor]]:
    """Boxes, classes and scores of every image, from outputs of the heads, by their names."""
    images = [torch.zeros(3, HEIGHT // SHRINK, WIDTH // SHRINK)] * len(outputs["cls_logits"])
    found: list[dict[str, Tensor]] = _behind().finish(images, outputs)
    return found


@cache
def _behind() -> Part:
    """A detector for what has no weights: anchors, decoding, suppression."""
    return part(detector())


def precision(detections: list[dict[str, Tensor]], y: Tensor) -> Precision:
    """Of images whose boxes are `y` [n, most, 5]."""
    rows = [each[~each[:, 4].isnan()] for each in y]
    return average_precision(detections, [row[:, :4] for row in rows], [row[:, 4].long() for row in rows])


MAP = Metric("mAP@0.5", lambda outputs, y: precision(detected(outputs), y).half)


# ---------------------------------------------------------------- training
def fit(folder: Path, report: Report) -> Trained:
    """The float network, its quantised one, and every choice that training images make."""
    data = load_bccd(Split.TRAIN, shrink=SHRINK)
    model = train_float(data, folder, report)
    model.load_state_dict(rounded(model.state_dict(), Half()))
    return settle(halved(part(model).capture(list(data.x[:2]))), data, report)


def settle(graph: Graph, data: Boxed, report: Report) -> Trained:
    """The quantised network and the choices for a float network."""
    calibration, others = apart(data)
    source = Source(graph, calibration)
    made, found = Quantised(source), dict[str, Choices]()
    for name, family in families(made).items():
        found[name] = choose(source, family, others, FULL, error=missed, batch=1)
        report(name)
        for key, each in found[name].items():
            report(f"  {key}: {each.candidate} from {each.start}, error {each.error:.2f}")
    integer, validation = made(SHIPPED), cells(Split.VALIDATION)
    notes: dict[str, Any] = {
        "chosen": {name: {key: each.to_json() for key, each in won.items()} for name, won in found.items()},
        "validation_float": MAP.of(evaluate(graph, validation.x), validation.y),
        "validation_qnn": MAP.of(evaluate(integer, validation.x), validation.y),
        "float_epochs": SCHEDULE.epochs,
        "calibration_images": len(calibration),
        "data": "BCCD at 160 x 120, MIT licence",
        "weights": "from torchvision's MobileNetV2 (BSD-3-Clause), trained further",
    }
    return Trained(graph, integer, notes)


def apart(data: Boxed) -> tuple[Tensor, Tensor]:
    """Training images to calibrate with and others to choose on, as the network takes them."""
    places = torch.linspace(0, len(data) - 1, CALIBRATION + COMPARED).round().long()
    others = torch.zeros(len(places), dtype=torch.bool)
    others[torch.linspace(0, len(places) - 1, COMPARED).round().long()] = True
    x = normalised(data)
    return x[places[~others]], x[places[others]]


def missed(outputs: Any, wanted: Any) -> float:
    """100 minus the mean over overlaps, where what the float network finds is right; no labels needed."""
    kept = [
        torch.cat((each["boxes"], each["labels"][:, None]), 1)[each["scores"] >= SURE]
        for each in detected(wanted)
    ]
    return 100 - precision(detected(outputs), padded(kept)).mean


def boxes(outputs: Any, samples: slice) -> list[dict[str, Tensor]]:
    """A score that adds up: the boxes of all images."""
    return detected(outputs)


# ---------------------------------------------------------------- measuring
def measure(case: Case, progress: Progress, full: bool) -> Result:
    """Verified neuron by neuron, then every method over steps; all test images where `full`, else half."""
    steps, data = FULL if full else STEPS, cells(Split.TEST)
    data = data if full else data.some(torch.arange(0, len(data.x), 2))
    source = Source(case.float_graph, apart(load_bccd(Split.TRAIN, shrink=SHRINK))[0])
    made = Quantised(source)
    made.keep(case.integer_graph, SHIPPED)
    rows, chosen = families(made), recorded(case.notes, steps)
    found = [way for name, won in chosen.items() for way in ways(source, name, rows[name], won)]
    total = (1 + len(found)) * len(data.x)
    result = assess(case, data, lambda done, _: progress(done, total), metric=MAP, batch=1)
    judge = Judge(data.y)
    tell = lambda done, _: progress(len(data.x) + done, total)  # noqa: E731
    table = measured(found, data.x, boxes, finish=judge, batch=1, progress=tell)
    reference = precision(detected(evaluate(case.float_graph, data.x)), data.y)
    plain = closest({name: won for name, won in chosen.items() if name != GRADED})
    return replace(
        result,
        by_method=table.by_method,
        loss=losses(table, result.float, plain),
        loss_graded=losses(table, result.float, closest({GRADED: chosen[GRADED]})),
        notes={
            **case.notes,
            "method": plain,
            OVERALL: {"float": reference.mean, **judge.means(found)},
            "spikes_per_neuron": table.spikes,
            "costs": table.costs,
        },
    )


@final
class Judge:
    """Values of all boxes that were found, one call after the other; keeps the mean over overlaps of each."""

    def __init__(self, y: Tensor) -> None:
        self.y = y
        self.seen: list[float] = []

    def __call__(self, found: list[dict[str, Tensor]], images: int) -> float:
        """At an overlap of 0.5."""
        score = precision(found, self.y)
        self.seen.append(score.mean)
        return score.half

    def means(self, found: Sequence[Way]) -> dict[str, dict[str, float]]:
        """Of ways that were measured in this order: method -> steps -> mean over overlaps."""
        made: dict[str, dict[str, float]] = {way.method: {} for way in found}
        keys = [(way.method, key) for way in found for key in (*map(str, way.steps), *[QUIESCENT] * way.rest)]
        for (method, key), value in zip(keys, self.seen, strict=True):
            made[method][key] = value
        return made


def module() -> nn.Module:
    """Backbone and heads of the detector, untrained: normalised images to a dict of outputs."""
    return part(detector()).module([torch.zeros(3, HEIGHT // SHRINK, WIDTH // SHRINK)])


RECIPE = Recipe(NAME, SHIPPED, 8, fit, measure, cells, module)
