"""The page: one HTML file with its style, its script and its data in it. It asks for nothing, and data is never markup.

Rows hold what strangers and models wrote. They stand in the page as JSON in which no `<` is left, the script puts them
into the page as text only, and a Content-Security-Policy lets nothing run but this script, whatever the data is
(https://www.w3.org/TR/CSP3/; the hashes are those of the page's own style and script).
"""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
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
    import orjson
    from jinja2 import Environment, FileSystemLoader

    names = ("page.css", "totals.js", "page.js")
    style, totals, rows = ((_PARTS / name).read_text(encoding="utf-8") for name in names)
    script = totals + rows
    encoded = orjson.dumps({**data, "count": ROWS_AT_ONCE}).decode()
    template = Environment(loader=FileSystemLoader(_PARTS), autoescape=True).get_template("page.html")
    page = template.render(
        title=f"{snapshot.manifest.task}: what {snapshot.manifest.teacher} said",
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        connects=connects,
        data=encoded.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
    )
    return page.encode()


def _hash(content: str) -> str:
    return f"sha256-{b64encode(sha256(content.encode()).digest()).decode()}"


def _sample(lines: pl.DataFrame, count: int) -> pl.DataFrame:
    """So many of the lines, in their order, the same ones each time: those whose ids have the smallest hashes."""
    if lines.height <= count:
        return lines
    hashes = [identify_row(*identity) for identity in lines.select("sample_id", "draw").iter_rows()]
    return lines[sorted(sorted(range(len(hashes)), key=hashes.__getitem__)[:count])]
