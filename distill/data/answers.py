"""One or several teachers of the same examples: their answers joined by example, and the vectors h_t they come to.

The first teacher's shards say what the examples, their labels and their splits are; further ones add vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distill.config import Column
from distill.data.columns import Array, read_pieces
from distill.data.replies import encode_replies
from distill.data.split import Ints, Split, describe_number, describe_row, read_split
from distill.data.vectors import (
    JoinedVectors,
    KeptVectors,
    StoredVectors,
    VectorColumn,
    find_column,
    find_vectors,
    has_column,
    join_vectors,
    make_scratch,
    rank_answered,
    read_first,
)
from shared.console import say
from shared.errors import DataError, UsageError
from shared.shards.manifest import Manifest, choose_teacher
from shared.shards.read import check_readable, count_unsealed, read_row_groups


@dataclass(frozen=True, slots=True)
class TeacherShards:
    """A teacher's folder of shards, all of them whole."""

    folder: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Answers:
    """A teacher's answers to a split. `place` is where each row of the first teacher's lies in `split`, None if there.

    It is a row's number, and -1 where this teacher has no whole answer.
    """

    teacher: TeacherShards
    split: Split
    place: Ints | None


def open_teachers(shards: Sequence[Path], teacher: str | None) -> tuple[TeacherShards, ...]:
    """Open the teachers of some folders; `teacher` chooses among those of the first one.

    Raises ShardError for a folder that is none or is damaged (see shared.shards.read.check_readable), and UsageError
    for one that is given twice or whose labels are not those of the first.
    """
    opened: list[TeacherShards] = []
    for path in shards:
        folder = choose_teacher(path, None if opened else teacher)
        if folder.resolve() in [other.folder.resolve() for other in opened]:
            raise UsageError(f"the shards {folder} are given twice")
        manifest = check_readable(folder)
        if opened:
            _check_same_task(opened[0], TeacherShards(folder, manifest))
        if waiting := sum(count_unsealed(folder, manifest).values()):
            say(f"{folder}: {waiting:,} rows are not sealed yet and stay out; harvest run seals them")
        opened.append(TeacherShards(folder, manifest))
    return tuple(opened)


def _check_same_task(first: TeacherShards, other: TeacherShards) -> None:
    a, b = first.manifest, other.manifest
    if (a.kind, a.labels) != (b.kind, b.labels):
        raise UsageError(
            f"{first.folder} is a {_describe_labels(a)}, and {other.folder} is a {_describe_labels(b)}: shards that "
            "are trained on together must have the same labels in the same order"
        )


def _describe_labels(manifest: Manifest) -> str:
    return f"{manifest.kind} over {', '.join(manifest.labels)}" if manifest.labels else manifest.kind


def join_teachers(teachers: Sequence[TeacherShards], split: Split) -> tuple[Split, tuple[Answers, ...]]:
    """Mark only those rows of the first teacher's split as answered that every teacher answered; give all answers.

    Rows are joined by `sample_id`, whatever the draw, with a further teacher's first draw. How many are left out for
    want of an answer is said. Raises ShardError where a further teacher has no such split, and DataError where no row
    is left, or an example has another text there.
    """
    if len(teachers) == 1:
        return split, (Answers(teachers[0], split, None),)
    ids, texts = _hash_rows(split)
    answered = split.answered.copy()
    joined = [Answers(teachers[0], split, None)]
    for teacher in teachers[1:]:
        other = read_split(teacher.folder, teacher.manifest, split.name)
        other_ids, other_texts = _hash_rows(other)
        usable = np.flatnonzero(other.answered & other.first)
        order = usable[np.argsort(other_ids[usable], kind="stable")]
        position = np.searchsorted(other_ids[order], ids)
        found = order[np.minimum(position, len(order) - 1)] if len(order) else np.zeros(len(ids), np.int64)
        hit = (other_ids[found] == ids) & bool(len(order))
        differs = hit & (other_texts[found] != texts)
        if differs.any():
            row = int(np.argmax(differs))
            raise DataError(
                f"{describe_number(split, row)} has another text than {describe_number(other, int(found[row]))}: the "
                "two teachers were not asked about the same data"
            )
        lost = int((answered & ~hit).sum())
        answered &= hit
        if lost:
            say(f"{teacher.folder}: {lost:,} rows of {split.name} have no whole answer there and are left out")
        if not answered.any():
            raise DataError(
                f"{teacher.folder} and {teachers[0].folder} have no answered example of the split {split.name} in "
                "common; were both harvested from the same data?"
            )
        joined.append(Answers(teacher, other, np.where(hit, found, -1)))
    return replace(split, answered=answered), tuple(joined)


def _hash_rows(split: Split) -> tuple[Array, Array]:
    """Hash each row's sample_id and its texts to 64 bits each: 16 bytes a row for a join.

    The hashes are polars' own, which cost a hundredth of a digest a row and hold within one process only.
    """
    import polars as pl

    ids, texts = [], []
    for table in read_row_groups(split.groups, ["sample_id", "text", "text_pair"]):
        frame = pl.DataFrame(pl.from_arrow(table))
        ids.append(frame["sample_id"].hash(1).to_numpy())
        texts.append(frame.select("text", "text_pair").hash_rows(1).to_numpy())
    return np.concatenate(ids), np.concatenate(texts)


def gather_vectors(
    answers: Sequence[Answers], split: Split, columns: Sequence[Column], reply_encoder: str, work: Path
) -> VectorColumn:
    """Put all teachers' vectors one after the other, as one wide vector; `split` is what join_teachers gave.

    Of each teacher those `columns` that it gave, or, where none are named, what find_vectors finds. A further teacher's
    are copied to a nameless file in `work`, in the order of the first one's rows. Raises DataError for a column that no
    teacher gave, and for a teacher that gave none of them.
    """
    for column in columns:
        if not any(has_column(one.split, column) for one in answers):
            find_column(answers[0].split, column)  # says so
    parts = []
    for one in answers:
        own = [column for column in columns if has_column(one.split, column)]
        if columns and not own:
            raise DataError(
                f"{one.teacher.folder} has none of the columns {', '.join(columns)}: leave it out of --shards, or name "
                "one that it has with --vectors"
            )
        vectors = (
            join_vectors(
                [
                    encode_replies(one.teacher.folder, one.teacher.manifest, one.split, reply_encoder)
                    if column == "reply"
                    else find_column(one.split, column)
                    for column in own
                ]
            )
            if own
            else find_vectors(one.split)
        )
        _check_labels(one, vectors)
        parts.append(vectors if one.place is None else fetch_vectors(one, split, vectors, work))
    return join_vectors(parts)


def _check_labels(answers: Answers, vectors: VectorColumn) -> None:
    labels = len(answers.teacher.manifest.labels)
    for part in vectors.parts if isinstance(vectors, JoinedVectors) else (vectors,):
        if isinstance(part, StoredVectors) and part.source == "label_logprobs" and part.width != labels + 1:
            group, row, _ = read_first(answers.split, ["sample_id"])
            raise DataError(
                f"{describe_row(group, row)} has label_logprobs of {part.width - 1} numbers, and its manifest has "
                f"{labels} labels: these are another task's answers. See: harvest verify {answers.teacher.folder}"
            )


def gather_distributions(answers: Sequence[Answers], split: Split, labels: int, work: Path) -> list[VectorColumn]:
    """Find the label log-probabilities, and the residual's log, of all teachers that gave some: (labels + 1) wide.

    Raises DataError where none did.
    """
    if not any(has_column(one.split, "label_logprobs") for one in answers):
        find_column(answers[0].split, "label_logprobs")  # says so
    vectors = StoredVectors("label_logprobs", labels + 1)
    return [
        vectors if one.place is None else fetch_vectors(one, split, vectors, work)
        for one in answers
        if has_column(one.split, "label_logprobs")
    ]


def fetch_vectors(answers: Answers, split: Split, vectors: VectorColumn, work: Path) -> KeptVectors:
    """Copy a further teacher's vectors, in the order of the answered rows of the first teacher's `split`.

    Raises DataError, naming the row, for a vector that is missing or not finite.
    """
    assert answers.place is not None
    wanted = answers.place[split.answered]
    order = np.argsort(wanted, kind="stable")
    mask = np.zeros(len(answers.split), np.bool_)
    mask[wanted] = True
    array: Array | None = None
    for piece, table in read_pieces(answers.split, mask, vectors):
        block = vectors.decode(table, piece.rows, piece.group, piece.start)
        low, high = np.searchsorted(wanted, [piece.start, piece.start + piece.group.rows], sorter=order)
        _, places = np.unique(wanted[order[low:high]], return_inverse=True)
        if array is None:
            array = make_scratch(work, block.dtype, (len(wanted), vectors.width))
        array[order[low:high]] = block[places]
    assert array is not None, "join_teachers leaves no split without answers"
    return KeptVectors(vectors.widths, array, rank_answered(split))
