"""The runs of a folder at the terminal."""

from distill.runs.listing import Listing
from shared.console import say
from shared.printed_tables import print_table

_NUMBERS = ("seed", "dev", "test", "seconds")
_FORMS = {"seed": "{:d}", "dev": "{:.4f}", "test": "{:.4f}", "seconds": "{:,.0f}"}


def print_runs(listing: Listing) -> None:
    """Print a table of runs, and below it a line for each folder that is none."""
    from rich.markup import escape
    from rich.table import Table

    columns = ("name", "state", "task", "teacher", "student", "loss", *_NUMBERS, "when")
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left")
    for run in listing.runs:
        cells = (_show(column, getattr(run, column)) for column in columns)
        table.add_row(*map(escape, cells))
    if listing.runs:
        print_table(table)
    for folder, why in listing.others.items():
        say(f"{folder} {why}")


def _show(column: str, value: object) -> str:
    if value is None:
        return ""
    return str(value)[:16].replace("T", " ") if column == "when" else _FORMS.get(column, "{}").format(value)
