"""The rows of a teacher folder as a table of what can be filtered, sorted and counted; a row itself is read when shown.

A million rows are some hundred megabytes here, for texts, replies and vectors stay on disk. What a shard holds is read
once: it never changes. Journals are read again when they have grown.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

from harvest.looking.agreement import JUDGED_BY, UNJUDGED, Judge, find_judge, judge_table
from shared.errors import CorruptShardError
from shared.schema import Row, row_schema
from shared.shards import (
    Manifest,
    RowGroup,
    Shard,
    iterate_pieces,
    iterate_rows,
    list_row_groups,
    load_manifest,
    read_row_groups,
)

Source: TypeAlias = RowGroup | pa.Table  # of a sealed row group its place, of a journal's batch the rows

_CELLS = ("sample_id", "draw", "status", "label", "residual_mass", "cost_usd", "asked_at")
_INDEXED = tuple(dict.fromkeys((*_CELLS, *JUDGED_BY)))
_HEAVY = ("raw", "embedding", "reply_ids", "reply_logprobs", "topk_ids", "topk_logprobs", "topk_tail")
_SHOWN = tuple(name for name in row_schema().names if name not in _HEAVY)
_LIVE_ATTEMPTS = 3
_TYPES: dict[str, Any] = {
    "split": pl.String,
    "current": pl.Boolean,
    "source": pl.UInt32,
    "place": pl.UInt32,
    "sample_id": pl.String,
    "draw": pl.Int32,
    "status": pl.String,
    "label": pl.Int64,
    "said": pl.Int32,
    "verdict": pl.Int8,
    "residual_mass": pl.Float32,
    "cost_usd": pl.Float64,
    "asked_at": pl.Datetime("us", "UTC"),
    "sealed": pl.Boolean,
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a folder held at one moment; the `version` of each is another one.

    `rule` is what judged the answers, None where nothing can.

    `frame` has a line a row, with the columns of a shard that are cells, and: `split`; `current`, false where the row
    was answered again since; `said`, the number of the most probable label; `verdict` (RIGHT, WRONG or UNJUDGED);
    `sealed`; and where the row is to be read, `place` in one of `sources`.
    """

    version: int
    folder: Path
    manifest: Manifest
    rule: str | None
    frame: pl.DataFrame
    sources: Sequence[Source]

    @property
    def rows(self) -> pl.DataFrame:
        """The lines of current rows."""
        return self.frame.filter("current")

    def read(self, lines: pl.DataFrame) -> list[Row]:
        """Read the rows of some lines of `frame`, in their order, without vectors, raw replies and top-K columns."""
        found: dict[tuple[int, int], Row] = {}
        for own, table in self.read_columns(lines, _SHOWN):
            places = own.select("source", "place").rows()
            found |= dict(zip(places, iterate_rows(_complete(table)), strict=True))
        return [found[key] for key in lines.select("source", "place").iter_rows()]

    def read_columns(self, lines: pl.DataFrame, columns: Sequence[str]) -> Iterator[tuple[pl.DataFrame, pa.Table]]:
        """Read some columns of the rows of some lines, by source: the lines of each, and their rows."""
        parts = {int(str(number)): own for (number,), own in lines.sort("source", "place").group_by("source")}
        numbers = sorted(parts)
        tables = read_row_groups([one for n in numbers if isinstance(one := self.sources[n], RowGroup)], columns)
        for number in numbers:
            source = self.sources[number]
            table = source if isinstance(source, pa.Table) else next(tables)
            yield parts[number], table.select(columns).take(parts[number]["place"].to_arrow())


class RowIndex:
    """Keeps up with a teacher folder: `look` gives what it holds now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sealed: dict[Shard, list[tuple[Source, pl.DataFrame]]] = {}
        self._joined: tuple[tuple[Shard, ...], pl.DataFrame] | None = None
        self._snapshot: Snapshot | None = None
        self._signs: tuple[Any, ...] = ()

    def look(self) -> Snapshot:
        """Read what is new; give the same snapshot again while nothing is.

        Raises ShardError for a folder without a manifest, CorruptShardError for damage.
        """
        for attempt in range(1, _LIVE_ATTEMPTS + 1):
            manifest = load_manifest(self.folder)
            signs = self._find_signs(manifest)
            if self._snapshot is not None and signs == self._signs:
                return self._snapshot
            try:
                self._snapshot, self._signs = self._look(manifest), signs
                return self._snapshot
            except CorruptShardError:
                # A harvest that goes on meanwhile replaces files under this look's hands: then look again.
                if attempt == _LIVE_ATTEMPTS or load_manifest(self.folder) == manifest:
                    raise
        raise AssertionError("unreachable")

    def _find_signs(self, manifest: Manifest) -> tuple[Any, ...]:
        """What differs as soon as the folder holds something else: its manifest, and the sizes of its journals."""
        journals = []
        for path in self.folder.glob("journal/split=*/*.arrows"):
            with suppress(FileNotFoundError):  # its worker sealed it just now
                journals.append((path, path.stat().st_size))
        return manifest, sorted(journals)

    def _look(self, manifest: Manifest) -> Snapshot:
        rule, judge = find_judge(manifest) or (None, None)
        self._sealed = {
            shard: self._sealed.get(shard) or self._read_shard(manifest, shard, judge) for shard in manifest.shards
        }
        waiting = self._read_journals(manifest, judge)
        blocks = [block for blocks in self._sealed.values() for block in blocks]
        if self._joined is None or self._joined[0] != manifest.shards:
            self._joined = (manifest.shards, _join(blocks, 0))
        frame = _mark_answered_again(self._joined[1], _join(waiting, len(blocks)))
        version = 1 if self._snapshot is None else self._snapshot.version + 1
        return Snapshot(version, self.folder, manifest, rule, frame, [source for source, _ in (*blocks, *waiting)])

    def _read_shard(self, manifest: Manifest, shard: Shard, judge: Judge | None) -> list[tuple[Source, pl.DataFrame]]:
        groups = list_row_groups(self.folder, replace(manifest, shards=(shard,)), shard.split)
        tables = read_row_groups(groups, _INDEXED)
        return [(group, _index(table, group.split, True, judge)) for group, table in zip(groups, tables, strict=True)]

    def _read_journals(self, manifest: Manifest, judge: Judge | None) -> list[tuple[Source, pl.DataFrame]]:
        # Without its shards, whose ids stay known: a journal that was sealed just now is not read as well.
        journals = replace(manifest, shards=(), retired=tuple(manifest.sealed_ids()))
        blocks: list[tuple[Source, pl.DataFrame]] = []
        for piece in iterate_pieces(self.folder, journals, _SHOWN):
            indexed = _index(piece.table, piece.split, False, judge).with_columns(current=pl.Series(piece.current))
            blocks.append((piece.table.select(_SHOWN), indexed))
        return blocks


def _index(table: pa.Table, split: str, sealed: bool, judge: Judge | None) -> pl.DataFrame:
    """The lines of a table's rows, all current."""
    verdicts = np.full(table.num_rows, UNJUDGED, np.int8) if judge is None else judge_table(judge, table)
    cells = pl.DataFrame(pl.from_arrow(table.select([*_CELLS, "label_logprobs"])))
    return cells.with_columns(
        split=pl.lit(split),
        current=pl.lit(True),
        source=pl.lit(0),
        place=pl.int_range(pl.len()),
        said=pl.col("label_logprobs").list.arg_max(),
        verdict=pl.Series(verdicts, dtype=pl.Int8),
        sealed=pl.lit(sealed),
    ).select(pl.col(name).cast(kind) for name, kind in _TYPES.items())


def _join(blocks: Sequence[tuple[Source, pl.DataFrame]], first: int) -> pl.DataFrame:
    """The lines of several sources as one frame, the sources numbered from `first`."""
    frames = [lines.with_columns(source=pl.lit(number, pl.UInt32)) for number, (_, lines) in enumerate(blocks, first)]
    return pl.concat([pl.DataFrame(schema=_TYPES), *frames], rechunk=True)


def _mark_answered_again(sealed: pl.DataFrame, waiting: pl.DataFrame) -> pl.DataFrame:
    """All lines, those of shards first; a sealed row that a journal answers again is not current."""
    identity = ["split", "sample_id", "draw"]
    again = waiting.select(identity).unique().with_columns(again=pl.lit(True))
    marked = sealed.join(again, on=identity, how="left", maintain_order="left")
    return pl.concat([marked.with_columns(current=pl.col("again").is_null()).drop("again"), waiting])


def _complete(table: pa.Table) -> pa.Table:
    """`table` with the columns that it lacks as nulls."""
    schema = row_schema()
    columns: list[Any] = [
        table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, names=schema.names)
