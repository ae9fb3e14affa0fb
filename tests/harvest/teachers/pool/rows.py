"""What a harvest of a test has kept."""

from pathlib import Path
from typing import Any

from shared.shards import iterate_pieces, load_manifest

COLUMNS = ("sample_id", "request_key", "status", "reply", "embedding", "error")


def read_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The kept rows of a teacher's folder by sample id. Fails where one is there twice."""
    pieces = iterate_pieces(folder, load_manifest(folder), COLUMNS)
    rows = [row for piece in pieces for row in piece.table.select(COLUMNS).to_pylist()]
    by_id = {row["sample_id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id
