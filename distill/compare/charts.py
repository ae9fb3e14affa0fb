"""Charts of a comparison as inline SVG: no script, no font and no request; colours are the page's CSS variables.

Every chart carries its description for those who do not see it, and every mark its numbers as a tooltip.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from distill.compare.page import Markup

Role = Literal["undistilled", "control", "teacher"]

WIDTH = 720
COLOURS = 8  # of --c0 to --c7 in distill.compare.page
_DASHES = ("", "6 3", "2 3")  # with the colours they tell apart 24 lines


@dataclass(frozen=True, slots=True)
class Point:
    """A mean with its interval, as one line of a forest plot."""

    label: str
    mean: float
    low: float
    high: float
    role: Role = "teacher"


@dataclass(frozen=True, slots=True)
class Series:
    """A line: a mean at each x, and its interval where `low` and `high` are given (as many as there are xs)."""

    label: str
    xs: Sequence[float]
    means: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of like confidence: its mean, the share of them that is right, and how many they are."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, slots=True)
class _Axis:
    """From values to pixels. A logarithmic axis has its ticks at the values given."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * ((value - low) / (high - low) if high > low else 0.5)


def draw_forest(points: Sequence[Point], title: str, digits: int = 1) -> Markup:
    """Differences and their intervals, one below the other, about a line at 0: right of it is better."""
    left, right, row, top = 210, WIDTH - 170, 28, 8
    bottom = top + row * len(points)
    ticks = choose_ticks(min([0.0, *(p.low for p in points)]), max([0.0, *(p.high for p in points)]))
    x = _Axis(ticks[0], ticks[-1], left, right)
    marks = [_vertical(x.place(tick), top, bottom, "grid") for tick in ticks]
    marks += [_text(x.place(tick), bottom + 16, _number(tick), "tick", "middle") for tick in ticks]
    marks.append(_vertical(x.place(0), top, bottom, "zero"))
    for index, point in enumerate(points):
        y = top + row * (index + 0.5)
        words = f"{point.mean:+.{digits}f} [{point.low:+.{digits}f}, {point.high:+.{digits}f}]"
        marks += [
            _text(left - 12, y + 4, _shorten(point.label, 30), "label", "end"),
            f'<g class="{point.role}">{_tooltip(f"{point.label}: {words}")}'
            f'<line x1="{x.place(point.low):.1f}" x2="{x.place(point.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<rect x="{x.place(point.mean) - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/></g>',
            _text(right + 12, y + 4, words, "value"),
        ]
    return _wrap(marks, bottom + 26, title, "; ".join(f"{p.label} {p.mean:+.{digits}f}" for p in points))


def draw_lines(
    series: Sequence[Series], title: str, x_label: str, y_label: str, logarithmic: bool = False, digits: int = 1
) -> Markup:
    """Lines with a band for the interval where they have one. `logarithmic` is the x axis, with ticks at the xs."""
    left, right, top = 64, WIDTH - 16, 12
    bottom = top + 280
    xs = sorted({x for line in series for x in line.xs})
    heights = [v for line in series for v in (*line.means, *line.low, *line.high) if math.isfinite(v)]
    if not xs or not heights:
        raise ValueError(f"nothing to draw: {title}")
    x_ticks = xs if logarithmic or len(xs) <= 8 else choose_ticks(xs[0], xs[-1])
    y_ticks = choose_ticks(min(heights), max(heights))
    x = _Axis(min(xs[0], x_ticks[0]), max(xs[-1], x_ticks[-1]), left, right, logarithmic)
    y = _Axis(y_ticks[0], y_ticks[-1], bottom, top)
    marks = []
    for tick in y_ticks:
        marks += [
            _horizontal(y.place(tick), left, right, "grid"),
            _text(left - 8, y.place(tick) + 4, _number(tick), "tick", "end"),
        ]
    marks += [_text(x.place(tick), bottom + 18, _number(tick), "tick", "middle") for tick in x_ticks]
    marks.append(_text((left + right) / 2, bottom + 38, x_label, "axis", "middle"))
    marks.append(_upright(14, (top + bottom) / 2, y_label))
    bands, lines = [], []
    for index, line in enumerate(series):
        style = f'style="--c: var(--c{index % COLOURS})" stroke-dasharray="{_DASHES[index // COLOURS % 3]}"'
        places = [(x.place(a), y.place(b)) for a, b in zip(line.xs, line.means, strict=True) if math.isfinite(b)]
        path = _join(places)
        if line.low:
            edge = [(x.place(a), y.place(b)) for a, b in zip(line.xs, line.high, strict=True)]
            edge += [(x.place(a), y.place(b)) for a, b in reversed([*zip(line.xs, line.low, strict=True)])]
            bands.append(f'<polygon class="band" {style} points="{_join(edge)}"/>')
        dots = "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"><title>{escape(line.label)}, {_number(v)}: {m:.{digits}f}</title>'
            "</circle>"
            for (a, b), v, m in zip(places, line.xs, line.means, strict=False)
        )
        lines.append(f'<g class="line" {style}><polyline points="{path}"/>{dots if len(places) <= 40 else ""}</g>')
    legend, below = _draw_legend([line.label for line in series], left, bottom + 62)
    return _wrap([*marks, *bands, *lines, *legend], below, title, ", ".join(line.label for line in series))


def draw_reliability(groups: Sequence[tuple[str, Sequence[Bin]]], title: str) -> Markup:
    """Share of right answers by confidence, one line a group; on the dotted line confidence is what it says.

    The area of a dot goes with the number of rows.
    """
    left, top, side = 64, 12, 300
    x, y = _Axis(0, 1, left, left + side), _Axis(0, 1, top + side, top)
    marks = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        marks += [
            _horizontal(y.place(tick), left, left + side, "grid"),
            _text(left - 8, y.place(tick) + 4, f"{tick:g}", "tick", "end"),
            _text(x.place(tick), top + side + 18, f"{tick:g}", "tick", "middle"),
        ]
    marks.append(
        f'<line class="zero" stroke-dasharray="2 4" x1="{left}" y1="{top + side}" x2="{left + side}" y2="{top}"/>'
    )
    marks.append(_text(left + side / 2, top + side + 38, "confidence", "axis", "middle"))
    marks.append(_upright(14, top + side / 2, "accuracy"))
    most = max((b.count for _, bins in groups for b in bins), default=1)
    for index, (label, bins) in enumerate(groups):
        style = f'style="--c: var(--c{index % COLOURS})" stroke-dasharray="{_DASHES[index // COLOURS % 3]}"'
        filled = [b for b in bins if b.count]
        dots = "".join(
            f'<circle cx="{x.place(b.confidence):.1f}" cy="{y.place(b.accuracy):.1f}" '
            f'r="{2 + 7 * math.sqrt(b.count / most):.1f}" fill-opacity=".6">'
            f"<title>{escape(label)}: {b.accuracy:.0%} of {b.count:,} rows at {b.confidence:.0%}</title></circle>"
            for b in filled
        )
        path = _join([(x.place(b.confidence), y.place(b.accuracy)) for b in filled])
        marks.append(f'<g class="line" {style}><polyline points="{path}"/>{dots}</g>')
    legend, _ = _draw_legend([label for label, _ in groups], left + side + 32, top + 12, columns=1)
    return _wrap([*marks, *legend], max(top + side + 48, top + 12 + 22 * len(groups)), title, "confidence and accuracy")


def draw_confusion(counts: Sequence[Sequence[float]], labels: Sequence[str], title: str) -> Markup:
    """Counts by true label (down) and predicted one (across); the shade is the share of the true label's rows."""
    left, top, side = 150, 34, 64
    marks = [_text(left + side * len(labels) / 2, 12, "predicted", "axis", "middle")]
    for row, (label, line) in enumerate(zip(labels, counts, strict=True)):
        y = top + side * row
        marks.append(_text(left - 10, y + side / 2 + 4, _shorten(label, 18), "label", "end"))
        marks.append(_text(left + side * (row + 0.5), top - 6, _shorten(label, 9), "tick", "middle"))
        for column, count in enumerate(line):
            share = count / (sum(line) or 1)
            marks.append(
                f'<g class="cell">{_tooltip(f"{label} called {labels[column]}: {count:,.1f} rows, {share:.0%}")}'
                f'<rect x="{left + side * column}" y="{y}" width="{side - 2}" height="{side - 2}" '
                f'fill-opacity="{0.06 + 0.6 * share:.2f}"/>'
                + _text(left + side * (column + 0.5), y + side / 2 + 4, f"{count:,.0f}", "value", "middle")
                + "</g>"
            )
    width = max(left + side * len(labels) + 10, 300)
    return _wrap(marks, top + side * len(labels) + 8, title, "true labels down, predicted ones across", width)


def choose_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values at equal distances that cover `low` to `high`: 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _draw_legend(labels: Sequence[str], left: float, top: float, columns: int = 3) -> tuple[list[str], float]:
    """The legend's marks, and where it ends."""
    width = (WIDTH - 16 - left) / columns
    marks = []
    for index, label in enumerate(labels):
        x, y = left + width * (index % columns), top + 22 * (index // columns)
        style = f'style="--c: var(--c{index % COLOURS})" stroke-dasharray="{_DASHES[index // COLOURS % 3]}"'
        marks.append(f'<g class="line" {style}><line x1="{x:.1f}" x2="{x + 22:.1f}" y1="{y}" y2="{y}"/></g>')
        marks.append(_text(x + 28, y + 4, _shorten(label, int((width - 30) / 7)), "label"))
    return marks, top + 22 * math.ceil(len(labels) / columns)


def _wrap(marks: Iterable[str], height: float, title: str, description: str, width: float = WIDTH) -> Markup:
    return Markup(
        f'<div class="chart"><svg viewBox="0 0 {width:g} {height:g}" style="max-width: {width:g}px" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(marks)}</svg></div>"
    )


def _text(x: float, y: float, words: str, style: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _upright(x: float, y: float, words: str) -> str:
    place = f"translate({x:g} {y:g}) rotate(-90)"
    return f'<text class="axis" text-anchor="middle" transform="{place}">{escape(words)}</text>'


def _tooltip(words: str) -> str:
    return f"<title>{escape(words)}</title>"


def _vertical(x: float, top: float, bottom: float, style: str) -> str:
    return f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'


def _horizontal(y: float, left: float, right: float, style: str) -> str:
    return f'<line class="{style}" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _join(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _number(value: float) -> str:
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")


def _shorten(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1] + "…"
