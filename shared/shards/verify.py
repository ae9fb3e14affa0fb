"""Verifying teacher folders: every shard against its manifest, every row against the task. Writes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.disk import is_locked
from shared.errors import ShardError
from shared.schema import find_added, find_vector_type, read_version, row_schema_of, upgrade_table
from shared.shards.journal import JournalReader, check_schema
from shared.shards.manifest import Manifest, Shard, find_foreign, find_teachers, load_manifest, shard_id
from shared.shards.read import (
    FOLDER_LOCK,
    STATUSES,
    Digests,
    find_damage,
    find_tear,
    identify_rows,
    list_journals,
)
from shared.stores.mirror import list_shard_files
from shared.stores.parquet import open_parquet
from shared.stores.places import spell_mirrors

_READ_COLUMNS = ("sample_id", "draw", "request_key", "status", "label", "label_set", "label_logprobs")
_NAMED_ROWS = 3
_LIVE_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of one or several teacher folders found. Each problem names its file and says what to do.

    `rows` are those of the shards; `unsealed` ones are whole in journals, waiting to be sealed; `planned` is
    what there will be when the harvest is done.
    """

    rows: int
    unsealed: int
    planned: int
    shards: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


def verify_shards(path: Path) -> Verification:
    """Check data/<task>/, or one teacher's folder in it. Raises ShardError if `path` holds none."""
    found = [_verify_teacher(folder) for folder in find_teachers(path)]
    return Verification(
        rows=sum(one.rows for one in found),
        unsealed=sum(one.unsealed for one in found),
        planned=sum(one.planned for one in found),
        shards=sum(one.shards for one in found),
        problems=tuple(spell_mirrors(problem) for one in found for problem in one.problems),
    )


def _verify_teacher(folder: Path) -> Verification:
    for attempt in range(1, _LIVE_ATTEMPTS + 1):
        try:
            manifest = load_manifest(folder)
            found = _verify_manifest(folder, manifest)
            # A harvest that goes on meanwhile replaces files under this check's hands: then look again.
            if found.ok or attempt == _LIVE_ATTEMPTS or load_manifest(folder) == manifest:
                return found
        except ShardError as error:
            return Verification(0, 0, 0, 0, (str(error),))
    raise AssertionError("unreachable")


def _verify_manifest(folder: Path, manifest: Manifest) -> Verification:
    problems = []
    for split in dict.fromkeys(shard.split for shard in manifest.shards):
        problems += _check_split(folder, manifest, split)
    problems += _find_orphans(folder, manifest)
    unsealed = 0
    for path in list_journals(folder, manifest):
        problem = find_tear(path)
        try:
            unsealed += _count_journal(path)
        except ShardError as error:
            problem = str(error)
        if problem is not None:
            problems.append(problem)
    return Verification(
        rows=sum(shard.rows for shard in manifest.shards),
        unsealed=unsealed,
        planned=sum(manifest.planned.values()),
        shards=len(manifest.shards),
        problems=tuple(problems),
    )


def _check_split(folder: Path, manifest: Manifest, split: str) -> list[str]:
    problems = []
    identities: list[Digests] = []
    whole = []
    for shard in manifest.shards_of(split):
        path = folder / shard.path
        problem = find_damage(folder, shard)
        if problem is not None:
            problems.append(problem)
            continue
        whole.append(path)
        try:
            with open_parquet(path) as file:
                problems += _check_file(path, file, shard, manifest, identities)
        except (pa.ArrowException, OSError) as error:
            problems.append(f"{path} is not readable as Parquet ({error}); restore it from a copy")
    values, counts = np.unique(np.concatenate(identities or [np.empty(0, "S16")]), return_counts=True)
    if (counts > 1).any():
        names = _name_rows(whole, values[counts > 1])
        problems.append(
            f"{folder}/split={split} holds {int((counts > 1).sum())} rows more than once ({names}): "
            "remove the entry of one of the shards that hold them from manifest.json"
        )
    return problems


def _check_file(
    path: Path, file: pq.ParquetFile, shard: Shard, manifest: Manifest, identities: list[Digests]
) -> list[str]:
    """The problems of one shard whose bytes are right; adds the identities of its rows to `identities`."""
    try:
        _check_layout(path, file.schema_arrow)
    except ShardError as error:
        return [str(error)]
    problems = []
    foreign = find_foreign(file.schema_arrow.metadata, manifest, shard.split)
    if foreign is not None:
        problems.append(f"{path} belongs to another run ({foreign}); restore the folder's own shard from a copy")
    if file.metadata.num_rows != shard.rows:
        problems.append(
            f"{path} has {file.metadata.num_rows} rows, the manifest says {shard.rows}; restore "
            "manifest.json from a copy"
        )
    wrong = dict.fromkeys(("an unknown status", "a label out of range", "a wrong number of label_logprobs"), 0)
    labels = len(manifest.labels)
    there = [name for name in _READ_COLUMNS if name not in find_added(file.schema_arrow)]
    for index in range(file.num_row_groups):
        table = upgrade_table(file.read_row_group(index, columns=there, use_threads=False), _READ_COLUMNS)
        identities.append(np.frombuffer(b"".join(identify_rows(table)), "S16"))
        wrong["an unknown status"] += _count_false(pc.is_in(table["status"], value_set=pa.array(list(STATUSES))))
        if labels:
            wrong["a label out of range"] += _count_false(_is_in_range(table["label"], labels))
            each = pc.list_flatten(table["label_set"])
            rows = pc.list_parent_indices(table["label_set"]).filter(pc.invert(_is_in_range(each, labels)))
            wrong["a label out of range"] += len(pc.unique(rows))
            lengths = pc.list_value_length(table["label_logprobs"])
            wrong["a wrong number of label_logprobs"] += _count_false(pc.equal(lengths, labels))
    problems += [
        f"{path} has {count} rows with {what} ({labels} labels are in the manifest); harvest them again "
        "into a folder of their own with --name"
        for what, count in wrong.items()
        if count
    ]
    return problems


def _is_in_range(values: pa.ChunkedArray, labels: int) -> pa.ChunkedArray:
    return pc.and_(pc.greater_equal(values, 0), pc.less(values, labels))


def _check_layout(path: Path, found: pa.Schema) -> None:
    """Raise ShardError unless the columns are those of the version that the file says, with any type of vectors."""
    check_schema(path, found, row_schema_of(read_version(found), find_vector_type(found)))


def _find_orphans(folder: Path, manifest: Manifest) -> list[str]:
    """Shard files that the manifest does not name, less those that the next run removes by itself."""
    leftovers = manifest.sealed_ids() | {_journal_id(path) for path in folder.glob("journal/split=*/*.arrows")}
    named = {folder / shard.path for shard in manifest.shards}
    problems = []
    for path in sorted(list_shard_files(folder) - named):
        if shard_id(path) in leftovers:
            if is_locked(folder / FOLDER_LOCK):  # the seal is under way
                continue
            advice = "a seal that was cut short left it; harvest run removes it"
        elif not path.exists():
            advice = (
                "a run that ended before it could name it uploaded it, and its next one names it. Where that machine "
                "is gone, its rows are asked again, and the object can be removed"
            )
        else:
            advice = "move it out of the folder, or restore the manifest that names it"
        problems.append(f"{path} is not in the manifest, though other readers of the folder will read it: {advice}")
    return problems


def _journal_id(path: Path) -> str:
    try:
        with JournalReader(path) as reader:
            return reader.id
    except FileNotFoundError:  # sealed just now
        return ""


def _count_journal(path: Path) -> int:
    """How many whole rows a journal has. Raises ShardError if they are of another layout."""
    try:
        with JournalReader(path) as reader:
            if reader.schema is not None:
                _check_layout(path, reader.schema)
            return sum(batch.num_rows for batch in reader)
    except FileNotFoundError:  # sealed just now
        return 0


def _count_false(values: pa.ChunkedArray) -> int:
    return int(pc.sum(pc.equal(values, False)).as_py() or 0)


def _name_rows(shards: Sequence[Path], identities: Digests) -> str:
    """The first few rows that bear one of `identities`, with the shards that hold them."""
    places: dict[str, list[str]] = {}
    for path in shards:
        with open_parquet(path) as file:
            for index in range(file.num_row_groups):
                table = file.read_row_group(index, columns=["sample_id", "draw"], use_threads=False)
                own = np.frombuffer(b"".join(identify_rows(table)), "S16")
                hits = table.filter(pa.array(np.isin(own, identities))).to_pylist()
                for hit in hits:
                    places.setdefault(f"{hit['sample_id']} draw {hit['draw']}", []).append(path.name)
    shown = [f"{row} in {' and '.join(dict.fromkeys(names))}" for row, names in list(places.items())[:_NAMED_ROWS]]
    return "; ".join(shown) + ("; ..." if len(places) > _NAMED_ROWS else "")
