"""The report's charts as inline SVG. Colours are classes of the page's style sheet, so that they follow its theme."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

WIDTH = 720


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
    """One line of a line chart: points (x, y), and the class that colours it."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str


def draw_forest(bars: Sequence[Bar], title: str, span: tuple[float, float]) -> str:
    """Draw intervals one below the other, and a line at 0. `span` is the axis's range, the same for a page's plots."""
    left, right, top, row = 170, 90, 8, 26
    height = top + row * len(bars) + 34
    low, high = span

    def place(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (WIDTH - left - right)

    bottom = top + row * len(bars)
    parts = [
        f'<line class="grid" x1="{place(tick):.1f}" x2="{place(tick):.1f}" y1="{top}" y2="{bottom}"/>'
        f'<text class="tick" x="{place(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:+g}</text>'
        for tick in make_ticks(low, high)
    ]
    parts.append(f'<line class="zero" x1="{place(0):.1f}" x2="{place(0):.1f}" y1="{top}" y2="{bottom}"/>')
    for index, bar in enumerate(bars):
        y = top + row * (index + 0.5)
        parts.append(
            f'<text class="name" x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(bar.name)}</text>'
            f'<line class="whisker {bar.style}" y1="{y}" y2="{y}" x1="{place(bar.low):.1f}" '
            f'x2="{place(bar.high):.1f}"/>'
            f'<circle class="dot {bar.style}" cx="{place(bar.value):.1f}" cy="{y}" r="5"/>'
            f'<text class="value" x="{WIDTH - right + 12}" y="{y + 4:.1f}">{bar.value:+.3f}</text>'
            f"<title>{escape(bar.name)}: {bar.value:+.3f} ({bar.low:+.3f} to {bar.high:+.3f})</title>"
        )
    return _frame(title, height, parts)


def draw_lines(
    lines: Sequence[Line], title: str, x_title: str, y_title: str, x_names: Mapping[float, str], diagonal: bool = False
) -> str:
    """Draw a line chart. `x_names` are the ticks of the x axis; `diagonal` adds the line x = y."""
    left, right, top, bottom, height = 56, 24, 12, 44, 320
    xs = [*x_names, *(x for line in lines for x, _ in line.points)]
    ys = [y for line in lines for _, y in line.points]
    low_x, high_x = min(xs), max(xs)
    low, high = (0.0, 1.0) if diagonal else pad_span(min(ys), max(ys))

    def across(value: float) -> float:
        return left + (value - low_x) / ((high_x - low_x) or 1) * (WIDTH - left - right)

    def up(value: float) -> float:
        return height - bottom - (value - low) / (high - low) * (height - bottom - top)

    parts = [
        f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        f'<text class="tick" x="{left - 8}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in make_ticks(low, high)
    ]
    parts += [
        f'<text class="tick" x="{across(x):.1f}" y="{height - bottom + 18}" text-anchor="middle">{escape(name)}</text>'
        for x, name in x_names.items()
    ]
    parts.append(
        f'<text class="tick" x="{(left + WIDTH - right) / 2}" y="{height - 6}" text-anchor="middle">'
        f"{escape(x_title)}</text>"
        f'<text class="tick" x="14" y="{(top + height - bottom) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(top + height - bottom) / 2})">{escape(y_title)}</text>'
    )
    if diagonal:
        parts.append(f'<line class="zero" x1="{across(0)}" y1="{up(0)}" x2="{across(1)}" y2="{up(1)}"/>')
    for line in lines:
        points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline class="line {line.style}" points="{points}"/>')
        parts += [
            f'<circle class="dot {line.style}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3.5">'
            f"<title>{escape(line.name)}: {y:.3f}</title></circle>"
            for x, y in line.points
        ]
    return _frame(title, height, parts)


def draw_legend(entries: Sequence[tuple[str, str]]) -> str:
    """Draw names with their colours; each entry is a name and a class."""
    items = "".join(f'<li><i class="key {style}"></i>{escape(name)}</li>' for name, style in entries)
    return f'<ul class="legend">{items}</ul>'


def make_ticks(low: float, high: float) -> list[float]:
    """Make round numbers between two others, about five."""
    span = high - low
    step = min((1, 2, 5, 10), key=lambda m: abs(span / 5 - m * 10 ** _magnitude(span / 5))) * 10 ** _magnitude(span / 5)
    first = int(low / step) - 1
    ticks = (round((first + i) * step, 10) for i in range(int(span / step) + 4))
    return [tick + 0.0 for tick in ticks if low <= tick <= high]


def pad_span(low: float, high: float) -> tuple[float, float]:
    """Give a range some air."""
    air = (high - low) * 0.08 or 0.05
    return low - air, high + air


def _magnitude(value: float) -> int:
    return floor(log10(value))


def _frame(title: str, height: float, parts: Sequence[str]) -> str:
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
