"""The kept rows of a teacher, for a program that reads them: one by one, or a table at a time. Writes nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from shared.errors import UsageError
from shared.schema import Row, row_schema
from shared.shards import choose_teacher, iterate_pieces, iterate_rows, load_manifest
from shared.shards.manifest import REMOVED
from shared.shards.read import list_splits
from shared.suggestions import suggest


def stream_tables(
    shards: Path | str, split: str | None = None, columns: Sequence[str] | None = None, teacher: str | None = None
) -> Iterator[pa.Table]:
    """Read the kept rows as Arrow tables of a row group or less, so that memory does not grow with the rows.

    `shards` is data/<task> or one teacher=<name> folder in it; `teacher` chooses where a task has several. `split` None
    is every split but that of rows which left the file; `columns` None is all of them (docs/shards.md).
    Rows that are not sealed yet are among them. Raises ShardError where nothing is kept or a shard is damaged,
    and UsageError for a split or a column that there is not.
    """
    folder = choose_teacher(Path(shards), teacher)
    manifest = load_manifest(folder)
    splits = list_splits(folder, manifest)
    if split is not None and split not in splits:
        raise UsageError(f"{folder} has no split {split!r}; {suggest(split, splits)}")
    known = row_schema().names
    wanted = known if columns is None else list(columns)
    if strange := [name for name in wanted if name not in known]:
        raise UsageError(f"rows have no column {strange[0]!r}; {suggest(strange[0], known, there='they have:')}")
    for name in [each for each in splits if each != REMOVED] if split is None else [split]:
        for piece in iterate_pieces(folder, manifest, wanted, name):
            yield piece.table.filter(pa.array(piece.current)).select(wanted)


def stream_rows(shards: Path | str, split: str | None = None, teacher: str | None = None) -> Iterator[Row]:
    """Read the kept rows one by one, each with its example and the teacher's answer. See stream_tables."""
    for table in stream_tables(shards, split, teacher=teacher):
        yield from iterate_rows(table)
