"""One self-contained HTML page: nothing is fetched, nothing runs, light and dark as the reader's system has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Nothing may be loaded but what stands in the page itself.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

# Okabe and Ito's colours, which the colour-blind tell apart, darker or lighter to stand out from the background.
_STYLE = """
:root { color-scheme: light dark;
  --paper: #fff; --ink: #1c1e21; --muted: #5f6670; --rule: #dfe2e6; --wash: #f5f6f8; --good: #00795a; --bad: #b3420c;
  --c0: #0072b2; --c1: #d55e00; --c2: #00795a; --c3: #b0478a; --c4: #8a6d00; --c5: #3a86c8; --c6: #6b4ea0; --c7: #555; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15171a; --ink: #e6e8eb; --muted: #9aa2ad; --rule: #33383f; --wash: #1e2125; --good: #35c49b; --bad: #f08a4b;
  --c0: #56b4e9; --c1: #f08a4b; --c2: #35c49b; --c3: #e08bc0; --c4: #e6c229; --c5: #8ecaf5; --c6: #b49cf0;
  --c7: #bbb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 58rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
h1 { font-size: 1.25rem; font-weight: 600; color: var(--muted); margin: 0 0 .75rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
p { max-width: 46rem; margin: .5rem 0; }
.verdict { font-size: 1.35rem; line-height: 1.4; padding: 1rem 1.2rem; border-left: 5px solid var(--c0);
  background: var(--wash); max-width: none; }
.lead { color: var(--muted); }
.chart, .wide { overflow-x: auto; margin: .75rem 0; }
svg { width: 100%; min-width: 34rem; height: auto; display: block; font-size: 13px; }
svg text { fill: var(--ink); } svg .tick, svg .axis { fill: var(--muted); }
svg .grid { stroke: var(--rule); } svg .zero { stroke: var(--muted); stroke-width: 1.5; }
svg .teacher { stroke: var(--c0); fill: var(--c0); stroke-width: 2; }
svg .control { stroke: var(--c1); fill: var(--c1); stroke-width: 2; }
svg .undistilled { stroke: var(--muted); fill: var(--muted); stroke-width: 2; }
svg .line { stroke: var(--c); fill: var(--c); stroke-width: 2; } svg polyline { fill: none; }
svg circle { stroke: none; } svg .band { fill: var(--c); fill-opacity: .1; stroke: none; }
svg .cell rect { fill: var(--c0); } svg .value { font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; white-space: nowrap; } td.number, th.number { text-align: right; white-space: nowrap; }
td img { display: block; max-width: 16rem; height: auto; border: 1px solid var(--rule); background: #fff; }
code, pre { font-family: ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; font-size: .85em; }
pre { background: var(--wash); padding: .8rem 1rem; overflow-x: auto; } td code { overflow-wrap: anywhere; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 0 1.5rem; }
.grid2 svg { min-width: 0; }
summary { cursor: pointer; color: var(--c0); } details { margin: .75rem 0; }
"""


@dataclass(frozen=True, slots=True)
class Markup:
    """HTML that is ready to stand in a page: it is not escaped again."""

    html: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, what is to be seen below it in a sentence or two of plain text, and its content."""

    heading: str
    lead: str
    content: Markup


def make_page(title: str, verdict: str, sections: Sequence[Section]) -> str:
    """The whole document. `title` and `verdict` are plain text."""
    body = "".join(
        f"<section><h2>{escape(section.heading)}</h2>"
        + (f'<p class="lead">{escape(section.lead)}</p>' if section.lead else "")
        + f"{section.content.html}</section>"
        for section in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f'<body><h1>{escape(title)}</h1><p class="verdict">{escape(verdict)}</p>{body}</body></html>\n'
    )


def make_table(header: Sequence[str], rows: Sequence[Sequence[str | int | float | Markup]], digits: int = 3) -> Markup:
    """A table; numbers stand to the right, floats with that many digits."""

    def cell(value: str | int | float | Markup) -> str:
        if isinstance(value, Markup):
            return f"<td>{value.html}</td>"
        if isinstance(value, str):
            return f"<td>{escape(value)}</td>"
        return (
            f'<td class="number">{value:,.{digits}f}</td>'
            if isinstance(value, float)
            else (f'<td class="number">{value:,}</td>')
        )

    numeric = [
        bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))
    ]
    head = "".join(
        f'<th class="number">{escape(name)}</th>' if right else f"<th>{escape(name)}</th>"
        for name, right in zip(header, numeric, strict=True)
    )
    lines = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return Markup(f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>')


def join(*parts: Markup | str) -> Markup:
    """Several pieces below one another; plain text becomes a paragraph."""
    return Markup("".join(p.html if isinstance(p, Markup) else f"<p>{escape(p)}</p>" for p in parts))


def fold(summary: str, content: Markup) -> Markup:
    """What stands behind a line to click."""
    return Markup(f"<details><summary>{escape(summary)}</summary>{content.html}</details>")
