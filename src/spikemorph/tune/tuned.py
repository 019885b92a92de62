"""The outcome of a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

from spikemorph.convert.network import SpikingNetwork
from spikemorph.tune.candidates import Candidate
from spikemorph.tune.config import Prefer, Search
from spikemorph.tune.judge import Reading

SLACK = 1e-9


@final
@dataclass(frozen=True)
class Point:
    """One way, read after some steps or at rest."""

    candidate: Candidate
    reading: Reading

    def __str__(self) -> str:
        read = self.reading.steps
        return f"{self.candidate}, {'at rest' if read is None else f'after {read} steps'}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": str(self), **self.candidate.to_dict(), **asdict(self.reading)}

    def keeps(self, search: Search) -> bool:
        """Whether it is within the bounds."""
        loss, steps = search.max_loss, search.max_steps
        lossy = loss is not None and self.reading.loss > loss + SLACK
        slow = steps is not None and self.reading.steps_max > steps
        return not lossy and not slow

    def worth(self, search: Search) -> tuple[float, ...]:
        """The order among points that keep to the bounds, best first."""
        found = self.reading
        cost = (self.cost(search.prefer), found.joules, found.steps_max, found.spikes_per_neuron)
        lost = max(found.loss, 0.0)  # to be right more often than the float network is luck
        return (*cost, lost, found.error) if search.max_loss is not None else (lost, found.error, *cost)

    def cost(self, prefer: Prefer) -> float:
        """What is to be little."""
        match prefer:
            case Prefer.JOULES:
                return self.reading.joules
            case Prefer.STEPS:
                return self.reading.steps_max
            case Prefer.SPIKES:
                return self.reading.spikes_per_neuron


@final
@dataclass(frozen=True)
class Tuned:
    """What was found.

    Args:
        points: everything that was judged.
        chosen: the best that keeps to the bounds, None where nothing does.
        nearest: what comes closest to them; `chosen` where there is one.
        network: of `chosen`.
        levels: module -> levels of a chosen lossless network; "" of whatever has no module of its own.
        measure: what a loss is: of accuracy, agreement, or squared error.
        float_value: accuracy of the float network in percent, on the samples held out.
        calibrated, held_out: samples that calibrated, and others that judged.
        apart: whether those that judged were given for it, not held out from the samples.
        judged, recalled: how many answers were worked out now, and were in the journal.
        notes: what was left out, and why.
    """

    search: Search
    points: tuple[Point, ...]
    chosen: Point | None
    nearest: Point
    network: SpikingNetwork | None
    levels: Mapping[str, int] | None
    measure: str
    float_value: float
    calibrated: int
    held_out: int
    judged: int
    recalled: int
    apart: bool = False
    notes: tuple[str, ...] = ()

    @property
    def front(self) -> tuple[Point, ...]:
        """The points that no other beats in loss, steps, spikes and joules at once; by loss, rising."""
        return front(self.points)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "max_loss": self.search.max_loss,
            "max_steps": self.search.max_steps,
            "prefer": self.search.prefer.value,
            "measure": self.measure,
            "float": self.float_value,
            "calibration_samples": self.calibrated,
            "held_out_samples": self.held_out,
            "judges_given": self.apart,
            "cost_model": self.search.model.name,
            "chosen": None if self.chosen is None else self.chosen.to_dict(),
            "nearest": self.nearest.to_dict(),
            "levels": None if self.levels is None else dict(self.levels),
            "front": [str(point) for point in self.front],
            "points": [point.to_dict() for point in self.points],
            "judged": self.judged,
            "recalled": self.recalled,
            "notes": list(self.notes),
        }


def front(points: Iterable[Point]) -> tuple[Point, ...]:
    """Those that no other point beats: nowhere worse, somewhere better."""
    rows: dict[tuple[float, ...], Point] = {}
    for point in points:
        found = point.reading
        rows.setdefault((found.loss, found.steps_max, found.spikes_per_neuron, found.joules), point)

    def beaten(row: tuple[float, ...]) -> bool:
        return any(other != row and all(a <= b for a, b in zip(other, row, strict=True)) for other in rows)

    return tuple(rows[row] for row in sorted(rows) if not beaten(row))


def nearest(points: Iterable[Point], search: Search) -> Point:
    """The point that is least beyond the bounds, steps before loss."""

    def beyond(point: Point) -> tuple[float, ...]:
        over = 0 if search.max_steps is None else max(0, point.reading.steps_max - search.max_steps)
        lost = 0.0 if search.max_loss is None else max(0.0, point.reading.loss - search.max_loss)
        return over, lost, *point.worth(search)

    return min(points, key=beyond)
