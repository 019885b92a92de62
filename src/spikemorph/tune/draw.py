"""The trade-off as a drawing: SVG for files, characters for terminals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from spikemorph.tune.tuned import Point, Tuned

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, GAP = 860, 400, 60, 50, 60, 60
COLOURS = {"lossless": "#2a7f62", "training-free": "#3b5fa8", "rate": "#b5532b"}
MARKS = {"lossless": "o", "training-free": "x", "rate": "+"}
TICKS = (0.0, 0.5, 1, 2, 5, 10, 20, 50, 100)

Scale = Callable[[float], float]


def svg(tuned: Tuned) -> str:
    """Loss over steps and over energy, the front as a line, the chosen one ringed."""
    panel = (WIDTH - 2 * LEFT - GAP) // 2
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="10" y="20" font-size="14">{escape(_title(tuned))}</text>',
    ]
    for place, (family, colour) in enumerate(COLOURS.items()):
        x = LEFT + 120 * place
        drawn.append(f'<circle cx="{x}" cy="36" r="4" fill="{colour}"/>')
        drawn.append(f'<text x="{x + 10}" y="40">{family}</text>')
    steps = ("steps, largest", lambda point: float(point.reading.steps_max))
    joules = (f"joules a sample, {tuned.search.model.name}", lambda point: float(point.reading.joules))
    for place, (words, value) in enumerate((steps, joules)):
        drawn += _panel(tuned, words, value, LEFT + place * (panel + GAP), panel)
    return "\n".join([*drawn, "</svg>"]) + "\n"


def _title(tuned: Tuned) -> str:
    words = {"accuracy": "points of accuracy lost", "agreement": "percent of top classes that differ"}
    return f"{words.get(tuned.measure, 'percent of squared error')}, {tuned.held_out} samples held out"


def _panel(tuned: Tuned, words: str, value: Callable[[Point], float], left: int, width: int) -> list[str]:
    low, high = _ends([value(point) for point in tuned.points])
    most = max(_log(point.reading.loss) for point in tuned.points) or 1.0

    def x(number: float) -> float:
        return left + width * (math.log10(max(number, low)) - math.log10(low)) / math.log10(high / low)

    def y(loss: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * _log(loss) / most

    drawn = _axes(words, (low, high), (x, y), left, width)
    bound = tuned.search.max_loss
    if bound is not None and _log(bound) <= most:
        line = f'<line x1="{left}" y1="{y(bound):.1f}" x2="{left + width}" y2="{y(bound):.1f}"'
        drawn.append(f'{line} stroke="#222" stroke-dasharray="4 3"/>')
    best = _staircase(tuned.points, value)
    path = " ".join(f"{x(value(point)):.1f},{y(point.reading.loss):.1f}" for point in best)
    drawn.append(f'<polyline points="{path}" fill="none" stroke="#999"/>')
    for point in tuned.points:
        at = f'cx="{x(value(point)):.1f}" cy="{y(point.reading.loss):.1f}"'
        title = f"<title>{escape(f'{point}: {point.reading.loss:.3g}')}</title>"
        drawn.append(f'<circle {at} r="3.5" fill="{COLOURS[point.candidate.family]}">{title}</circle>')
        if point == tuned.chosen:
            drawn.append(f'<circle {at} r="8" fill="none" stroke="#222" stroke-width="2"/>')
    return drawn


def _axes(
    words: str, ends: tuple[float, float], scales: tuple[Scale, Scale], left: int, width: int
) -> list[str]:
    (low, high), (x, y) = ends, scales
    floor = HEIGHT - BOTTOM
    drawn = [
        f'<text x="{left + width / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(words)}</text>'
    ]
    for tick in TICKS:
        if y(tick) >= TOP - 1:
            up, right = y(tick), left + width
            drawn += [
                f'<line x1="{left}" y1="{up:.1f}" x2="{right}" y2="{up:.1f}" stroke="#ddd"/>',
                f'<text x="{left - 6}" y="{up + 4:.1f}" text-anchor="end">{tick:g}</text>',
            ]
    decades = math.log10(high / low)
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for digit in (1, 2, 5) if decades < 2 else (1,):
            tick = digit * 10.0**power
            if low <= tick <= high:
                drawn += [
                    f'<line x1="{x(tick):.1f}" y1="{TOP}" x2="{x(tick):.1f}" y2="{floor}" stroke="#eee"/>',
                    f'<text x="{x(tick):.1f}" y="{floor + 16}" text-anchor="middle">{tick:g}</text>',
                ]
    return drawn


def _staircase(points: Sequence[Point], value: Callable[[Point], float]) -> list[Point]:
    """The least loss for at most so much of the value."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (value(point), point.reading.loss)):
        if not best or point.reading.loss < best[-1].reading.loss:
            best.append(point)
    return best


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """A logarithmic axis around these; zeros stand at its low end."""
    above = [each for each in values if each > 0] or [1.0]
    return min(above) / 1.2, max(above) * 1.2


def _log(loss: float) -> float:
    return math.log1p(max(loss, 0.0))


def text(tuned: Tuned, *, width: int = 60, height: int = 14) -> str:
    """Loss over joules in characters; "@" is the chosen one."""
    low, high = _ends([point.reading.joules for point in tuned.points])
    most = max(_log(point.reading.loss) for point in tuned.points) or 1.0
    grid = [[" "] * width for _ in range(height)]

    def put(point: Point, mark: str) -> None:
        across = math.log(max(point.reading.joules, low) / low) / math.log(high / low)
        up = _log(point.reading.loss) / most
        grid[height - 1 - round(up * (height - 1))][min(round(across * width), width - 1)] = mark

    for point in tuned.points:
        put(point, MARKS[point.candidate.family])
    if tuned.chosen is not None:
        put(tuned.chosen, "@")
    losses = [math.expm1(most * (height - 1 - row) / (height - 1)) for row in range(height)]
    lines = [f"{loss:7.2f} |{''.join(row)}" for loss, row in zip(losses, grid, strict=True)]
    ends = f"{low:.2g} J".ljust(width - 8) + f"{high:.2g} J".rjust(8)
    marks = ", ".join(f"{mark} {family}" for family, mark in MARKS.items())
    return "\n".join([
        _title(tuned),
        *lines,
        " " * 8 + "+" + "-" * width,
        " " * 9 + ends,
        f"{marks}, @ chosen",
    ])
