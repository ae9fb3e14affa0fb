"""Reading a teacher folder: its row groups, its current rows, what it keeps and what it cost. Writes nothing.

Memory stays with one row group (or one journal batch) at a time; `read_kept` alone gives 53 bytes a row.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b, file_digest
from itertools import count, groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.causes import count_causes
from shared.console import track
from shared.cores import count_cores
from shared.disk import is_locked
from shared.errors import CorruptShardError
from shared.example import Example, Message
from shared.fingerprints import FINGERPRINTED, Fingerprints, fingerprint_rows
from shared.schema import (
    SCHEMA_VERSION,
    Row,
    Status,
    batch_to_answers,
    find_added,
    read_version,
    sum_costs,
    upgrade_table,
)
from shared.shards.journal import JournalReader
from shared.shards.manifest import REMOVED, Manifest, Shard, load_manifest
from shared.stores.ahead import fetch_ahead
from shared.stores.mirror import RemoteFile, find_remote, hash_remote
from shared.stores.parquet import fetch_footers, open_parquet

if TYPE_CHECKING:
    import polars as pl

STATUSES = tuple(Status)
FOLDER_LOCK = "journal/.folder.lock"
_IDENTITY_COLUMNS = ("sample_id", "draw")
_SHOWN_FAILURES = 5
_SHOWN_BYTES = 1 << 33  # whose check takes seconds
_READ_BYTES = 1 << 16  # that are read from a file at once, of a row group that is cut into pieces

_Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Digests: TypeAlias = np.ndarray[Any, np.dtype[np.bytes_]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group of a sealed shard: the unit that is read, and shuffled. Or a piece of one, where that is large.

    `first` is None for a whole one, and else the number of the piece's first row in the row group. `sizes` are the
    bytes of each column as it is encoded, before it is compressed: about those of its values.
    """

    path: Path
    split: str
    index: int
    rows: int
    first: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of one split, from a row group of a shard or from a batch of a journal.

    `current` is false for the rows that a journal has answered again; they await their removal by the next
    seal.
    """

    split: str
    table: pa.Table
    current: _Bools
    row_group: RowGroup | None  # None: not sealed yet


@dataclass(frozen=True, slots=True)
class Kept:
    """What a split keeps, one entry a row.

    `request_keys` are raw sha256 digests (dtype S32; numpy drops trailing zero bytes when a single entry is taken out,
    so compare arrays with arrays). `fingerprints` are those of shared.fingerprints, `draws` the numbers of repeated
    samples, and `statuses` index STATUSES.
    """

    request_keys: Digests
    fingerprints: Fingerprints
    draws: np.ndarray[Any, np.dtype[np.int32]]
    statuses: np.ndarray[Any, np.dtype[np.uint8]]

    def select(self, rows: "_Bools | np.ndarray[Any, np.dtype[np.int64]]") -> "Kept":
        """The rows where a mask is true, or those of these numbers, in their order."""
        return Kept(self.request_keys[rows], self.fingerprints[rows], self.draws[rows], self.statuses[rows])


@dataclass(frozen=True, slots=True)
class KeptPart:
    """Some of the rows that a split keeps; `frame` has the columns FINGERPRINTED of each."""

    kept: Kept
    frame: "pl.DataFrame"

    def select(self, rows: _Bools) -> "KeptPart":
        """The rows where a mask is true."""
        return KeptPart(self.kept.select(rows), self.frame[np.flatnonzero(rows).tolist()])


@dataclass(slots=True)
class SplitSummary:
    """The counts of one split. `unsealed` of its rows are still in journals; `bytes` are those of its files.

    `statuses` counts current rows by status; `failures` are the most frequent first lines of `error` with
    their counts. The bill (`cost_usd`, tokens) includes superseded rows that are still on disk; `unpriced` counts the
    rows whose price is not known, which `cost_usd` is without.
    """

    planned: int | None = None
    rows: int = 0
    unsealed: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: tuple[tuple[str, int], ...] = ()
    cost_usd: float = 0.0
    unpriced: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a teacher folder holds, by split."""

    manifest: Manifest
    splits: dict[str, SplitSummary]

    @property
    def cost_usd(self) -> float | None:
        """All dollars ever spent on the folder, superseded rows included; None where a row's price is not known."""
        own = (None if split.unpriced else split.cost_usd for split in self.splits.values())
        return sum_costs((*own, self.manifest.superseded.cost_usd))


def identify_row(sample_id: str, draw: int) -> bytes:
    """16 bytes that stand for a row within its split: blake2b of draw and sample id."""
    return blake2b(b"%d\0%s" % (draw, sample_id.encode()), digest_size=16).digest()


def identify_rows(table: pa.Table | pa.RecordBatch) -> list[bytes]:
    """identify_row of every row of a table with the columns `sample_id` and `draw`."""
    return [
        identify_row(sample_id, draw)
        for sample_id, draw in zip(table["sample_id"].to_pylist(), table["draw"].to_pylist(), strict=True)
    ]


# --- files of a folder ---


def list_journals(folder: Path, manifest: Manifest, split: str | None = None) -> list[Path]:
    """Journals whose rows no shard holds yet, the least recently written first."""
    sealed = manifest.sealed_ids()
    journals = []
    for path in folder.glob(f"journal/split={split or '*'}/*.arrows"):
        try:
            with JournalReader(path) as reader:
                if reader.id not in sealed:
                    journals.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:  # its worker sealed it just now
            continue
    return [path for _, path in sorted(journals)]


def journal_split(path: Path) -> str:
    """The split of the rows of a journal."""
    return path.parent.name.removeprefix("split=")


def journal_lock(path: Path) -> Path:
    """The lock that a journal's writer holds."""
    return path.parent.parent / f"{path.stem}.lock"


def list_row_groups(folder: Path, manifest: Manifest, split: str) -> list[RowGroup]:
    """All row groups of a split, in the order in which they were sealed. Reads the files' footers only."""
    groups = []
    paths = [folder / shard.path for shard in manifest.shards_of(split)]
    fetch_footers(paths)
    for path in paths:
        with _open_parquet(path) as file:
            groups += [_describe_group(path, split, file.metadata, index) for index in range(file.num_row_groups)]
    return groups


def _describe_group(path: Path, split: str, metadata: pq.FileMetaData, index: int) -> RowGroup:
    described = metadata.row_group(index)
    sizes: Counter[str] = Counter()
    for number in range(described.num_columns):
        column = described.column(number)
        sizes[column.path_in_schema.partition(".")[0]] += column.total_uncompressed_size
    return RowGroup(path, split, index, described.num_rows, sizes=dict(sizes))


def cut_row_group(group: RowGroup, rows: int) -> list[RowGroup]:
    """Cut a row group into pieces of so many rows, the last one smaller; it stays whole where it has no more.

    Reading a list column takes about five times its bytes for a moment, so that little of it should be read at once.
    """
    if group.rows <= rows:
        return [group]
    pieces = []
    for first in range(0, group.rows, rows):
        own = min(rows, group.rows - first)
        sizes = {name: stored * own // group.rows for name, stored in group.sizes.items()}
        pieces.append(replace(group, rows=own, first=first, sizes=sizes))
    return pieces


def read_row_group(group: RowGroup, columns: Sequence[str] | None = None) -> pa.Table:
    """One row group or a piece of one, all columns or those named, as today's schema has them, whatever the shard's.

    Of a piece the whole row group is read: see GroupReader. Raises CorruptShardError if the file cannot be read.
    """
    return next(read_row_groups([group], columns))


def read_row_groups(groups: Iterable[RowGroup], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """read_row_group of several, in their order. A file is opened once for those of it that follow one another."""
    for path, own in groupby(groups, key=attrgetter("path")):
        with _open_parquet(path) as file:
            for group in own:
                table = _read_group(file, group, columns)
                yield table if group.first is None else table.slice(group.first, group.rows)


class GroupReader:
    """Reads row groups; of one that is cut into pieces a piece at a time, each from where the one before it ended.

    The file that was read last stays open: its footer, of all row groups and columns, costs more than a row group.
    """

    def __init__(self) -> None:
        self._last: tuple[Path, pq.ParquetFile] | None = None
        self._next: tuple[Path, int, int, tuple[str, ...]] | None = None  # the piece that can be read as it comes
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._left: pa.Table | None = None

    def read(self, group: RowGroup, columns: Sequence[str]) -> pa.Table:
        """Read some columns of a row group or a piece: see read_row_group."""
        if group.first is None:
            if self._last is None or self._last[0] != group.path:
                self._last = (group.path, _open_parquet(group.path))
            return _read_group(self._last[1], group, columns)
        try:
            if self._next != (group.path, group.index, group.first, tuple(columns)):
                self._open(group, columns)
            table = self._take(group.rows)
        except (pa.ArrowException, OSError, StopIteration) as error:
            raise CorruptShardError(f"{group.path} cannot be read ({error}); run: harvest verify") from None
        self._next = (group.path, group.index, group.first + group.rows, tuple(columns))
        return table if read_version(table.schema) == SCHEMA_VERSION else upgrade_table(table, columns)

    def _open(self, group: RowGroup, columns: Sequence[str]) -> None:
        """Start a row group over, and pass over what lies before the piece."""
        assert group.first is not None
        # Buffered: else the whole column is in memory before its first batch is made.
        file = _open_parquet(group.path, pre_buffer=False, buffer_size=_READ_BYTES)
        there = _find_there(file, group, columns)
        self._batches = file.iter_batches(group.rows, row_groups=[group.index], columns=there, use_threads=False)
        self._left = None
        for done in range(0, group.first, group.rows):
            self._take(min(group.rows, group.first - done))

    def _take(self, rows: int) -> pa.Table:
        parts = []
        while rows:
            if self._left is None or not self._left.num_rows:
                self._left = pa.Table.from_batches([next(self._batches)])
            parts.append(self._left.slice(0, rows))
            self._left = self._left.slice(parts[-1].num_rows)
            rows -= parts[-1].num_rows
        return pa.concat_tables(parts)


# --- rows of a folder ---


def iterate_pieces(
    folder: Path, manifest: Manifest, columns: Sequence[str], split: str | None = None
) -> Iterator[Piece]:
    """All rows, sealed ones first, then those of the journals, in today's schema.

    `columns` are read of sealed rows, at least.

    Where a (split, sample_id, draw) was answered more than once, only its last row is current.
    """
    splits = [split] if split is not None else list_splits(folder, manifest)
    for name in splits:
        journals = list_journals(folder, manifest, name)
        last, answered_again = _find_last_rows(journals)
        wanted = list(dict.fromkeys((*columns, *_IDENTITY_COLUMNS))) if last else list(columns)
        for shard in manifest.shards_of(name):
            path = folder / shard.path
            with _open_parquet(path) as file:
                groups = [_describe_group(path, name, file.metadata, index) for index in range(file.num_row_groups)]
                for group in fetch_ahead(groups, wanted):
                    table = _read_group(file, group, wanted)
                    current = np.ones(table.num_rows, bool)
                    if last:  # columnar first: mostly there is none
                        maybe = np.flatnonzero(pc.is_in(table["sample_id"], value_set=answered_again))
                        current[maybe] = [identity not in last for identity in identify_rows(table.take(maybe))]
                    yield Piece(name, table, current, group)
        ordinal = 0
        for batch in _iterate_batches(journals):
            identities = identify_rows(batch)
            numbered = enumerate(identities, ordinal)
            # A live writer may have appended rows since they were numbered: those come with the next look.
            current = np.array([last.get(identity) == number for number, identity in numbered], bool)
            ordinal += len(identities)
            yield Piece(name, upgrade_table(pa.Table.from_batches([batch])), current, None)


def list_splits(folder: Path, manifest: Manifest) -> list[str]:
    """Splits that have rows, or a plan to have some."""
    journals = (journal_split(path) for path in sorted(folder.glob("journal/split=*/*.arrows")))
    return list(dict.fromkeys((*manifest.planned, *(shard.split for shard in manifest.shards), *journals)))


def iterate_kept(folder: Path, manifest: Manifest, split: str) -> Iterator[KeptPart]:
    """What the split keeps, sealed or not, of its current rows: a row group or a batch of a journal at a time."""
    import polars as pl

    columns = (*FINGERPRINTED, "draw", "request_key", "status")
    for piece in iterate_pieces(folder, manifest, columns, split):
        table = piece.table.select(columns)
        if not piece.current.all():
            table = table.filter(pa.array(piece.current))
        frame = pl.DataFrame(pl.from_arrow(table.drop_columns("request_key")))
        statuses = frame["status"].cast(pl.Enum(map(str, STATUSES))).to_physical().cast(pl.UInt8)
        kept = Kept(
            np.frombuffer(_decode_keys(folder, table["request_key"]), "S32"),
            fingerprint_rows(frame),
            frame["draw"].to_numpy(),
            statuses.to_numpy(),
        )
        yield KeptPart(kept, frame.select(FINGERPRINTED))


def read_kept(folder: Path, manifest: Manifest, split: str) -> Kept:
    """All of what iterate_kept gives, without texts."""
    parts = [part.kept for part in iterate_kept(folder, manifest, split)]
    return Kept(
        np.concatenate([np.empty(0, "S32"), *(part.request_keys for part in parts)]),
        np.concatenate([np.empty((0, 2), np.uint64), *(part.fingerprints for part in parts)]),
        np.concatenate([np.empty(0, np.int32), *(part.draws for part in parts)]),
        np.concatenate([np.empty(0, np.uint8), *(part.statuses for part in parts)]),
    )


def find_rows(folder: Path, manifest: Manifest, keys: Iterable[str]) -> Iterator[Row]:
    """The current rows, of any split, whose request key is in `keys`. Reads all columns on a hit only."""
    listed = list(keys)
    if not listed:
        return
    wanted = pa.array(listed, pa.string())
    # An answer that was set aside first: where its row was asked again since, the newer one comes last.
    splits = sorted(list_splits(folder, manifest), key=lambda split: split != REMOVED)
    pieces = (piece for split in splits for piece in iterate_pieces(folder, manifest, ("request_key",), split))
    for piece in pieces:
        hits = piece.current & pc.is_in(piece.table["request_key"], value_set=wanted).to_numpy().astype(bool)
        if hits.any():
            table = piece.table if piece.row_group is None else read_row_group(piece.row_group)
            yield from iterate_rows(table.filter(pa.array(hits)))


def iterate_rows(table: pa.Table) -> Iterator[Row]:
    """The rows of a table that has all columns of row_schema."""
    names = ("request_key", "draw", *(name for name in Example.__dataclass_fields__ if name in table.column_names))
    columns = {name: table[name].to_pylist() for name in names}
    for number, answer in enumerate(batch_to_answers(table)):
        values = {name: column[number] for name, column in columns.items()}
        yield Row(
            example=Example(
                sample_id=values["sample_id"],
                text=values["text"],
                text_pair=values["text_pair"],
                choices=_to_tuple(values["choices"]),
                label=values["label"],
                label_set=_to_tuple(values["label_set"]),
                target=values["target"],
                target_text=values["target_text"],
                references=_to_tuple(values["references"]),
                messages=None
                if values["messages"] is None
                else tuple(Message(message["role"], message["content"]) for message in values["messages"]),
            ),
            request_key=values["request_key"],
            draw=values["draw"],
            answer=answer,
        )


def _to_tuple(values: Sequence[T] | None) -> tuple[T, ...] | None:
    return None if values is None else tuple(values)


# --- the state of a folder ---


def summarise_folder(folder: Path) -> Summary:
    """Counts, failures and spend of a teacher folder, for `harvest status`."""
    manifest = load_manifest(folder)
    splits = {
        name: SplitSummary(
            planned=manifest.planned.get(name),
            bytes=sum(shard.bytes for shard in manifest.shards_of(name))
            + sum(path.stat().st_size for path in list_journals(folder, manifest, name)),
        )
        for name in list_splits(folder, manifest)
    }
    failures: dict[str, Counter[str]] = {name: Counter() for name in splits}
    columns = ("status", "error", "cost_usd", "prompt_tokens", "completion_tokens")
    for piece in iterate_pieces(folder, manifest, columns):
        summary = splits[piece.split]
        current = piece.table.filter(pa.array(piece.current))
        summary.rows += current.num_rows
        summary.unsealed += current.num_rows if piece.row_group is None else 0
        for entry in current["status"].value_counts().to_pylist():
            summary.statuses[entry["values"]] += entry["counts"]
        summary.cost_usd += pc.sum(piece.table["cost_usd"]).as_py() or 0.0
        summary.unpriced += piece.table["cost_usd"].null_count
        summary.prompt_tokens += pc.sum(piece.table["prompt_tokens"]).as_py() or 0
        summary.completion_tokens += pc.sum(piece.table["completion_tokens"]).as_py() or 0
        errors = current["error"].drop_null().to_pylist()
        count_causes(failures[piece.split], (error.partition("\n")[0][:120] for error in errors))
    for name, summary in splits.items():
        summary.failures = tuple(failures[name].most_common(_SHOWN_FAILURES))
    return Summary(manifest, splits)


def count_unsealed(folder: Path, manifest: Manifest) -> dict[str, int]:
    """Rows a split that wait in journals, which readers of shards do not see. Splits without are left out."""
    counts: Counter[str] = Counter()
    for path in list_journals(folder, manifest):
        with JournalReader(path) as reader:
            counts[journal_split(path)] += sum(batch.num_rows for batch in reader)
    return {split: count for split, count in counts.items() if count}


def check_readable(folder: Path) -> Manifest:
    """The manifest of a folder whose shards are all there, byte for byte.

    Raises SchemaVersionError for one that a newer version wrote, and CorruptShardError naming the file for a
    shard that is missing or changed and for a torn journal. Reads every byte once of the shards that are on this disk,
    on all cores; of those in an object store the sizes are held against the manifest.
    """
    manifest = load_manifest(folder)
    problems = _find_all_damage(folder, manifest)
    problems += [problem for path in list_journals(folder, manifest) if (problem := find_tear(path))]
    if problems:
        raise CorruptShardError("\n".join(problems))
    return manifest


def _find_all_damage(folder: Path, manifest: Manifest) -> list[str]:
    """What is wrong with the shards. Hashes are made without Python's lock: threads make them side by side."""
    check = partial(find_damage, folder, reads_remote=False)
    size = sum(shard.bytes for shard in manifest.shards)
    with (
        ThreadPoolExecutor(count_cores()) as pool,
        track("checking the shards, bytes", size if size >= _SHOWN_BYTES else 0) as tracker,
    ):
        problems = []
        for shard, problem in zip(manifest.shards, pool.map(check, manifest.shards), strict=True):
            problems += [problem] if problem else []
            tracker.advance(shard.bytes)
    return problems


def find_damage(folder: Path, shard: Shard, *, reads_remote: bool = True) -> str | None:
    """What is wrong with a shard's bytes, and what to do about it; None if they are those of the manifest.

    Those of a shard in an object store are read only if `reads_remote`; its size is known without.
    """
    path = folder / shard.path
    remote = find_remote(path)
    advice = "restore it from a copy, or remove the shard's entry from manifest.json to have its rows asked again"
    if not path.exists() and (remote is None or remote.listed is None):
        return f"{path} is missing: {shard.rows} rows; {advice}"
    size = path.stat().st_size if remote is None or remote.listed is None else remote.listed.size
    if size != shard.bytes:
        return f"{path} has {size} bytes, the manifest says {shard.bytes}; {advice}"
    if (remote is None or reads_remote) and _hash_shard(path, remote) != shard.sha256:
        return f"{path} was changed: its sha256 is not that of the manifest; {advice}"
    return None


def _hash_shard(path: Path, remote: RemoteFile | None) -> str:
    if remote is not None:
        return hash_remote(remote)
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def find_tear(path: Path) -> str | None:
    """What is wrong with a journal, and what to do about it. A tail that is being written now is not."""
    try:
        with JournalReader(path) as reader:
            for _ in reader:
                pass
    except FileNotFoundError:
        return None
    except CorruptShardError as error:
        return str(error)
    if reader.torn and not is_locked(journal_lock(path)):
        return (
            f"{path} ends in {reader.torn} bytes of a row that was never acknowledged: its writer was "
            "killed; harvest run drops them and goes on"
        )
    if reader.damaged:
        return (
            f"{path} has {reader.damaged} damaged bytes before whole rows: the rows in them are lost, all "
            "others can be read; harvest run asks the lost ones again"
        )
    return None


# --- helpers ---


def _open_parquet(path: Path, **options: Any) -> pq.ParquetFile:
    try:
        return open_parquet(path, **options)
    except FileNotFoundError:
        raise CorruptShardError(f"{path} is missing, though the manifest names it; run: harvest verify") from None
    except (pa.ArrowException, OSError) as error:
        raise CorruptShardError(f"{path} cannot be read ({error}); run: harvest verify") from None


def _read_group(file: pq.ParquetFile, group: RowGroup, columns: Sequence[str] | None) -> pa.Table:
    there = None if columns is None else _find_there(file, group, columns)
    try:
        table = file.read_row_group(group.index, columns=there, use_threads=False)
        return table if read_version(table.schema) == SCHEMA_VERSION else upgrade_table(table, columns)
    except (pa.ArrowException, OSError) as error:
        raise CorruptShardError(f"{group.path} cannot be read ({error}); run: harvest verify") from None


def _find_there(file: pq.ParquetFile, group: RowGroup, columns: Sequence[str]) -> list[str]:
    """Find those of some columns that a shard has; it may lack what its schema's version does not know yet."""
    schema = file.schema_arrow  # made anew each time
    added, known = find_added(schema), set(schema.names)
    if missing := [name for name in columns if name not in known and name not in added]:
        raise CorruptShardError(
            f"{group.path} has no column {missing[0]}: harvest did not write it. Restore it from a copy"
        )
    return [name for name in columns if name not in added]


def _iterate_batches(journals: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    for path in journals:
        with (
            suppress(FileNotFoundError),
            JournalReader(path) as reader,
        ):  # gone: its worker sealed it just now
            yield from reader


def _find_last_rows(journals: Iterable[Path]) -> tuple[dict[bytes, int], pa.Array | None]:
    """For every row of the journals the number, counted over all of them, of its last answer; and their sample ids."""
    last: dict[bytes, int] = {}
    sample_ids: list[str] = []
    for batch in _iterate_batches(journals):
        last.update(zip(identify_rows(batch), count(len(sample_ids)), strict=False))
        sample_ids += batch["sample_id"].to_pylist()
    # Not for nothing: making an Arrow array of a list imports pandas where it is installed, which takes long.
    return last, pa.array(sample_ids, pa.string()) if last else None


def _decode_keys(folder: Path, column: pa.ChunkedArray) -> bytes:
    digests = b""
    for chunk in column.chunks:
        # The text of a whole chunk lies in one piece: no string a row is made of it.
        _, offsets, text = chunk.buffers()
        ends = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        try:
            if (np.diff(ends) == 64).all():
                digests += bytes.fromhex(str(memoryview(text or b"")[ends[0] : ends[-1]], "ascii"))
        except ValueError:
            break
    if len(digests) != 32 * len(column):
        raise CorruptShardError(f"{folder} has request keys that are not 64 hexadecimal digits; run: harvest verify")
    return digests
