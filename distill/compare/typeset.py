"""A table of the report as HTML, with a copy in LaTeX (booktabs) and one in Markdown. No text in it is markup."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from shared.markdown import escape_markdown, put_on_line

_LATEX: Mapping[str, str] = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"},
    **{"<": "$<$", ">": "$>$", "|": "\\textbar{}", "±": "$\\pm$", '"': "''"},
    **{"[": "{[}", "]": "{]}", "*": "{*}"},  # after the end of a row LaTeX reads these as an argument
    **{"“": "``", "”": "''", "’": "'", "…": "\\ldots{}", "·": "$\\cdot$"},
}
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")
_HYPHENS = re.compile("-(?=-)")  # two in a row would be set as one dash


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in one place of a table; the `best` of its column is bold."""

    text: str
    best: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its caption. The first `texts` columns are words, and stand left; the others are numbers."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    texts: int = 1


def make_entries(texts: Sequence[str], best: Sequence[int] = ()) -> tuple[Entry, ...]:
    """Make a row; `best` are the numbers of the columns that are bold in it."""
    return tuple(Entry(text, number in best) for number, text in enumerate(texts))


def drop_empty(table: Table) -> Table:
    """Drop the columns of numbers in which nothing stands."""
    kept = [i for i in range(len(table.heads)) if i < table.texts or any(row[i].text for row in table.rows)]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return replace(table, heads=tuple(table.heads[i] for i in kept), rows=rows)


def write_table(table: Table) -> str:
    """Write the HTML of a table, with its copies folded below it."""
    sides = ['<th class="text">' if number < table.texts else "<th>" for number in range(len(table.heads))]
    head = "".join(f"{side}{escape(name)}</th>" for side, name in zip(sides, table.heads, strict=True))
    lines = "".join(
        f"<tr>{''.join(map(_write_entry, row, range(len(row)), [table.texts] * len(row)))}</tr>" for row in table.rows
    )
    label = escape(table.caption, quote=True)
    copies = (("LaTeX", write_latex(table)), ("Markdown", write_markdown(table)))
    folded = "".join(f"<p>{name}</p><pre>{escape(text)}</pre>" for name, text in copies)
    return (
        f'<figure class="table"><figcaption>{escape(table.caption)}</figcaption>'
        f'<div class="wide" role="region" tabindex="0" aria-label="{label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
        f'<details class="copy"><summary>Copy as LaTeX or Markdown</summary>{folded}</details></figure>'
    )


def _write_entry(entry: Entry, number: int, texts: int) -> str:
    text = f"<b>{escape(entry.text)}</b>" if entry.best else escape(entry.text)
    return f'<td class="text">{text}</td>' if number < texts else f"<td>{text}</td>"


def write_latex(table: Table) -> str:
    """Write a table environment for a document that loads booktabs."""
    columns = "l" * table.texts + "r" * (len(table.heads) - table.texts)
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(table.caption)}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _join_latex([escape_latex(name) for name in table.heads]),
        "\\midrule",
        *(_join_latex([_write_latex_entry(entry) for entry in row]) for row in table.rows),
        *("\\bottomrule", "\\end{tabular}", "\\end{table}"),
    ]
    return "\n".join(lines)


def _join_latex(texts: Sequence[str]) -> str:
    return f"{' & '.join(texts)} \\\\"


def _write_latex_entry(entry: Entry) -> str:
    text = escape_latex(entry.text)
    return f"\\textbf{{{text}}}" if entry.best else text


def escape_latex(text: str) -> str:
    """Give `text` on one line, none of which is a command, with the minus of a number as one."""
    signed = _MINUS.sub("\N{MINUS SIGN}", put_on_line(text))
    text = _HYPHENS.sub("-{}", "".join(_LATEX.get(sign, sign) for sign in signed))
    return text.replace("\N{MINUS SIGN}", "$-$")


def write_markdown(table: Table) -> str:
    """Write a table in Markdown, its caption above it."""
    sides = [":---" if number < table.texts else "---:" for number in range(len(table.heads))]
    rows = [_join_markdown([escape_markdown(name) for name in table.heads]), f"|{'|'.join(sides)}|"]
    rows += [_join_markdown([_write_markdown_entry(entry) for entry in row]) for row in table.rows]
    return "\n".join([escape_markdown(table.caption), "", *rows])


def _join_markdown(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _write_markdown_entry(entry: Entry) -> str:
    text = escape_markdown(entry.text)
    return f"**{text}**" if entry.best else text
