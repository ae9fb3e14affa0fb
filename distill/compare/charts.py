"""The report's charts as inline SVG. Colours are classes of the page's style sheet, so that they follow its theme.

A forest plot is as wide as the page and its text as large as the page's. Line charts are scaled, and drawn narrow, so
that a telephone shows them whole and legible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 12, 48  # what a line chart leaves for its axes


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a forest plot: an interval around a value, and the class that colours it."""

    name: str
    value: float
    low: float
    high: float
    style: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a line chart: points (x, y), the class that colours it, and a band (low, high) around each point."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """Where on the page, from `start` to `end`, a value from `low` to `high` stands."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Give the place of a value; one outside stands at the end."""
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) / ((self.high - self.low) or 1) * (self.end - self.start)


def draw_forest(bars: Sequence[Bar], caption: str, span: tuple[float, float]) -> str:
    """Draw intervals one below the other, each below its name and figures, and a line at 0.

    `span` is the axis's range, the same for a page's plots.
    """
    scale = Scale(*span, 5, 95)  # percent of the width
    ticks = make_ticks(*span, most=6)
    grid = "".join(_draw_upright("grid", scale.place(tick)) for tick in ticks) + _draw_upright("zero", scale.place(0))
    names = "".join(
        f'<text class="tick" x="{scale.place(tick):.2f}%" y="13" text-anchor="middle">{tick:+g}</text>'
        for tick in ticks
    )
    rows = "".join(_draw_bar(bar, scale, grid) for bar in bars)
    return (
        f'<figure class="chart forest"><figcaption>{escape(caption)}</figcaption><ul>{rows}</ul>'
        f'<svg class="strip" height="18" aria-hidden="true">{names}</svg></figure>'
    )


def _draw_bar(bar: Bar, scale: Scale, grid: str) -> str:
    low, high, value = (f"{scale.place(each):.2f}%" for each in (bar.low, bar.high, bar.value))
    return (
        f"<li><span>{escape(bar.name)}</span> <span>{bar.value:+.3f} "
        f"<small>({bar.low:+.3f} to {bar.high:+.3f})</small></span>"
        f'<svg class="strip" height="18" aria-hidden="true">{grid}'
        f'<line class="whisker {bar.style}" x1="{low}" x2="{high}" y1="9" y2="9"/>'
        f'<circle class="dot {bar.style}" cx="{value}" cy="9" r="5"/></svg></li>'
    )


def _draw_upright(style: str, place: float) -> str:
    return f'<line class="{style}" x1="{place:.2f}%" x2="{place:.2f}%" y1="0" y2="100%"/>'


def draw_lines(
    lines: Sequence[Line],
    caption: str,
    x_title: str,
    y_title: str,
    x_names: Mapping[float, str],
    diagonal: bool = False,
) -> str:
    """Draw a line chart. `x_names` are the ticks of the x axis; `diagonal` adds the line x = y."""
    xs = [*x_names, *(x for line in lines for x, _ in line.points)]
    ys = [y for line in lines for y in (*(y for _, y in line.points), *(end for ends in line.band for end in ends))]
    across = Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = Scale(*((0.0, 1.0) if diagonal else pad_span(min(ys), max(ys))), HEIGHT - BOTTOM, TOP)
    parts = [_draw_axes(across, up, x_title, y_title, x_names)]
    if diagonal:
        ends = f'x1="{across.place(0)}" y1="{up.place(0)}" x2="{across.place(1)}" y2="{up.place(1)}"'
        parts.append(f'<line class="zero" {ends}/>')
    parts += [_draw_band(line, across, up) for line in lines if line.band]
    parts += [_draw_line(line, across, up) for line in lines]
    label = escape(caption, quote=True)
    return (
        f'<figure class="chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}'
        f"</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _draw_axes(across: Scale, up: Scale, x_title: str, y_title: str, x_names: Mapping[float, str]) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up.place(tick):.1f}" y2="{up.place(tick):.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{up.place(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in make_ticks(up.low, up.high)
    ]
    parts += [
        f'<text class="tick" x="{across.place(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
        f"{escape(name)}</text>"
        for x, name in x_names.items()
    ]
    parts += [
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_title)}</text>",
        f'<text class="tick" x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escape(y_title)}</text>",
    ]
    return "".join(parts)


def _draw_band(line: Line, across: Scale, up: Scale) -> str:
    xs = [x for x, _ in line.points]
    upper = [(x, high) for x, (_, high) in zip(xs, line.band, strict=True)]
    lower = [(x, low) for x, (low, _) in zip(xs, line.band, strict=True)]
    return f'<polygon class="band {line.style}" points="{_join_points([*upper, *reversed(lower)], across, up)}"/>'


def _draw_line(line: Line, across: Scale, up: Scale) -> str:
    dots = "".join(
        f'<circle class="dot {line.style}" cx="{across.place(x):.1f}" cy="{up.place(y):.1f}" r="3.5">'
        f"<title>{escape(line.name)}: {y:.3f}</title></circle>"
        for x, y in line.points
    )
    return f'<polyline class="line {line.style}" points="{_join_points(line.points, across, up)}"/>{dots}'


def _join_points(points: Sequence[tuple[float, float]], across: Scale, up: Scale) -> str:
    return " ".join(f"{across.place(x):.1f},{up.place(y):.1f}" for x, y in points)


def draw_legend(entries: Sequence[tuple[str, str]]) -> str:
    """Draw names with their lines; each entry is a name and a class."""
    items = "".join(f'<li><i class="key {style}"></i>{escape(name)}</li>' for name, style in entries)
    return f'<ul class="legend">{items}</ul>'


def make_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Make round numbers between two others, about five, and at most `most` of them."""
    span = high - low
    step = min((1, 2, 5, 10), key=lambda m: abs(span / 5 - m * 10 ** _magnitude(span / 5))) * 10 ** _magnitude(span / 5)
    first = int(low / step) - 1
    ticks = (round((first + i) * step, 10) for i in range(int(span / step) + 4))
    found = [tick + 0.0 for tick in ticks if low <= tick <= high]
    return found if len(found) <= most else [tick for tick in found if round(tick / step) % 2 == 0]


def pad_span(low: float, high: float) -> tuple[float, float]:
    """Give a range some air."""
    air = (high - low) * 0.08 or 0.05
    return low - air, high + air


def _magnitude(value: float) -> int:
    return floor(log10(value))
