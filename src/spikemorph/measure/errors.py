"""Decoded outputs against those of the float network, over steps, whatever the outputs are.

Labels may stand beside them: targets of the shape of an output, or one class a sample for a row of scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor

from spikemorph.convert.network import SpikingNetwork
from spikemorph.errors import DataError, GraphError, RunError
from spikemorph.evaluate.batching import Batches, batches
from spikemorph.evaluate.integers import evaluate
from spikemorph.ir.graph import Dialect, Graph
from spikemorph.ir.structure import Items, Leaf, Named, Structure
from spikemorph.run.default import Engine
from spikemorph.run.handover import FRESH, Handover
from spikemorph.run.record import Outputs
from spikemorph.run.schedule import schedule
from spikemorph.run.simulate import simulate

STEPS = (1, 2, 4, 8, 16, 32)
CHUNK = 32
WHOLE = "output"
"""What the output of a network with one output is called."""


@final
@dataclass(frozen=True, slots=True)
class OutputError:
    """One output after some steps, over all samples and places.

    Args:
        output: its path in the module's output structure, such as "boxes" or "0.scores".
        steps: after which it was read (of every element); None: when nothing was in flight.
        mean_absolute, largest: |spiking - float|.
        relative: ||spiking - float|| / ||float||.
        r2: 1 - sum (spiking - float)^2 / sum (float - its mean)^2; None where the float output is constant.
        correlation: Pearson's; None where one of both is constant.
        to_labels: mean (spiking - target)^2, None without targets.
        accuracy: percent of samples whose largest score is at their class, None without classes.
    """

    output: str
    steps: int | None
    mean_absolute: float
    largest: float
    relative: float
    r2: float | None
    correlation: float | None
    to_labels: float | None
    accuracy: float | None


@final
@dataclass(frozen=True)
class OutputErrors:
    """All outputs after all steps.

    Args:
        float_to_labels, float_accuracy: of the float network, by the outputs that have such labels.
    """

    rows: tuple[OutputError, ...]
    samples: int
    float_to_labels: Mapping[str, float]
    float_accuracy: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "samples": self.samples,
            "float_to_labels": dict(self.float_to_labels),
            "float_accuracy": dict(self.float_accuracy),
            "rows": [asdict(row) for row in self.rows],
        }


def output_errors(
    network: SpikingNetwork,
    x: Batches,
    float_graph: Graph,
    *,
    steps: tuple[int, ...] = STEPS,
    quiescent: bool = True,
    labels: Any | None = None,
    engine: Engine | None = None,
    handover: Handover = FRESH,
    watch: Callable[[int], None] = lambda samples: None,
) -> OutputErrors:
    """How far the decoded outputs are from those of the float network after each number of steps.

    Args:
        x: samples, as `simulate` takes them, or a loader of batches.
        float_graph: from `capture`.
        steps: rising, from 1 on; in every element of a sequence.
        quiescent: at rest as well; rate networks have no rest.
        labels: nested like the outputs, None for none: targets of the shape of an output, or for a row of
            scores one class a sample, int64.
        watch: told how many samples are done.

    Raises:
        RunError: no steps, steps below 1 or not rising, or more than a rate network has room for.
        GraphError: another float network.
        DataError: samples or labels that do not fit, outputs that are class numbers alone.
    """
    quiescent = quiescent and network.window is None
    _check_steps(steps, quiescent=quiescent)
    _check_float(network.graph, float_graph)
    paths, targets = paths_of(network.graph.structure), _targets(network.graph, labels)
    books: defaultdict[tuple[str, int | None], _Pair] = defaultdict(_Pair)
    samples = 0
    for inputs in batches(network.graph, x, size=network.graph.samples_at_once(CHUNK), where="samples"):
        wanted = evaluate(float_graph, inputs)
        now = slice(samples, samples + len(inputs[0]))
        samples += len(inputs[0])
        for step, output in _outputs(network, inputs, steps, (engine, handover), quiescent=quiescent):
            for name, path in paths.items():
                label = targets[name][now] if name in targets else None
                if _at(wanted, path).is_floating_point():
                    books[name, step].add(_at(output, path), _at(wanted, path), label)
        watch(samples)
    for name, target in targets.items():
        if len(target) != samples:
            raise DataError(
                where=f"labels of '{name}'",
                got=f"{len(target)} for {samples} samples",
                known="one a sample",
                do="give every sample its label, or leave the labels out",
            )
    return _collected(tuple(paths), books, samples)


def _collected(
    names: tuple[str, ...], books: Mapping[tuple[str, int | None], _Pair], samples: int
) -> OutputErrors:
    if not books:
        raise DataError(
            where="the outputs",
            got="class numbers alone",
            known="outputs that are real numbers, of which errors can be taken",
            do="compare accuracies instead",
        )
    keys = sorted(books, key=lambda key: names.index(key[0]))
    floats = {name: pair for (name, _), pair in books.items()}
    return OutputErrors(
        tuple(books[key].row(*key) for key in keys),
        samples,
        {name: pair.to_labels("wanted") for name, pair in floats.items() if pair.targets},
        {name: pair.accuracy("wanted") for name, pair in floats.items() if pair.classes},
    )


def error_of(output: str, steps: int | None, got: Tensor, wanted: Tensor) -> OutputError:
    """Of one output, from all its decoded values and those of the float network, of one shape."""
    pair = _Pair()
    pair.add(got, wanted, None)
    return pair.row(output, steps)


class _Pair:
    """Sums over two sets of numbers: decoded ones and those that they stand for."""

    def __init__(self) -> None:
        self.n, self.targets, self.classes, self.largest = 0, 0, 0, 0.0
        self.sums: defaultdict[str, float] = defaultdict(float)

    def add(self, got: Tensor, wanted: Tensor, label: Tensor | None) -> None:
        """One batch.

        Raises:
            DataError: fewer labels than samples.
        """
        got, wanted = got.double(), wanted.double()
        if label is not None and len(label) != len(wanted):
            raise DataError(
                where="labels",
                got="fewer than samples",
                known="one for each sample",
                do="give every sample a label, or leave all out",
            )
        error = got - wanted
        self.n += error.numel()
        self.largest = max(self.largest, float(error.abs().max()))
        parts = {"error": error.abs(), "error2": error**2, "got": got, "wanted": wanted}
        parts |= {"got2": got**2, "wanted2": wanted**2, "product": got * wanted}
        if label is not None and label.is_floating_point():
            self.targets += label.numel()
            parts |= {f"{name}_target": (parts[name] - label) ** 2 for name in ("got", "wanted")}
        elif label is not None:
            self.classes += len(label)
            parts |= {f"{name}_right": parts[name].argmax(1) == label for name in ("got", "wanted")}
        for name, each in parts.items():
            self.sums[name] += float(each.sum())

    def to_labels(self, which: str) -> float:
        """Mean (value - target)^2 of the "got" or the "wanted"."""
        return self.sums[f"{which}_target"] / self.targets

    def accuracy(self, which: str) -> float:
        """Percent of the "got" or the "wanted" whose largest score is at their class."""
        return 100 * self.sums[f"{which}_right"] / self.classes

    def row(self, output: str, steps: int | None) -> OutputError:
        """What was added up."""
        s, n = self.sums, self.n
        spread = s["wanted2"] - s["wanted"] ** 2 / n
        own = s["got2"] - s["got"] ** 2 / n
        # Differences of large sums: what is left of a constant output is rounding.
        varies, both = spread > 1e-12 * s["wanted2"], own > 1e-12 * s["got2"]
        shared = s["product"] - s["got"] * s["wanted"] / n
        return OutputError(
            output=output,
            steps=steps,
            mean_absolute=s["error"] / n,
            largest=self.largest,
            relative=(s["error2"] / s["wanted2"]) ** 0.5 if s["wanted2"] else float(s["error2"] > 0),
            r2=1 - s["error2"] / spread if varies else None,
            correlation=shared / (spread * own) ** 0.5 if varies and both else None,
            to_labels=self.to_labels("got") if self.targets else None,
            accuracy=self.accuracy("got") if self.classes else None,
        )


# ---------------------------------------------------------------- running
def _outputs(
    network: SpikingNetwork,
    inputs: tuple[Tensor, ...],
    steps: tuple[int, ...],
    how: tuple[Engine | None, Handover],
    *,
    quiescent: bool,
) -> Iterator[tuple[int | None, Any]]:
    """(steps, decoded outputs), None for those at rest."""
    engine, handover = how
    rest: list[int | None] = [None] if quiescent else []
    if schedule(network.graph).elements > 1:
        for step in [*steps, *rest]:
            run = simulate(network, inputs, steps=step, engine=engine, handover=handover)
            yield step, run.output
        return
    record = Outputs(steps) if steps else ()
    run = simulate(network, inputs, steps=None if rest else max(steps), engine=engine, record=record)
    yield from zip(steps, run.outputs or (), strict=True)
    if rest:
        yield None, run.output


# ---------------------------------------------------------------- structure
Path = tuple[str | int, ...]


def paths_of(shape: Structure) -> dict[str, Path]:
    """Every output by name, its keys and places joined by dots, and how to get there; each output once."""
    found: dict[int, Path] = {}

    def visit(part: Structure, path: Path) -> None:
        match part:
            case Leaf(index):
                found.setdefault(index, path)
            case Items(items):
                for place, each in enumerate(items):
                    visit(each, (*path, place))
            case Named(keys, items):
                for key, each in zip(keys, items, strict=True):
                    visit(each, (*path, key))

    visit(shape, ())
    return {".".join(map(str, found[index])) or WHOLE: found[index] for index in sorted(found)}


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


# ---------------------------------------------------------------- checks
def _check_steps(steps: tuple[int, ...], *, quiescent: bool) -> None:
    whole = all(isinstance(step, int) and not isinstance(step, bool) and step >= 1 for step in steps)
    if not whole or sorted(set(steps)) != list(steps) or not (steps or quiescent):
        raise RunError(
            where="output_errors(steps)",
            got=repr(steps),
            known="whole numbers from 1 on, rising",
            do="use (1, 2, 4, 8)",
        )


def _check_float(graph: Graph, float_graph: Graph) -> None:
    shapes = [[each.by_name[name].shape for name in each.outputs] for each in (graph, float_graph)]
    inputs = [[node.shape for node in each.inputs] for each in (graph, float_graph)]
    if (
        float_graph.dialect is not Dialect.FLOAT
        or shapes[0] != shapes[1]
        or inputs[0] != inputs[1]
        or graph.structure != float_graph.structure
    ):
        raise GraphError(
            where="the float network",
            got=f"dialect {float_graph.dialect.value}, inputs {inputs[1]}, outputs {shapes[1]}",
            known=f"dialect float, inputs {inputs[0]}, outputs {shapes[0]} in the same nesting",
            do="pass the captured network that this one was converted from",
        )


def _targets(graph: Graph, labels: Any | None) -> dict[str, Tensor]:
    """Labels by the output that they are for; outputs without labels (None) are left out."""
    found: dict[str, Tensor] = {}
    paths = paths_of(graph.structure)
    for (name, path), output in zip(paths.items(), graph.outputs, strict=True) if labels is not None else ():
        shape = graph.by_name[output].shape
        try:
            label = _at(labels, path)
        except (KeyError, IndexError, TypeError) as error:
            raise _unfit(name, f"labels without it ({type(error).__name__}: {error})", shape) from error
        if label is None:
            continue
        if not isinstance(label, Tensor) or not _fits(label, shape):
            got = f"{label.dtype} {list(label.shape)}" if isinstance(label, Tensor) else type(label).__name__
            raise _unfit(name, got, shape)
        found[name] = label.double().reshape(-1, *shape) if label.is_floating_point() else label
    return found


def _fits(label: Tensor, shape: tuple[int, ...]) -> bool:
    if label.is_floating_point():  # a target a sample may be [n] for an output [n, 1]
        return [n for n in label.shape[1:] if n != 1] == [n for n in shape if n != 1]
    classes = label.dtype == torch.int64 and label.dim() == len(shape) == 1
    return classes and bool(((label >= 0) & (label < shape[0])).all())


def _unfit(name: str, got: str, shape: tuple[int, ...]) -> DataError:
    return DataError(
        where=f"labels of '{name}'",
        got=got,
        known=f"numbers [samples, {', '.join(map(str, shape))}], or for a row of scores classes, int64 "
        "[samples]; nested like the outputs, None for an output without labels",
        do="give every sample its label, or leave the labels out",
    )
