"""CamVid: a segmentation network converted without training, by several methods, mIoU over steps.

The float network is trained here from MobileNetV2's weights. Conversions see unlabelled training photos only;
levels, ramps, thresholds and windows for each number of steps are chosen by how close the scores of other
training photos come to those of the float network.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikemorph.capture import capture
from spikemorph.convert.network import Graded, Ternary
from spikemorph.data import Split
from spikemorph.data.camvid import CLASSES, Scenes, load_camvid
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Graph
from spikemorph.measure.over_steps import over_steps
from spikemorph.measure.segmentation import confusion, mean_iou, scenes_iou
from spikemorph.recipes.camvid_network import Scores
from spikemorph.recipes.camvid_picture import columns, draw
from spikemorph.recipes.camvid_training import SCHEDULE, train_float
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
from spikemorph.recipes.over_steps import FULL, QUIESCENT, STEPS, losses, measured
from spikemorph.recipes.packed import Half, halved, rounded
from spikemorph.recipes.recipe import Recipe, Trained
from spikemorph.recipes.result import Case, Metric, Progress, Result, assess
from spikemorph.recipes.training import Report

NAME = "camvid"
CALIBRATION, SHOWN = 40, 2
"""Training photos, without labels: to calibrate with, and others to choose on."""
TESTED, VERIFIED = 40, 4
"""Test photos over steps without `--full`; those that are verified neuron by neuron."""
DRAWN = (20, 110, 200)
"""Test photos of the picture."""
MIOU = Metric("mIoU", scenes_iou)
TERNARY, GRADED = "lossless, ternary", "lossless, graded(4)"


UNITS = tuple(Setting(*each) for each in ((7, 6), (11, 12), (15, 16), (31, 40), (47, 48), (63, 1)))
SIZED = tuple(Setting(*each) for each in ((31, 8), (63, 8), (63, 24)))
SHIPPED = Setting(127, 1, steps=())
"""Competes at rest alone: in time, coarser networks are ahead of it."""


# ---------------------------------------------------------------- candidates
def families(made: Quantised) -> Mapping[str, Family]:
    """All candidates, by method."""
    return {
        TERNARY: lossless(made, (*UNITS, SHIPPED), Ternary()),
        GRADED: lossless(made, SIZED, Graded(4)),
        "local threshold balancing, binary": balanced({20: STEPS, 100: FULL}, batch=8),
        "least squares, ternary": fitted(FULL),
        "rate, binary": classic(99.9),
    }


# ---------------------------------------------------------------- training
def fit(folder: Path, report: Report) -> Trained:
    """The float network, its quantised one, and every choice that training photos make."""
    model = train_float(folder, report)
    model.load_state_dict(rounded(model.state_dict(), Half()))
    return settle(halved(capture(model, photos()[0][:2])), report)


def photos() -> tuple[Tensor, Tensor]:
    """Training photos to calibrate with, and others to choose on, without labels, evenly spread."""
    x = load_camvid(Split.TRAIN).x
    some = x[spread(len(x), CALIBRATION + SHOWN)]
    apart = torch.zeros(len(some), dtype=torch.bool)
    apart[spread(len(some), SHOWN)] = True
    return some[~apart], some[apart]


def spread(samples: int, wanted: int) -> Tensor:
    """Indices of at most so many samples, evenly over all of them."""
    return torch.linspace(0, samples - 1, min(samples, wanted)).round().long()


def settle(graph: Graph, report: Report) -> Trained:
    """The quantised network and the choices for a float network."""
    calibration, shown = photos()
    source = Source(graph, calibration)
    made, found = Quantised(source), dict[str, Choices]()
    for name, family in families(made).items():
        found[name] = choose(source, family, shown, FULL)
        report(name)
        for key, each in found[name].items():
            report(f"  {key}: {each.candidate} from {each.start}, error {each.error:.4f}")
    validation = load_camvid(Split.VALIDATION)
    integer = made(SHIPPED.levels)
    notes: dict[str, Any] = {
        "chosen": {name: {key: each.to_json() for key, each in won.items()} for name, won in found.items()},
        "validation_float": scenes_iou(evaluate(graph, validation.x), validation.y),
        "validation_qnn": scenes_iou(evaluate(integer, validation.x), validation.y),
        "float_epochs": SCHEDULE.epochs,
        "calibration_photos": CALIBRATION,
        "licence": "from torchvision's MobileNetV2 (BSD-3-Clause), trained further on CamVid (CC BY-NC)",
    }
    return Trained(graph, integer, notes)


# ---------------------------------------------------------------- measuring
def measure(case: Case, progress: Progress, full: bool) -> Result:
    """Verified neuron by neuron on some photos; at rest on all; over steps on some, or all where `full`."""
    start, steps = time.perf_counter(), FULL if full else STEPS
    test = load_camvid(Split.TEST)
    some = _part(test, len(test) if full else TESTED)
    source = Source(case.float_graph, photos()[0])
    made = Quantised(source)
    made.keep(case.integer_graph, SHIPPED.levels)
    rows, chosen = families(made), recorded(case.notes, steps)
    found = [way for name, won in chosen.items() for way in ways(source, name, rows[name], won)]
    total = VERIFIED + len(found) * len(some)
    result = assess(case, _part(test, VERIFIED), lambda done, _: progress(done, total), metric=MIOU)
    table = measured(
        found,
        some.x,
        lambda scores, part: confusion(scores, some.y[part]),
        finish=lambda tables, samples: mean_iou(tables),
        batch=2,
        progress=lambda done, _: progress(VERIFIED + done, total),
    )
    value = scenes_iou(evaluate(case.float_graph, some.x), some.y)
    everything = {
        "samples": len(test),
        "float": _rest(case.float_graph, test),
        "qnn": _rest(case.integer_graph, test),
    }
    plain = closest({name: won for name, won in chosen.items() if name != GRADED})
    return replace(
        result,
        samples=len(some),
        float=value,
        qnn=scenes_iou(evaluate(case.integer_graph, some.x), some.y),
        snn=table.by_method[TERNARY][QUIESCENT],
        by_method=table.by_method,
        loss=losses(table, value, plain),
        loss_graded=losses(table, value, closest({GRADED: chosen[GRADED]})),
        notes={
            **case.notes,
            "method": plain,
            "spikes_per_neuron": table.spikes,
            "costs": table.costs,
            "verified_samples": VERIFIED,
            "all_test_photos": everything,
        },
        seconds=time.perf_counter() - start,
    )


def _part(data: Scenes, wanted: int) -> Scenes:
    return data.at(spread(len(data), wanted))


def _rest(graph: Graph, data: Scenes) -> float:
    """mIoU of a network at rest, without keeping all scores."""
    parts = (slice(first, first + 8) for first in range(0, len(data), 8))
    return mean_iou(torch.stack([confusion(evaluate(graph, data.x[p]), data.y[p]) for p in parts]).sum(0))


def draw_scenes(path: Path) -> None:
    """A picture of three test photos: labels, the float network, the lossless one over steps and at rest.

    Raises:
        MissingData: CamVid is not here, or Pillow is not installed.
        FileError: the picture cannot be written.
    """
    test, chosen = load_camvid(Split.TEST), recorded(RECIPE.notes(None), STEPS[1:])
    some = test.at(torch.tensor(DRAWN))
    graph = RECIPE.graph(None, "float")
    source = Source(graph, photos()[0])
    made = families(Quantised(source))[TERNARY]
    seen = {"float": evaluate(graph, some.x)}
    for way in ways(source, TERNARY, made, chosen[TERNARY]):
        if not way.steps:
            continue
        for reached in over_steps(way.network, some.x, way.steps, quiescent=False):
            seen |= {f"spiking, {steps} steps": reached.outputs[steps] for steps in way.steps}
    seen["spiking, at rest"] = evaluate(RECIPE.graph(None, "qnn"), some.x)
    draw(columns(some.x, some.y, seen), path)


RECIPE = Recipe(NAME, SHIPPED.levels, 8, fit, measure, load_camvid, partial(Scores, len(CLASSES)))
