"""The page of rows: one HTML file with its style, its script and its data in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from harvest.looking.agreement import WRONG
from harvest.looking.view.config import ROWS_AT_ONCE, ViewConfig
from harvest.looking.view.describe import describe_pictures, describe_rows
from harvest.looking.view.rows import RowIndex, Snapshot
from harvest.looking.view.summary import summarise
from shared.console import results
from shared.disk import explain_disk_errors, replace_file
from shared.errors import UsageError
from shared.shards.read import identify_row
from shared.web_page.fill import fill_page

_PARTS = Path(__file__).parent
_NOTE = "Not drawn in this file. `harvest view --pictures N` draws more, `--serve` any."


def write_file(folder: Path, config: ViewConfig) -> None:
    """Write the page of a teacher folder's rows into a file, and print where."""
    snapshot = RowIndex(folder).look()
    path = config.out or Path(f"{snapshot.manifest.task.replace('/', '_')}-{snapshot.manifest.teacher}.html")
    if path.is_dir() or path.suffix != ".html":
        raise UsageError(f"--out {path}: give the name of a file that ends in .html")
    content = write_page(snapshot, config)
    with explain_disk_errors(path):
        replace_file(path, content)
    results.print(f"{path}: {describe_size(snapshot, config)}", markup=False, soft_wrap=True)


def describe_size(snapshot: Snapshot, config: ViewConfig) -> str:
    """How many of a folder's rows a page shows, and which."""
    rows = snapshot.rows.height
    if rows <= config.rows:
        return f"{rows:,} rows"
    return f"{config.rows:,} of {rows:,} rows, a random sample by a hash of their ids; totals are of all rows"


def write_page(snapshot: Snapshot, config: ViewConfig) -> bytes:
    """Write the file of a snapshot: its totals, and rows of it."""
    lines = _sample(snapshot.rows, config.rows)
    rows = describe_rows(snapshot, lines)
    order = sorted(range(lines.height), key=lambda number: lines["verdict"][number] != WRONG)[: config.pictures]
    drawn = snapshot.read(lines[order])
    pictures = {number: describe_pictures(snapshot, row) for number, row in zip(order, drawn, strict=True)}
    has_pictures = snapshot.manifest.recipe.get("layout") is not None or any(one["shown"] for one in pictures.values())
    for number, row in enumerate(rows):
        row["pictures"] = pictures.get(number, {"shown": [], "note": _NOTE if has_pictures else ""})
    return make_page(snapshot, {"summary": summarise(snapshot), "rows": rows, "size": describe_size(snapshot, config)})


def make_page(snapshot: Snapshot, data: Mapping[str, Any], connects: str = "'none'") -> bytes:
    """Put the page together. `connects` is where its script may ask: nowhere unless said (connect-src)."""
    title = f"{snapshot.manifest.task}: what {snapshot.manifest.teacher} said"
    filled = {**data, "count": ROWS_AT_ONCE}
    return fill_page(_PARTS, title, ("totals.js", "page.js"), filled, connects)


def _sample(lines: pl.DataFrame, count: int) -> pl.DataFrame:
    """So many of the lines, in their order, the same ones each time: those whose ids have the smallest hashes."""
    if lines.height <= count:
        return lines
    hashes = [identify_row(*identity) for identity in lines.select("sample_id", "draw").iter_rows()]
    return lines[sorted(sorted(range(len(hashes)), key=hashes.__getitem__)[:count])]
