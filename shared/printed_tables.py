"""Tables at the terminal, in a narrow window and in a pipe: as a table where its words have room, else as a list."""

import textwrap
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from shared.console import PIPED_WIDTH, results

if TYPE_CHECKING:
    from rich.table import Table

PAGE_WIDTH = 80  # columns of a table where there is no window


def print_rows(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    texts: int = 1,
    title: str = "",
    optional: Collection[str] = (),
) -> None:
    """Print rows as print_table does: the first `texts` columns stand left, and the others, numbers, right.

    A column of the `optional` headings is left out where all of its cells are empty or 0.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title))
    shown = [
        number
        for number, heading in enumerate(headings)
        if heading not in optional or any(row[number] not in ("", "0") for row in rows)
    ]
    for number in shown:
        table.add_column(escape(headings[number]), justify="left" if number < texts else "right")
    for row in rows:
        table.add_row(*(escape(row[number]) for number in shown))
    print_table(table)


def print_table(table: "Table") -> None:
    """Print a table on standard output, no wider than the window, or than 80 columns where there is none.

    In a window cells go on below in their column, unless a word has to be cut; in a pipe, where grep reads a row, only
    headings do. Where there is no room for that each row is a block: its first cell, and below it a line for each other
    one, with its heading.
    """
    from rich.box import SIMPLE_HEAD

    table.box, table.pad_edge, table.title_justify, table.title_style = SIMPLE_HEAD, False, "left", ""
    width = PAGE_WIDTH if results.width == PIPED_WIDTH else results.width
    if _fit(table, width):
        results.print(table)
    else:
        results.print("\n".join(_list_rows(table, width)), markup=False, soft_wrap=True)


def _fit(table: "Table", width: int) -> bool:
    """Make the columns as narrow as the width demands, if their longest words allow it."""
    from rich.measure import Measurement

    wide = results.options.update(max_width=PIPED_WIDTH)
    needed = Measurement.get(results, wide, table).maximum
    if needed <= width:
        return True
    bounds = []
    for column in table.columns:
        heading, *cells = [Measurement.get(results, wide, cell) for cell in (column.header, *column.cells)]
        most = max((cell.maximum for cell in cells), default=0)
        whole = column.no_wrap or not results.is_terminal
        least = most if whole else max((cell.minimum for cell in cells), default=0)
        bounds.append((max(least, heading.minimum), max(most, heading.maximum)))
    left = width - (needed - sum(most for _, most in bounds)) - sum(least for least, _ in bounds)
    if left < 0:
        return False
    narrowest_first = sorted(range(len(bounds)), key=lambda number: bounds[number][1] - bounds[number][0])
    for done, number in enumerate(narrowest_first):
        least, most = bounds[number]
        more = min(most - least, left // (len(bounds) - done))
        table.columns[number].width = least + more
        left -= more
    return True


def _list_rows(table: "Table", width: int) -> list[str]:
    headings = [_read(column.header) for column in table.columns]
    lines = [_read(table.title)] if table.title else []
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        first, *others = map(_read, cells)
        lines.append(first)
        for heading, cell in zip(headings[1:], others, strict=True):
            if cell:
                lines += textwrap.wrap(
                    f"{heading}: {cell}",
                    width,
                    initial_indent="  ",
                    subsequent_indent="    ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
    return lines


def _read(cell: object) -> str:
    """The text of a cell, in one line."""
    return ", ".join(results.render_str(str(cell)).plain.split("\n"))
