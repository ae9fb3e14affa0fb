"""Sealing: the rows of a journal become an immutable Parquet shard, and rows that they supersede go.

Nothing here changes what a folder holds: new files are written beside the old ones, and take their place when
the caller saves the manifest that is returned. Runs under the folder's lock.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path
from secrets import randbelow
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.disk import make_folder, write_whole
from shared.schema import find_vector_type, row_schema, sum_column, sum_costs, upgrade_table
from shared.shards.journal import JournalReader, strip_id
from shared.shards.manifest import Manifest, Shard, Superseded, stamp_owner
from shared.shards.read import identify_row, identify_rows, journal_split
from shared.shards.sealed_rows import IDENTITY, SealedRows
from shared.stores.parquet import open_parquet
from shared.stores.places import find_written_address

_Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

ROW_GROUP_ROWS = 4096
ROW_GROUP_BYTES = 64 << 20  # a row of a video teacher has half a megabyte: rows alone do not bound memory
_NUMBERS_APART = 10**12

# Few distinct values. Hashes and floats have none in common, and a dictionary only costs them.
_DICTIONARY_COLUMNS = ["status", "finish_reason", "error", "choices.list.element", "messages.list.element.role"]
_STATISTICS_COLUMNS = ["sample_id", "request_key", "label", "draw", "status", "cost_usd", "asked_at"]
# Elsewhere a level makes no difference. Log-probabilities are 15 % smaller than at level 3, for 60 s more of a core for
# a million tokens at K = 50 (seconds beside what a teacher takes for them); level 19 saves .1 byte a token more.
_LEVELS = {"topk_ids.list.element.list.element": 9, "topk_logprobs.list.element.list.element": 16}


@dataclass(frozen=True, slots=True)
class Sealing:
    """What a folder will be, and the files that are then of no use."""

    manifest: Manifest
    obsolete: tuple[Path, ...]


def seal_journal(folder: Path, manifest: Manifest, journal: Path, sealed_rows: SealedRows) -> Sealing:
    """Write the rows of `journal` as a shard of `folder`, and the shards that lose rows to it anew.

    Of several answers to one (sample_id, draw) the last is kept. The rows that go leave their cost in
    `manifest.superseded`. `sealed_rows` says where to look for them; it is of no other folder.
    """
    split = journal_split(journal)
    journal_rows = _scan_journal(journal)
    if not journal_rows.last:
        return Sealing(manifest, (journal,))
    split_folder = folder / f"split={split}"
    make_folder(split_folder)
    number = _next_number(manifest, split)
    lost, is_last = _Lost(), np.zeros(journal_rows.count, np.bool_)
    is_last[np.fromiter(journal_rows.last.values(), np.int64, len(journal_rows.last))] = True

    with JournalReader(journal) as reader:
        schema = strip_id(reader.schema)
        tables = (pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata) for batch in reader)
        rows = _drop_rows(tables, lambda table, start: ~is_last[start : start + table.num_rows], lost)
        sealed = _write_shard(folder, manifest, split, number, reader.id, schema, rows)

    number = _set_apart(folder, number + 1)
    without = _rewrite_without(folder, manifest, split, journal_rows, sealed_rows, lost, number)
    return Sealing(replace(without.manifest, shards=(*without.manifest.shards, sealed)), (journal, *without.obsolete))


def remove_rows(
    folder: Path, manifest: Manifest, split: str, rows: Iterable[tuple[str, int]], sealed_rows: SealedRows
) -> Sealing:
    """Write the shards of `split` anew without the rows of some (sample_id, draw); their cost goes to superseded.

    `sealed_rows` is as in seal_journal.
    """
    wanted = list(rows)
    lost_rows = _RowIds(
        dict.fromkeys((identify_row(*row) for row in wanted), 0),
        pa.array([sample_id for sample_id, _ in wanted], pa.string()),
        len(wanted),
    )
    first = _set_apart(folder, _next_number(manifest, split))
    return _rewrite_without(folder, manifest, split, lost_rows, sealed_rows, _Lost(), first)


def _rewrite_without(
    folder: Path,
    manifest: Manifest,
    split: str,
    rows: "_RowIds",
    sealed_rows: SealedRows,
    lost: "_Lost",
    number: int,
) -> Sealing:
    """Write the shards of `split` that hold any of `rows` anew without them, the first one with `number`."""
    suspected = sealed_rows.find_shards(folder, manifest.shards_of(split), rows.last)
    kept: list[Shard] = []
    retired: list[str] = list(manifest.retired)
    obsolete: list[Path] = []
    for shard in manifest.shards:
        path = folder / shard.path
        if shard.split != split or shard.id not in suspected or not _holds_rows_of(path, rows):
            kept.append(shard)
            continue
        with open_parquet(path) as file:
            tables = _drop_rows(_iterate_groups(file), lambda table, _: _find_rows_of(table, rows), lost)
            rewritten = _write_shard(folder, manifest, split, number, shard.id, file.schema_arrow, tables)
        number += 1
        obsolete.append(path)
        if rewritten.rows:
            kept.append(rewritten)
        else:
            retired.append(shard.id)
            obsolete.append(folder / rewritten.path)
    superseded = manifest.superseded.add(Superseded(lost.rows, lost.cost_usd))
    return Sealing(
        replace(manifest, shards=tuple(kept), retired=tuple(retired), superseded=superseded), tuple(obsolete)
    )


def rewrite_shard(folder: Path, manifest: Manifest, shard: Shard, revise: Callable[[pa.Table], pa.Table]) -> Sealing:
    """Write `shard` anew in today's schema, each of its row groups as `revise` gives it: same rows, same bill.

    `revise` is given rows of today's schema, whatever the shard's. Raises ValueError where it gives other rows or
    another bill, and nothing has changed then.
    """
    number = _set_apart(folder, _next_number(manifest, shard.split))
    path = folder / shard.path
    with open_parquet(path) as file:
        schema = row_schema(find_vector_type(file.schema_arrow), manifest.labels)
        revised = (revise(upgrade_table(table)) for table in _iterate_groups(file))
        rewritten = _write_shard(folder, manifest, shard.split, number, shard.id, schema, revised)
    if rewritten.rows != shard.rows or not _is_same_bill(rewritten.cost_usd, shard.cost_usd):
        (folder / rewritten.path).unlink()
        raise ValueError(
            f"{path} would have {rewritten.rows} rows that cost ${rewritten.cost_usd}, not {shard.rows} of "
            f"${shard.cost_usd}"
        )
    rewritten = replace(rewritten, cost_usd=shard.cost_usd)  # summed in another order, it may differ in its last digit
    shards = tuple(rewritten if other == shard else other for other in manifest.shards)
    return Sealing(replace(manifest, shards=shards), (path,))


def copy_shard(
    source: Path, target: Path, manifest: Manifest, shard: Shard, revise: Callable[[pa.Table], pa.Table]
) -> Shard:
    """Write `shard` of the folder `source` under the folder `target`, each row group as `revise` gives it.

    Rows, schema and bill stay, and so does its path. The same rows make the same bytes each time.
    """
    path, number = source / shard.path, int(Path(shard.path).name.split("-")[1])
    (target / shard.path).parent.mkdir(parents=True, exist_ok=True)
    with open_parquet(path) as file:
        tables = map(revise, _iterate_groups(file))
        copied = _write_shard(target, manifest, shard.split, number, shard.id, file.schema_arrow, tables)
    return replace(copied, cost_usd=shard.cost_usd)


def _is_same_bill(cost_usd: float | None, other_usd: float | None) -> bool:
    if cost_usd is None or other_usd is None:
        return cost_usd is other_usd
    return math.isclose(cost_usd, other_usd, abs_tol=1e-12)


@dataclass(frozen=True, slots=True)
class _RowIds:
    last: dict[bytes, int]  # identity -> number of its last row in the journal; 0 of one that is to go
    sample_ids: pa.Array
    count: int  # of rows, those that are superseded by later ones included


@dataclass(slots=True)
class _Lost:
    rows: int = 0
    cost_usd: float | None = 0.0


def _scan_journal(path: Path) -> _RowIds:
    last: dict[bytes, int] = {}
    sample_ids: list[pa.Array] = []
    count = 0
    with JournalReader(path) as reader:
        for batch in reader:
            last.update(zip(identify_rows(batch), range(count, count + batch.num_rows), strict=True))
            # A copy, which two arrays make: the column itself would keep its whole batch in memory.
            ids = batch["sample_id"]
            sample_ids.append(pa.concat_arrays([ids.slice(0, 0), ids]))
            count += batch.num_rows
    return _RowIds(last, pa.concat_arrays(sample_ids) if sample_ids else pa.array([], pa.string()), count)


def _holds_rows_of(shard: Path, rows: _RowIds) -> bool:
    """Whether a shard holds an older answer to a row of the journal: it may, by its hashes."""
    with open_parquet(shard) as file:
        return any(_find_rows_of(table, rows).any() for table in _iterate_groups(file, IDENTITY))


def _find_rows_of(table: pa.Table, rows: _RowIds) -> _Bools:
    """Which rows of a table are among `rows`. Columnar first: mostly there is none."""
    maybe = pc.is_in(table["sample_id"], value_set=rows.sample_ids)
    found: _Bools = maybe.to_numpy().copy()
    found[found] = [identity in rows.last for identity in identify_rows(table.filter(maybe))]
    return found


def _iterate_groups(file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.Table]:
    for index in range(file.num_row_groups):
        yield file.read_row_group(index, columns=columns, use_threads=False)


def _drop_rows(
    tables: Iterable[pa.Table], find_lost: Callable[[pa.Table, int], _Bools], lost: _Lost
) -> Iterator[pa.Table]:
    """The tables without the rows that `find_lost` marks, of each and its first row's number; their bill goes to
    `lost`.
    """
    start = 0
    for table in tables:
        mask = find_lost(table, start)
        start += table.num_rows
        if mask.any():
            lost.rows += int(mask.sum())
            lost.cost_usd = sum_costs((lost.cost_usd, sum_column(table["cost_usd"].filter(pa.array(mask)))))
            table = table.filter(pa.array(~mask))
        yield table


def _write_shard(
    folder: Path,
    manifest: Manifest,
    split: str,
    number: int,
    identity: str,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
) -> Shard:
    """Write one Parquet file, durable under its final name."""
    target = folder / f"split={split}" / f"part-{number:05d}-{identity}.parquet"
    schema = schema.with_metadata({**(schema.metadata or {}), **stamp_owner(manifest, split)})
    rows = 0
    cost_usd: float | None = 0.0
    with write_whole(target) as temporary:  # a full disk gets its room back
        with pq.ParquetWriter(temporary, schema, **_writer_options(schema)) as writer:
            for group in _regroup(tables):
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
                rows += group.num_rows
                cost_usd = sum_costs((cost_usd, sum_column(group["cost_usd"])))
        with temporary.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        size = temporary.stat().st_size
    return Shard(target.relative_to(folder).as_posix(), split, rows, size, digest, cost_usd)


def _regroup(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows as tables of the size of a row group, the last one smaller."""
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        while table.num_rows:
            head = table.slice(0, ROW_GROUP_ROWS - rows)
            waiting.append(head)
            rows, size = rows + head.num_rows, size + head.nbytes
            table = table.slice(head.num_rows)
            if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
                yield pa.concat_tables(waiting)
                waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)


def _writer_options(schema: pa.Schema) -> dict[str, Any]:
    leaves = dict(leaf for field in schema for leaf in _list_leaves(field.name, field.type))
    # Not float16: DuckDB reads no such encoding of it.
    split = [
        name
        for name, kind in leaves.items()
        if kind == pa.float32() or name.partition(".")[0] in ("reply_ids", "topk_ids")
    ]
    return {
        "compression": "zstd",
        "compression_level": {name: _LEVELS.get(name, 3) for name in leaves},
        "use_dictionary": _DICTIONARY_COLUMNS,
        "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        "write_statistics": _STATISTICS_COLUMNS,
    }


def _list_leaves(name: str, kind: pa.DataType) -> list[tuple[str, pa.DataType]]:
    """The columns of a Parquet file that a column of a table is made of, by the names that Parquet gives them."""
    if pa.types.is_list(kind):
        return _list_leaves(f"{name}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _list_leaves(f"{name}.{field.name}", field.type)]
    return [(name, kind)]


def _set_apart(folder: Path, number: int) -> int:
    """The number from which on shards of `folder` are written anew: of one that goes to an object store by chance.

    Two writers may write the same shard anew before one of them is refused, and an object of the one must not be that
    of the other.
    """
    return number if find_written_address(folder) is None else number + randbelow(_NUMBERS_APART)


def _next_number(manifest: Manifest, split: str) -> int:
    numbers = (int(Path(shard.path).name.split("-")[1]) for shard in manifest.shards_of(split))
    return 1 + max(numbers, default=-1)
