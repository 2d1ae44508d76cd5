"""A picture of all ratios: one self-contained SVG, for light and dark backgrounds (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.report import Measured, Report
from benchmarks.row import FLOOR, OURS
from benchmarks.stats import Summary, format_number

__all__ = ["chart"]

WIDTH: Final = 1040
LEFT: Final = 440  # where the plot begins; labels are left of it
RIGHT: Final = WIDTH - 30
TOP: Final = 140
STEP: Final = 26
BOTTOM: Final = 54

_STYLE: Final = """
svg { background: #ffffff; }
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 17px; font-weight: 600; }
.faint { fill: #59636e; }
.base { stroke: #59636e; stroke-width: 1.5; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.range { stroke-width: 2; opacity: 0.45; }
.ours { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; }
  text { fill: #f0f6fc; }
  .faint { fill: #9198a1; }
  .base { stroke: #9198a1; }
  .grid { stroke: #3d444d; }
}
"""
# Told apart by colour-blind readers too, on white and on black; each has a shape of its own.
_COLOURS: Final = (
    "#0f8a5f",
    "#7a7f87",
    "#3b82d6",
    "#d9730d",
    "#b155c9",
    "#d6453d",
    "#9a7b0a",
    "#1796a8",
    "#c2477f",
    "#5f7d1f",
)
_PATHS: Final = (
    ("M0,-5a5,5 0 1 0 0.01,0z", True),
    ("M-4.5,-4.5h9v9h-9z", True),
    ("M0,-6l6,6l-6,6l-6,-6z", True),
    ("M0,-5.5l5.5,10h-11z", True),
    ("M-4.5,-4.5l9,9m0,-9l-9,9", False),
    ("M0,-5.5v11m-5.5,-5.5h11", False),
    ("M0,5.5l5.5,-10h-11z", True),
    ("M0,-4.5a4.5,4.5 0 1 0 0.01,0z", False),
    ("M-4,-4h8v8h-8z", False),
    ("M0,-5.5l5.5,5.5l-5.5,5.5l-5.5,-5.5z", False),
)
"""Each mark, and whether it is filled."""


class _Scale:
    """A logarithmic axis of whole decades."""

    def __init__(self, values: list[float]) -> None:
        self._low = math.floor(math.log10(min([*values, 0.5])))
        self._high = math.ceil(math.log10(max([*values, 2.0])))

    def x(self, value: float) -> float:
        """Return where a value is."""
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return LEFT + share * (RIGHT - LEFT)

    def ticks(self) -> list[float]:
        """Return the powers of ten."""
        return [10.0**power for power in range(self._low, self._high + 1)]


def chart(report: Report) -> str:
    """Return the picture: a line for each row that has a base, a mark for each contender."""
    rows = [row for row in report.rows if _points(row)]
    names = _names(rows)
    values = [edge for row in rows for point in _points(row).values() for edge in point[1:]]
    scale = _Scale(values)
    height = TOP + STEP * len(rows) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        f"<title>agentscripts: ratios to the floor or to agentscripts</title>"
        f"<style>{_STYLE}</style>",
        _text(20, 32, "How many times as good as the base", "title"),
        _text(20, 54, _subtitle(report), "faint"),
        *_legend(names),
        *_grid(scale, height),
        *(part for n, row in enumerate(rows) for part in _row(row, TOP + STEP * n, scale, names)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _points(row: Measured) -> dict[str, Summary]:
    points = {name: row.times_as_good(name) for name in row.outcomes}
    return {name: point for name, point in points.items() if point and point.minimum > 0}


def _names(rows: list[Measured]) -> list[str]:
    """Return the contenders, the library first, in the order in which they appear."""
    seen = dict.fromkeys(name for row in rows for name in _points(row))
    return sorted(seen, key=lambda name: name != OURS)


def _subtitle(report: Report) -> str:
    machine = report.machine
    return (
        f"{machine.get('date', '')}, Linux {machine.get('kernel', '')}, "
        f"Python {machine.get('python', '')}, {machine.get('cpu_count', '')} cores, "
        f"agentscripts {machine.get('agentscripts', '')}"
    )


def _legend(names: list[str]) -> Iterator[str]:
    x, y = 28.0, 78
    for number, name in enumerate(names):
        width = 34 + 6.8 * len(name)
        if x + width > WIDTH:
            x, y = 28.0, y + 22
        yield _mark(number, x, y)
        yield _text(x + 11, y + 4, name, "ours" if name == OURS else "")
        x += width


def _grid(scale: _Scale, height: int) -> Iterator[str]:
    bottom = height - BOTTOM + 4
    for tick in scale.ticks():
        x = scale.x(tick)
        kind = "base" if tick == 1 else "grid"
        yield f'<line class="{kind}" x1="{x:.1f}" y1="{TOP - 16}" x2="{x:.1f}" y2="{bottom}"/>'
        yield _text(x, bottom + 16, f"{tick:g} ×", "faint", "middle")
    middle = scale.x(1)
    yield _text(middle - 8, bottom + 34, "← worse than the base", "faint", "end")
    yield _text(middle + 8, bottom + 34, "better →", "faint")


def _row(row: Measured, top: float, scale: _Scale, names: list[str]) -> Iterator[str]:
    y = top + STEP / 2
    yield _text(20, y + 4, _shortened(row.what, 58))
    yield _text(LEFT - 12, y + 4, "floor" if row.base == FLOOR else "ours", "faint", "end")
    # The library's own mark lies on top.
    for name, point in sorted(_points(row).items(), key=lambda item: item[0] == OURS):
        number = names.index(name)
        colour = _COLOURS[number % len(_COLOURS)]
        low, high = scale.x(point.minimum), scale.x(point.maximum)
        label = f"{name}: {format_number(point.median)} times as good as {row.base}"
        yield f"<g><title>{escape(label)}</title>"
        yield (
            f'<line class="range" x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" '
            f'stroke="{colour}"/>'
        )
        yield f"{_mark(number, scale.x(point.median), y)}</g>"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _mark(number: int, x: float, y: float) -> str:
    colour = _COLOURS[number % len(_COLOURS)]
    path, is_filled = _PATHS[number % len(_PATHS)]
    paint = f'fill="{colour}"' if is_filled else f'fill="none" stroke="{colour}" stroke-width="2.5"'
    return f'<path transform="translate({x:.1f},{y:.1f})" d="{path}" {paint}/>'
