"""docs/zoo.md: the rows of results/zoo.json as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from spikemorph.recipes.torchvision_zoo import BATCH, COMPARED, FAMILIES, LEVELS, SEGMENTATION, family

Rows = Mapping[str, Mapping[str, Any]]

HEAD = (
    "network",
    "parameters",
    "input",
    "levels",
    "captured, largest error",
    "neurons",
    "identity neurons (places)",
    "steps to quiescence / proven",
    "spikes per neuron",
    "neurons compared",
    "different",
)

TEXT = """# Which networks of torchvision convert

Made by `scripts/draw-zoo` from `results/zoo.json`, which the same script fills: torchvision {torchvision},
torch {torch}. Every number is measured.

Every network is built whole, with random weights, batch norms with statistics of the data and gains of both
signs. It is captured, compared with the torch module on samples that it was not captured with (largest
difference of any output, relative to the largest output), quantised to {levels} levels and {bits}-bit weights
with {batch} calibration samples, converted to a spiking network of ternary spikes, and run until nothing is
in flight on {compared} of them. Every neuron's count is then compared with that of the quantised network, as
integers. Parameters are those of the module, a sample is an image of 3 channels. Accuracy is not the subject:
the weights are random.

{taken} of {all} networks convert; {compared_neurons} counts were compared, {different} differ.{lacking}

## Classification

{classification}

GoogLeNet and Inception v3 have their normalisation inside the model (`transform_input=True`). Dropout and
stochastic depth vanish at rest.

## Segmentation

Whole networks, upsampling included; heads `out` and, where there is one, `aux`.

{segmentation}

## Refused

Every operation in the way, the same ones together; `spikemorph inspect` shows where each stands.

{refused}
"""


def document(made: Mapping[str, Any]) -> str:
    """The page, from what results/zoo.json holds."""
    rows: Rows = made["rows"]
    taken = {name: row for name, row in rows.items() if row["taken"]}
    seen = {name: row for name, row in taken.items() if family(name) in SEGMENTATION}
    left = sorted(set(made.get("all", rows)) - set(rows))
    lacking = f"\n\nNot tried yet: {', '.join(left)}." if left else ""
    return TEXT.format(
        **made["versions"],
        lacking=lacking,
        levels=LEVELS.activation,
        bits=LEVELS.weight_bits,
        batch=BATCH,
        compared=COMPARED,
        taken=len(taken),
        all=len(rows),
        compared_neurons=f"{sum(row['neurons_compared'] for row in taken.values()):,}",
        different=f"{sum(row['neurons_different'] for row in taken.values()):,}",
        classification=_table(HEAD, _converted({n: r for n, r in taken.items() if n not in seen})),
        segmentation=_table(HEAD, _converted(seen)),
        refused=_table(
            ("network", "parameters", "input", "refused operations", "what converts instead"),
            _refused({name: row for name, row in rows.items() if name not in taken}),
        ),
    )


def _ordered(rows: Rows) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """By family as FAMILIES has them, small networks first."""
    order = list(FAMILIES)
    return sorted(
        rows.items(), key=lambda item: (order.index(family(item[0])), item[1]["parameters"], item[0])
    )


def _converted(rows: Rows) -> Iterable[tuple[str, ...]]:
    for name, row in _ordered(rows):
        neurons, places = row["identities"]
        yield (
            name,
            f"{row['parameters']:,}",
            _shape(row),
            str(row["levels"]),
            f"{row['capture_error']:.0e}" if row["capture_error"] else "0",
            f"{row['neurons']:,}",
            f"{neurons:,} ({places})",
            f"{row['steps_max']} / {row['steps_bound']}",
            f"{row['spikes_per_neuron']:.2f}",
            f"{row['neurons_compared']:,}",
            f"{row['neurons_different']:,}" + ("" if row["lossless"] else " **not lossless**"),
        )


def _refused(rows: Rows) -> Iterable[tuple[str, ...]]:
    for name, row in _ordered(rows):
        kinds = row["offences"]
        operations = "; ".join(f"{each['count']} of `{each['got']}`" for each in kinds)
        known = "; ".join(dict.fromkeys(each["known"] for each in kinds))
        yield name, f"{row['parameters']:,}", _shape(row), operations, known


def _shape(row: Mapping[str, Any]) -> str:
    return " x ".join(map(str, row["shape"][1:]))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
