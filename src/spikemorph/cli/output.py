"""What commands print: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from spikemorph.errors import CalibrationWarning
from spikemorph.recipes.result import Progress as Callback
from spikemorph.recipes.result import Result

# Texts hold paths and `package.module:factory`: neither "[x]" nor ":x:" may be read as markup or emoji.
console = Console(markup=False, emoji=False)
messages = Console(stderr=True, markup=False, emoji=False)


def emit_json(value: Any) -> None:
    """One JSON object on stdout, nothing else."""
    print(json.dumps(value, indent=2))


def say(text: str) -> None:
    """A line for people, on stderr, so that stdout stays clean."""
    messages.print(text, highlight=False, soft_wrap=True)


def show(text: str) -> None:
    """Text on stdout as it is."""
    console.print(text, highlight=False, soft_wrap=True)


@contextmanager
def guest() -> Iterator[None]:
    """The user's own code runs here: what it prints goes to stderr, stdout is for the result."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def remarks() -> Iterator[None]:
    """What is warned of about calibration data, as lines on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        yield
    for text in dict.fromkeys(str(each.message) for each in caught):
        say(text)


class Bars:
    """Progress bars on stderr, one for each name."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=messages,
        )

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def bar(self, name: str) -> Callback:
        """The callback of one bar; the bar appears with the first call."""
        tasks: list[Any] = []

        def update(done: int, total: int) -> None:
            if not tasks:
                tasks.append(self.progress.add_task(name, total=total))
            self.progress.update(tasks[0], completed=done, total=total)

        return update


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the first column is left, the others right."""
    drawn = Table(title=title, title_justify="left", header_style="bold")
    for index, name in enumerate(head):
        drawn.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)


METRICS: dict[str, tuple[str, str]] = {
    "accuracy": ("accuracy %", ".2f"),
    "mse": ("mean squared error", ".4f"),
    "boxes": ("boxes shared with the words %", ".2f"),
}
"""Name of a metric -> its words and its digits."""


def _measured(result: Result, value: float) -> str:
    return format(value, METRICS.get(result.metric, ("", ".4g"))[1])


FIELDS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("samples", lambda r: f"{r.samples:,}"),
    ("measure", lambda r: METRICS.get(r.metric, (r.metric, ""))[0]),
    ("float", lambda r: _measured(r, r.float)),
    ("QNN", lambda r: _measured(r, r.qnn)),
    ("SNN", lambda r: _measured(r, r.snn)),
    ("neurons compared", lambda r: f"{r.neurons_compared:,}"),
    ("neurons different", lambda r: f"{r.neurons_different:,}"),
    ("elements in turn", lambda r: f"{r.elements:,}"),
    ("steps an element, max", lambda r: str(r.steps_max)),
    ("steps an element, mean", lambda r: f"{r.steps_mean:.2f}"),
    ("steps, proven bound", lambda r: str(r.steps_bound)),
    ("spikes per neuron", lambda r: f"{r.spikes_per_neuron:.3f}"),
    ("of these hand-over", lambda r: f"{r.handover_spikes_per_neuron:.3f}"),
    ("synaptic operations", lambda r: f"{r.synaptic_operations:,.0f}"),
    ("MACs of the float network", lambda r: f"{r.macs:,}"),
    ("operations / MACs", lambda r: f"{r.synaptic_operations / max(r.macs, 1):.2f}"),
    ("accumulators proven in", lambda r: r.integer_type),
    ("spikes", lambda r: r.spike_kind),
    ("analog values", lambda r: r.analog_inputs),
)


def show_results(title: str, results: Sequence[Result]) -> None:
    """One column a network, one row a measure."""
    rows = [[name, *(field(each) for each in results)] for name, field in FIELDS]
    table(title, ["", *(each.recipe for each in results)], rows)
    for each in results:
        if each.by_method:
            table(f"{each.recipe}: {each.metric} by method after so many steps", *_by_method(each))


def _by_method(result: Result) -> tuple[list[str], list[list[str]]]:
    """One column a number of steps, one row a method; then what is lost by the method that was chosen."""
    columns = list(dict.fromkeys(key for values in result.by_method.values() for key in values))
    named = {**result.by_method, "lost": result.loss, "lost, graded": result.loss_graded}
    rows = [
        [name, *(f"{values[key]:.2f}" if key in values else "" for key in columns)]
        for name, values in named.items()
        if values
    ]
    return ["", *columns], rows
