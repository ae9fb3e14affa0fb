"""Load a task: find its files, check every row once, and stream its examples as often as one likes.

`load_task` reads every row before anything is asked of a teacher, and refuses bad input by file and row.
Rows are counted from 0, as in a sample_id, and a CSV's header is not counted.

Splits. A source's own splits are kept. Of a single file, or of a train split that stands alone, validation
and test are cut, about a tenth each; where only validation is missing, a tenth of train becomes validation.
A row's split depends on the sha256 of its sample_id alone, so it stays where it is when the file grows.

Memory grows with the number of rows by a byte a row where splits are cut, and by 8 for a source's sample. The hashes of
texts, of which those that stand in two splits are counted, and of ids that a user gave lie on disk where they are many
(shared.buckets).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import DataError, MissingExtraError, SourceError, UsageError
from shared.example import Example, Message, RowPicture
from shared.sources import find_data_files
from shared.suggestions import suggest
from shared.tasks.check import Check
from shared.tasks.counts import SplitCount, describe_counts, find_hidden
from shared.tasks.frames import Part, hash_texts, read_frames
from shared.tasks.label_sets import describe_joined
from shared.tasks.pictures import look_for_pictures, make_picture_type
from shared.tasks.tables import open_table
from shared.tasks.task import Source, Task

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

# Which rows a split is made of, by the digit of their hash, where the source has no such split.
_CUT_IN_THREE = {"train": frozenset(range(2, 10)), "validation": frozenset({0}), "test": frozenset({1})}
_CUT_IN_TWO = {"train": frozenset(range(1, 10)), "validation": frozenset({0})}
_EXAMPLES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class _Share:
    """The rows of a part whose hash has one of `digits` (None: all of them)."""

    part: Part
    digits: frozenset[int] | None = None
    row_digits: bytearray = field(default_factory=bytearray)  # the digits of all rows of a part that is cut


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """A task whose rows were found and checked.

    `task` has its labels, label words, question and target range filled in. `source` says in a line where
    the rows came from, and `notes` what the user should know of it: a source that was out of reach, rows
    dropped, splits cut. `splits` maps each split to its number of rows.
    """

    task: Task
    source: str
    splits: Mapping[str, int]
    notes: tuple[str, ...]
    _columns: Source
    _shares: Mapping[str, _Share]

    @property
    def label_values(self) -> tuple[str, ...]:
        """The labels as the label column has them, in their order; () where there are none."""
        return (self._columns.label_values or self.task.labels) if self.task.labels else ()

    @property
    def id_column(self) -> str | None:
        """The column that names the rows; None where their numbers do."""
        return self._columns.id

    @property
    def text_templates(self) -> tuple[str, ...]:
        """The templates of a row's texts: see Source."""
        return tuple(template for template in (self._columns.text, self._columns.text_pair) if template)

    def number_rows(self, splits: Sequence[str]) -> "Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]":
        """Number the rows of several splits from 0 in the order of their files, also where a file was cut into splits.

        Each split has the numbers of its rows, in their order.
        """
        import numpy as np

        numbers: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
        start = 0
        for part in dict.fromkeys(self._shares[split].part for split in splits):
            own = [split for split in splits if self._shares[split].part == part]
            digits = self._shares[own[0]].row_digits
            if self._shares[own[0]].digits is None:
                numbers[own[0]] = np.arange(start, start + self.splits[own[0]])
            else:
                row_digits = np.frombuffer(digits, np.uint8)
                owner = {split: np.isin(row_digits, list(self._shares[split].digits or ())) for split in own}
                rank = np.cumsum(np.logical_or.reduce(list(owner.values()))) - 1 + start
                numbers |= {split: rank[mask].astype(np.int64) for split, mask in owner.items()}
            start += sum(self.splits[split] for split in own)
        return numbers

    def examples(self, split: str) -> Iterator[Example]:
        """The split's examples in their order; each call starts anew. Raises UsageError: no such split."""
        return chain.from_iterable(make_examples(frame) for _, frame in self.frames([split], pictures=True))

    def frames(self, splits: Sequence[str], *, pictures: bool = False) -> "Iterator[tuple[str, pl.DataFrame]]":
        """The rows of several splits as frames of some thousand rows, each file read once.

        The frames of a split come in its order; those of splits that are cut from one file take turns. The columns are
        those of an Example: `choices` and `references` are lists, and `messages` lists of {role, content}. What the
        task has none of is null throughout. With `pictures` there is that column too, lists of what a RowPicture
        has. Raises UsageError: no such split.
        """
        for split in splits:
            if split not in self._shares:
                raise UsageError(f"{self.task.name} has no split {split!r}; {suggest(split, self.splits)}")
        columns = self._columns
        parts = dict.fromkeys(self._shares[split].part for split in splits)
        return chain.from_iterable(
            _read_part(
                part,
                {name: self._shares[name] for name in splits if self._shares[name].part == part},
                columns,
                pictures,
            )
            for part in parts
        )


def make_examples(frame: "pl.DataFrame") -> Iterator[Example]:
    """The examples of a frame of LoadedTask.frames."""
    shown = "pictures" in frame.columns
    for rows in frame.iter_slices(_EXAMPLES_AT_ONCE):
        yield from map(
            Example,
            rows["sample_id"].to_list(),
            rows["text"].to_list(),
            rows["text_pair"].to_list(),
            (None if choices is None else tuple(choices) for choices in rows["choices"].to_list()),
            rows["label"].to_list(),
            (None if some is None else tuple(some) for some in rows["label_set"].to_list()),
            rows["target"].to_list(),
            rows["target_text"].to_list(),
            (None if texts is None else tuple(texts) for texts in rows["references"].to_list()),
            (
                None if said is None else tuple(Message(one["role"], one["content"]) for one in said)
                for said in rows["messages"].to_list()
            ),
            (
                None if some is None else tuple(RowPicture(**one) for one in some)
                for some in (rows["pictures"].to_list() if shown else repeat(None, rows.height))
            ),
        )


def load_task(task: Task) -> LoadedTask:
    """Find the first source of `task` that can be reached, and check all of its rows.

    Raises SourceError where no source can be reached, and DataError, naming file and row, where rows cannot
    be used.
    """
    source, found, notes = _choose_source(task)
    parts = [
        _draw_sample(Part(name, tuple(map(open_table, paths)), source.rows.get(name, (0, None))), source)
        for name, paths in found.items()
    ]
    shares = _share_out(parts)
    task, source = _take_class_names(task, source, parts)
    counts = {name: SplitCount() for name in shares}
    check = Check(task, source)
    for part in parts:
        mine = {name: share for name, share in shares.items() if share.part is part}
        for frame in check.read(part):
            for name, rows in _share_frame(frame, mine):
                counts[name].add(rows, task.has_labels, has_pictures=source.image is not None)
    values = [sum((counts[name].values for name in shares if shares[name].part is part), Counter()) for part in parts]
    if (hidden := find_hidden(task, source, values)) is not None:
        source = replace(source, unlabelled=(*source.unlabelled, hidden))
        check.hide(hidden, sum(count.values[hidden] for count in counts.values()))
    check.finish()
    splits = {name: count.rows for name, count in counts.items()}
    if cut := [name for name, share in shares.items() if share.digits]:
        notes.append(f"cut by the hash of sample_id: {', '.join(f'{name} {splits[name]:,}' for name in cut)}")
    notes += [f"{rows:,} rows left out: {why}" for why, rows in check.dropped.items()]
    notes += describe_counts(task, source, counts)
    notes += describe_joined(task, check.labels)
    if source.image is not None:
        notes.append(look_for_pictures([table for part in parts for table in part.tables], source.image))
    task = _fill_in(task, check)
    if task.has_labels and source.label_values is None:
        source = replace(source, label_values=task.labels)
    return LoadedTask(task, _describe(source, found), splits, tuple(notes), source, shares)


def _draw_sample(part: Part, source: Source) -> Part:
    """The part with what tells which of its texts are in the source's sample."""
    if source.sample is None:
        return part
    import numpy as np

    frames = read_frames(part, source, Counter())
    hashes = np.unique(np.concatenate([hash_texts(frame["text"]) for _, frame in frames]))
    return replace(part, highest=int(hashes[source.sample - 1])) if len(hashes) > source.sample else part


def _choose_source(task: Task) -> tuple[Source, dict[str, list[Path]], list[str]]:
    """The first source that can be reached, its files by split, and a note on each that could not."""
    reasons: list[str] = []
    for source in task.sources:
        if "" in source.splits.values():
            reasons.append(f"{task.name} lies on no hub: download {source.own_file} and name the file with --task-file")
            continue
        try:
            found = find_data_files(source.splits)
        except (SourceError, MissingExtraError) as error:
            reasons.append(str(error))
        else:
            notes = [f"taken in place of another source: {reason}" for reason in reasons]
            return source, found, [*notes, source.note] if source.note else notes
    raise SourceError("; ".join(reasons))


def _share_out(parts: list[Part]) -> dict[str, _Share]:
    """Which rows of which part each split is made of."""
    names = {part.name for part in parts}
    if names in ({"all"}, {"train"}):
        return _cut(parts[0], _CUT_IN_THREE)
    shares: dict[str, _Share] = {}
    for part in parts:
        if part.name == "train" and "validation" not in names:
            shares |= _cut(part, _CUT_IN_TWO)
        else:
            shares[part.name] = _Share(part)
    return shares


def _cut(part: Part, cut: Mapping[str, frozenset[int]]) -> dict[str, _Share]:
    row_digits = bytearray()
    return {name: _Share(part, digits, row_digits) for name, digits in cut.items()}


def _hash_digits(sample_ids: list[str]) -> bytes:
    """Each row's own digit. The prefix makes it independent of other hashes of the sample_id."""
    return bytes(int.from_bytes(sha256(f"split:{i}".encode()).digest()[:8]) % 10 for i in sample_ids)


def _share_frame(frame: "pl.DataFrame", shares: Mapping[str, _Share]) -> "Iterator[tuple[str, pl.DataFrame]]":
    """The rows that each split has of a frame. Of a part that is cut, the rows' digits are kept."""
    import numpy as np
    import polars as pl

    name, share = next(iter(shares.items()))
    if share.digits is None:
        yield name, frame
        return
    digits = _hash_digits(frame["sample_id"].fill_null("").to_list())
    share.row_digits.extend(digits)
    own = np.frombuffer(digits, np.uint8)
    for split, one in shares.items():
        yield split, frame.filter(pl.Series(np.isin(own, list(one.digits or ())), dtype=pl.Boolean))


def _take_class_names(task: Task, source: Source, parts: list[Part]) -> tuple[Task, Source]:
    """The task with the names that a Parquet file of the library `datasets` gives its classes, unless the user did."""
    if not task.has_labels or task.labels or source.label is None or source.label_values is not None:
        return task, source
    names = parts[0].tables[0].read_class_names(source.label)
    if names is None or len(set(names)) < len(names) or len(names) < 2:
        return task, source
    return replace(task, labels=tuple(names)), replace(source, label_values=tuple(map(str, range(len(names)))))


def _read_part(
    part: Part, shares: Mapping[str, _Share], source: Source, pictures: bool
) -> "Iterator[tuple[str, pl.DataFrame]]":
    """The frames of a part, shared out among splits."""
    import numpy as np
    import polars as pl

    none = pl.lit(None)
    message = pl.Struct({"role": pl.String, "content": pl.String})
    columns = [
        "sample_id",
        "text",
        "text_pair" if source.text_pair else none.cast(pl.String).alias("text_pair"),
        "choices" if source.choices or source.choices_column else none.cast(pl.List(pl.String)).alias("choices"),
        _number_labels(source),
        _number_label_sets(source),
        "target" if source.target else none.cast(pl.Float64).alias("target"),
        "target_text" if source.target_text or source.messages else none.cast(pl.String).alias("target_text"),
        "references" if source.target_text else none.cast(pl.List(pl.String)).alias("references"),
        "messages" if source.messages else none.cast(pl.List(message)).alias("messages"),
    ]
    if pictures:
        columns.append("pictures" if source.image else none.cast(make_picture_type()).alias("pictures"))
    start = 0
    for _, frame in read_frames(part, source, Counter(), pictures=pictures):
        whole = frame.select(columns)
        for name, share in shares.items():
            if share.digits is None:
                yield name, whole
            else:
                digits = np.frombuffer(share.row_digits, np.uint8)[start : start + frame.height]
                yield name, whole.filter(pl.Series(np.isin(digits, list(share.digits))))
        start += frame.height


def _number_labels(source: Source) -> "pl.Expr":
    import polars as pl

    if source.label is None or source.several_labels:
        return pl.lit(None, pl.Int32).alias("label")
    if source.choices_column:
        return pl.col("label")
    known = source.label_values or ()
    # Without a default: a value that the check did not see must not pass for an unlabelled row.
    return (
        pl.col("value")
        .replace_strict(
            [*known, *source.unlabelled, None],
            [*range(len(known)), *(None for _ in source.unlabelled), None],
            return_dtype=pl.Int32,
        )
        .alias("label")
    )


def _number_label_sets(source: Source) -> "pl.Expr":
    import polars as pl

    if not source.several_labels or not (source.label or source.label_columns):
        return pl.lit(None, pl.List(pl.Int64)).alias("label_set")
    known = source.label_values or ()
    number = pl.element().replace_strict(known, range(len(known)), return_dtype=pl.Int64)
    return pl.col("values").list.eval(number).list.sort().alias("label_set")


def _fill_in(task: Task, check: Check) -> Task:
    """The task with everything set that its rows decide."""
    if task.kind == "regression":
        low, high = task.target_range or (check.low, check.high)
        return replace(
            task,
            target_range=(low, high),
            question=task.question or f"Which number fits this text? Answer with a number from {low:g} to {high:g}.",
        )
    if task.kind in ("choice", "generation"):
        return task
    labels = task.labels or tuple(sorted(check.labels, key=_label_order))
    words = task.label_words or labels
    if len(words) != len(labels):
        raise DataError(f"{len(words)} label words for {len(labels)} labels ({', '.join(labels)}): give one a label")
    if task.kind == "multilabel":
        listed = ("; " if any("," in word for word in words) else ", ").join(words)
        question = (
            f"Which of these labels fit this text? {listed}. Answer with all that fit, separated by commas, or none."
        )
    elif any("," in word for word in words):
        question = f"Which label fits this text? Answer with one of: {'; '.join(words)}."
    else:
        question = f"Which label fits this text? Answer {', '.join(words[:-1])} or {words[-1]}."
    return replace(task, labels=labels, label_words=words, question=task.question or question)


def _label_order(label: str) -> tuple[int, int, str]:
    """Whole numbers by their value, then all others by the alphabet."""
    return (0, int(label), label) if re.fullmatch(r"-?[0-9]+", label) else (1, 0, label)


def _describe(source: Source, found: Mapping[str, list[Path]]) -> str:
    """Where the rows came from: a file, or the folder of all splits; of the hub, with the commit."""
    address = source.splits[next(iter(found))]
    where = address if len(found) == 1 else address.rpartition("/")[0]
    if not where.startswith("hf://"):
        return where
    path = next(iter(found.values()))[0]
    # The hub's cache keeps a commit's files in .../snapshots/<commit>/.
    commit = path.parts[path.parts.index("snapshots") + 1] if "snapshots" in path.parts else None
    return f"{where} at commit {commit}" if commit else f"{where} (from a mirror)"
