"""Figures by night as small inline pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field

COLOURS = 6  # classes c0 to c5 of the page's style
DASHES = ("none", "7 3", "2 3", "9 3 2 3")


@dataclass
class Line:
    """One line of a chart; ``said`` is what it shows, in words."""

    name: str
    said: str
    colour: int
    dash: str
    points: str
    last: tuple[float, float]


@dataclass
class Chart:
    """What the template needs to draw lines over days."""

    width: int
    height: int
    left: float
    right: float
    lower: float
    lines: list[Line] = field(default_factory=list)
    ticks: list[tuple[str, float]] = field(default_factory=list)
    days: list[tuple[str, float, str]] = field(default_factory=list)


def chart(lines: Sequence[tuple[str, Sequence[tuple[str, float]]]], unit: str, width: int = 720, height: int = 220) -> Chart | None:
    """Lines over days; None if no line has two points.

    Args:
        lines: (name, [(day, value from 0 up)]) for each line, the days in order.
        unit: what stands behind a value, such as ``s``.
    """
    drawn = [(name, points) for name, points in lines if len(points) > 1]
    if not drawn:
        return None
    days = sorted({day for _, points in drawn for day, _ in points})
    top = nice_ceiling(max(value for _, points in drawn for _, value in points))
    left, right, upper, lower = 56, width - 12, 12, height - 30
    x_of = {day: left + (right - left) * number / max(len(days) - 1, 1) for number, day in enumerate(days)}
    found = Chart(width, height, left, right, lower)
    for number, (name, points) in enumerate(drawn):
        placed = [(x_of[day], lower - (lower - upper) * value / top) for day, value in points]
        values = [value for _, value in points]
        said = f"{values[-1]:.3g} {unit} on {points[-1][0]}; {min(values):.3g} to {max(values):.3g} {unit} on {len(points)} nights"
        dash = DASHES[number // COLOURS % len(DASHES)]
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        found.lines.append(Line(name, said, number % COLOURS, dash, text, placed[-1]))
    found.ticks = [(f"{top * part / 4:g}", lower - (lower - upper) * part / 4) for part in range(5)]
    found.days = [(days[0], left, "start"), (days[-1], right, "end")] if len(days) > 1 else [(days[0], left, "start")]
    return found


def spark(values: Sequence[float | None], width: int = 180, height: int = 26, mark: float = 1.0) -> tuple[str, str, float]:
    """A line as small as a word: (the SVG path, the place of its last point as ``x,y``, the height of the mark).

    ``None`` leaves a gap. The scale begins at 0 and holds the mark and all values.
    """
    known = [value for value in values if value is not None]
    top = 1.1 * max([mark, *known])
    path, last, pen = [], "", "M"
    for number, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        x = 2 + (width - 6) * number / max(len(values) - 1, 1)
        last = f"{x:.1f},{height - 2 - (height - 4) * value / top:.1f}"
        path.append(f"{pen}{last}")
        pen = "L"
    return "".join(path), last, round(height - 2 - (height - 4) * mark / top, 1)


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 4, 5, 8 times a power of ten, from 0.001 up."""
    power = 0.001
    while True:
        for factor in (1, 2, 4, 5, 8):
            if factor * power >= value:
                return factor * power
        power *= 10
