"""Has the kept rows of a folder follow the file that they came from, where that changed. Asks nobody.

A kept row is the file's row of the same split, sample id and texts. It takes over that row's label, target and
references. A row that the file has no longer is set aside in the split `removed`, where the plan finds its answer again
if the text stands elsewhere in the file, or comes back later; training reads no such split. Each step is durable before
the next begins, and all of them are worked out anew from the folder and the file: a crash loses and doubles nothing.

Memory: the truth of the rows whose truth changed, the ids and keys of what was set aside. The fingerprints, 24 bytes a
row of the file and as much a kept one, lie on disk where they are many (shared.buckets).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harvest.asking.find_kept import find_equal
from shared.buckets import Array, Buckets, is_among, join_buckets
from shared.console import say
from shared.errors import UsageError
from shared.fingerprints import FINGERPRINTED, Fingerprints, fingerprint_rows
from shared.schema import Row, Status
from shared.shards import Manifest, TeacherFolder, iterate_pieces, iterate_rows, read_row_group
from shared.shards.manifest import REMOVED
from shared.shards.read import list_splits
from shared.tasks import LoadedTask

if TYPE_CHECKING:
    import polars as pl

Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]

TRUTH = ("label", "label_set", "target", "target_text", "references")
_IDENTITY = ("sample_id", "draw")
_ROW = np.dtype([("first", np.uint64), ("second", np.uint64), ("truth", np.uint64)])


@dataclass(frozen=True, slots=True)
class Changes:
    """How the kept rows differ from the file.

    `relabelled` rows have another label, target or reference there; `moved` ones stand there in another split, or under
    another number or id; `removed` ones are not in it.
    """

    relabelled: int = 0
    moved: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a split of the file, sorted by the first number of their fingerprint."""

    fingerprints: Fingerprints

    def find(self, fingerprints: Fingerprints) -> tuple[Bools, np.ndarray[Any, np.dtype[np.int64]]]:
        """Whether each of `fingerprints` is a row's, and that row's number."""
        if not len(self.fingerprints):
            return np.zeros(len(fingerprints), np.bool_), np.zeros(len(fingerprints), np.int64)
        at = np.searchsorted(self.fingerprints[:, 0], fingerprints[:, 0])
        at[at == len(self.fingerprints)] = 0
        found: Bools = (self.fingerprints[at] == fingerprints).all(axis=1)
        return found, at


@dataclass(slots=True)
class _Difference:
    """Of one split: the fingerprints of rows whose truth changed, and the rows, (id, draw), that the file has not.

    `answered_texts` are hashes of the texts of those of them that have an answer.
    """

    relabelled: list[Fingerprints] = field(default_factory=list)
    loose: list[tuple[str, int]] = field(default_factory=list)
    answered_texts: list[Numbers] = field(default_factory=list)


def find_changes(loaded: LoadedTask, folder: Path, manifest: Manifest) -> Changes:
    """Count how what `folder` keeps differs from the file. Writes nothing."""
    return _count(loaded, _compare(loaded, folder, manifest))


def follow_file(folder: TeacherFolder, loaded: LoadedTask) -> Changes:
    """Bring what `folder` keeps to what the file says now, and count what changed.

    While another worker of the folder lives nothing is changed, which is said.
    """
    differences = _compare(loaded, folder.path, folder.manifest)
    changes = _count(loaded, differences)
    if changes == Changes() and not any(one.loose for one in differences.values()):
        return changes
    if (other := folder.find_other_worker()) is not None:
        say(
            f"{describe_changes(changes)}. The worker {other} writes to this folder too, so the kept rows stay as they "
            "are for now: the next harvest run that is alone brings them to the file"
        )
        return Changes()
    folder.seal()
    for split, difference in differences.items():
        if difference.loose:
            _set_aside(folder, split, frozenset(difference.loose))
            folder.remove(split, difference.loose)
        if difference.relabelled:
            _relabel(folder, loaded, split, np.concatenate(difference.relabelled))
    return changes


def set_aside_repainted(folder: TeacherFolder, rows: Mapping[str, Sequence[tuple[str, int]]]) -> None:
    """Set aside the answers to pictures that are others now, (id, draw) by split, before the rows are asked again.

    Raises UsageError while another worker of the folder lives: then nothing can be set aside.
    """
    count = sum(map(len, rows.values()))
    if not count:
        return
    if (other := folder.find_other_worker()) is not None:
        raise UsageError(
            f"{count:,} kept rows have other pictures now, and the worker {other} writes to this folder too: run once "
            "alone, so that their answers are set aside before they are asked again"
        )
    folder.seal()
    for split, some in rows.items():
        if some:
            _set_aside(folder, split, frozenset(some))
            folder.remove(split, some)


def describe_repainted(rows: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """Say how many kept rows have other pictures now; "" for none."""
    count = sum(map(len, rows.values()))
    if not count:
        return ""
    return (
        f"{count:,} kept rows have other pictures now: they are asked again, and the old answers go to split={REMOVED}"
    )


def describe_changes(changes: Changes) -> str:
    """Say in a line what changed in the file since its rows were kept."""
    parts = []
    if changes.relabelled:
        parts.append(f"{changes.relabelled:,} kept rows have another label, target or reference there, and take it")
    if changes.moved:
        parts.append(f"{changes.moved:,} stand there in another split or under another number, and go there")
    if changes.removed:
        parts.append(f"{changes.removed:,} are not in it any more, and leave training (kept in split={REMOVED})")
    return f"the file changed: {'; '.join(parts)}" if parts else ""


def drop_found(folder: TeacherFolder) -> None:
    """Drop from the rows that were set aside those whose answer stands in another split again."""
    if not folder.manifest.shards_of(REMOVED):
        return
    removed = [
        row
        for piece in iterate_pieces(folder.path, folder.manifest, (*_IDENTITY, "request_key"), REMOVED)
        for row in _take(piece.table, (*_IDENTITY, "request_key"))
    ]
    wanted = pa.array([key for *_, key in removed], pa.string())
    held: set[str] = set()
    for split in {*list_splits(folder.path, folder.manifest)} - {REMOVED}:
        for piece in iterate_pieces(folder.path, folder.manifest, ("request_key", "status"), split):
            keys, statuses = piece.table["request_key"], piece.table["status"]
            answered = piece.current & pc.not_equal(statuses, Status.UNASKED.value).to_numpy()
            held.update(keys.filter(pc.and_(pa.array(answered), pc.is_in(keys, value_set=wanted))).to_pylist())
    found = [(sample_id, draw) for sample_id, draw, key in removed if key in held]
    if found and folder.find_other_worker() is None:
        folder.remove(REMOVED, found)


def _take(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


# ---- what differs ----


def _compare(loaded: LoadedTask, folder: Path, manifest: Manifest) -> Mapping[str, _Difference]:
    """Hold every kept row of the splits that the file has against the file."""
    splits = [split for split in list_splits(folder, manifest) if split in loaded.splits]
    file = {split: Buckets(_ROW) for split in splits}
    for split, frame in loaded.frames(splits):
        _note_rows(file[split], frame)
    return {split: _compare_split(folder, manifest, split, file.pop(split)) for split in splits}


def _compare_split(folder: Path, manifest: Manifest, split: str, file: Buckets) -> _Difference:
    kept, difference, lost = Buckets(_ROW), _Difference(), [np.empty(0, _ROW)]
    for table in _iterate_kept(folder, manifest, split):
        _note_rows(kept, _to_frame(table))
    for own, others in join_buckets(kept, file):
        others = others[np.argsort(others["first"], kind="stable")]
        found, at = find_equal(own, others)
        changed = own[found][own["truth"][found] != others["truth"][at]]
        if len(changed):
            difference.relabelled.append(np.stack([changed["first"], changed["second"]], axis=1))
        lost.append(np.delete(own, found))
    loose = np.concatenate(lost)
    loose = loose[np.argsort(loose["first"], kind="stable")]
    for table in _iterate_kept(folder, manifest, split) if len(loose) else ():
        rows, _ = find_equal(_make_records(_to_frame(table)), loose)
        found_loose = table.take(pa.array(np.sort(rows)))
        difference.loose += list(_take(found_loose, _IDENTITY))
        answered = found_loose.filter(pc.not_equal(found_loose["status"], Status.UNASKED.value))
        difference.answered_texts.append(_hash_texts(_to_frame(answered)))
    return difference


def _iterate_kept(folder: Path, manifest: Manifest, split: str) -> Iterator[pa.Table]:
    columns = (*FINGERPRINTED, *TRUTH, "draw", "status")
    for piece in iterate_pieces(folder, manifest, columns, split):
        yield piece.table.select(columns).filter(pa.array(piece.current))


def _note_rows(rows: Buckets, frame: "pl.DataFrame") -> None:
    records = _make_records(frame)
    rows.add(records, records["first"])


def _make_records(frame: "pl.DataFrame") -> Array:
    records = np.empty(frame.height, _ROW)
    records["first"], records["second"] = fingerprint_rows(frame).T
    records["truth"] = _hash_truth(frame)
    return records


def _count(loaded: LoadedTask, differences: Mapping[str, _Difference]) -> Changes:
    relabelled = sum(len(some) for one in differences.values() for some in one.relabelled)
    loose = [hashes for one in differences.values() for hashes in one.answered_texts if len(hashes)]
    if not loose:
        return Changes(relabelled)
    hashes = np.concatenate(loose)
    there = [texts[is_among(texts, hashes)] for texts in _iterate_texts(loaded)]
    moved = is_among(hashes, np.concatenate(there))
    return Changes(relabelled, int(moved.sum()), int((~moved).sum()))


def _iterate_texts(loaded: LoadedTask) -> Iterator[Numbers]:
    return (_hash_texts(frame) for _, frame in loaded.frames(list(loaded.splits)))


def _hash_texts(frame: "pl.DataFrame") -> Numbers:
    """A hash of what a row says, whatever its id."""
    import polars as pl

    return fingerprint_rows(frame.with_columns(pl.lit("").alias("sample_id")))[:, 0]


def _hash_truth(frame: "pl.DataFrame") -> Numbers:
    """A hash of a row's label, target and right texts, in the precision in which they are kept."""
    import polars as pl

    label_set = pl.col("label_set").cast(pl.List(pl.Int64))
    references = pl.col("references").cast(pl.List(pl.String))
    spelt = pl.concat_str(pl.element().str.len_bytes().cast(pl.String), pl.lit(":"), pl.element())
    truth = frame.select(
        pl.col("label").cast(pl.Int64),
        label_set.list.eval(pl.element().cast(pl.String)).list.join(",").alias("label_set"),
        pl.col("target").cast(pl.Float32),
        pl.col("target_text").cast(pl.String),
        references.list.eval(spelt).list.join("").alias("references"),
    )
    return truth.hash_rows(3).to_numpy()


def _to_frame(table: pa.Table) -> "pl.DataFrame":
    import polars as pl

    return pl.DataFrame(pl.from_arrow(table))


# ---- what is written ----


def _set_aside(folder: TeacherFolder, split: str, rows: frozenset[tuple[str, int]]) -> None:
    """Keep the answers among `rows` in the split REMOVED, durably. Their bill stays where it was."""
    for piece in iterate_pieces(folder.path, folder.manifest, _IDENTITY, split):
        mask = piece.current & np.array([row in rows for row in _take(piece.table, _IDENTITY)], np.bool_)
        if not mask.any():
            continue
        table = piece.table if piece.row_group is None else read_row_group(piece.row_group)
        kept = iterate_rows(table.filter(pa.array(mask)))
        folder.append(REMOVED, [_rename(split, row) for row in kept if row.answer.status != Status.UNASKED])
        folder.commit()
    folder.seal(REMOVED)


def _rename(split: str, row: Row) -> Row:
    """The row under an id that no other one set aside has, and without a bill: that of the row it was is kept."""
    sample_id = f"{split}/{row.example.sample_id}/{row.request_key[:16]}"
    answer = replace(row.answer, cost_usd=0.0, attempts=0, prompt_tokens=0, completion_tokens=0)
    return Row(replace(row.example, sample_id=sample_id), row.request_key, row.draw, answer)


def _relabel(folder: TeacherFolder, loaded: LoadedTask, split: str, fingerprints: Fingerprints) -> None:
    """Write anew the shards of `split` that hold any row of `fingerprints`, each with what the file says of it."""
    import polars as pl

    wanted = _Rows(fingerprints[np.argsort(fingerprints[:, 0], kind="stable")])
    found_fingerprints, truths = [], []
    for _, frame in loaded.frames([split]):
        own = fingerprint_rows(frame)
        found, _ = wanted.find(own)
        if found.any():
            found_fingerprints.append(own[found])
            truths.append(frame.select(TRUTH).filter(pl.Series(found)))
    joined = np.concatenate(found_fingerprints)
    order = np.argsort(joined[:, 0], kind="stable")
    rows = _Rows(joined[order])
    truth = pl.concat(truths)[order.tolist()]
    for shard in folder.manifest.shards_of(split):
        pieces = iterate_pieces(folder.path, replace(folder.manifest, shards=(shard,)), FINGERPRINTED, split)
        if any(rows.find(fingerprint_rows(_to_frame(piece.table.select(FINGERPRINTED))))[0].any() for piece in pieces):
            folder.rewrite(shard, partial(_replace_truth, rows=rows, truth=truth))


def _replace_truth(table: pa.Table, rows: _Rows, truth: "pl.DataFrame") -> pa.Table:
    found, at = rows.find(fingerprint_rows(_to_frame(table.select(FINGERPRINTED))))
    if not found.any():
        return table
    taken = truth[np.where(found, at, 0).tolist()].to_arrow()
    for name in TRUTH:
        place, kept = table.schema.get_field_index(name), table.schema.field(name)
        new = taken[name].cast(kept.type).combine_chunks()
        column = pc.if_else(pa.array(found), new, table[name].combine_chunks())
        table = table.set_column(place, kept, column)
    return table
