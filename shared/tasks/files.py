"""Tasks made of a user's own files, and the lookup of a task by the name or path given on a command line."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypedDict, Unpack

from shared.errors import DataError, UsageError
from shared.sources import resolve_file
from shared.tasks.catalogue import TASKS
from shared.tasks.tables import is_table, name_stem
from shared.tasks.task import Kind, Source, Task

_METRICS: Mapping[Kind, str] = {
    "classification": "accuracy",
    "regression": "pearson",
    "choice": "accuracy",
    "generation": "exact_match",
}
_SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


class _FileOptions(TypedDict, total=False):
    """What task_from_file takes besides a path and the column of the text."""

    text_pair_column: str | None
    label_column: str | None
    target_column: str | None
    target_text_column: str | None
    id_column: str | None
    labels: Sequence[str] | None
    question: str | None
    label_words: Sequence[str] | None
    name: str | None


def find_task(name_or_path: str, *, text_column: str | None = None, **options: Unpack[_FileOptions]) -> Task:
    """The task of that name, or one made of the file or folder of that path, with the options of task_from_file.

    A known name wins over a folder of the same name; `./name` is always a path. Case, `-` and `_` make no
    difference. Raises UsageError for a name that is not known, and for options given with a known name.
    """
    simple = name_or_path.lower().replace("-", "").replace("_", "")
    known = {key.replace("_", ""): task for key, task in TASKS.items()}
    if simple in known:
        if any(value is not None for value in (text_column, *options.values())):
            raise UsageError(
                f"{known[simple].name} is a known task, with its own columns, labels and question: "
                f"those options are for a file or folder (write ./{name_or_path} for one of that name)"
            )
        return known[simple]
    is_path = "/" in name_or_path or is_table(Path(name_or_path)) or Path(name_or_path).exists()
    if not is_path:
        near = get_close_matches(simple, known, n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(known[key].name for key in near)}?" if near else "."
        raise UsageError(
            f"there is no task {name_or_path!r}{meant} Known tasks: {', '.join(TASKS)}. "
            "A file or folder of your own is a task too: give its path"
        )
    if text_column is None:
        raise UsageError(f"name the column of {name_or_path} that holds the text")
    return task_from_file(name_or_path, text_column, **options)


def task_from_file(
    path: str,
    text_column: str,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    target_column: str | None = None,
    target_text_column: str | None = None,
    id_column: str | None = None,
    labels: Sequence[str] | None = None,
    question: str | None = None,
    label_words: Sequence[str] | None = None,
    name: str | None = None,
) -> Task:
    """A task made of a file, or of a folder that holds train, validation and test files.

    `path` is any source of shared.sources: Parquet, JSONL or CSV, text also as .gz, .bz2 or .zst. A label
    column makes it a classification, a target column of numbers a regression, a column of target texts a
    generation. With none of them, `labels` says what a teacher may answer about rows that have no label, and a
    `question` without labels asks for free text. Where `labels` is not given, load_task finds
    them: whole numbers sorted by value, other labels by the alphabet. `name` is by default the file's name
    without its ending. Raises UsageError for options that contradict each other, SourceError and DataError
    for a path that is of no use.
    """
    kind = _choose_kind(label_column, target_column, target_text_column, labels, question)
    _check_labels(kind, labels, label_words)
    for column in (text_column, text_pair_column):
        if column and ("{" in column or "}" in column):
            raise UsageError(f"the column name {column!r} holds a brace; rename it")
    if name and re.search(r"[^\w.-]", name):
        raise UsageError(f"the name {name!r} becomes a folder's: use letters, digits, '.', '-' and '_'")
    source = Source(
        splits=_find_splits(path),
        text=f"{{{text_column}}}",
        text_pair=f"{{{text_pair_column}}}" if text_pair_column else None,
        label=label_column,
        target=target_column,
        target_text=target_text_column,
        id=id_column,
        label_values=tuple(labels) if labels else None,
    )
    return Task(
        name=name or _name_task(path),
        kind=kind,
        labels=tuple(labels or ()),
        label_words=tuple(label_words or ()),
        question=question or "",
        metric=_METRICS[kind],
        sources=(source,),
    )


def _choose_kind(
    label: str | None, target: str | None, target_text: str | None, labels: Sequence[str] | None, question: str | None
) -> Kind:
    """What kind of task the columns of the answers make, and without any the labels or the question."""
    if sum(map(bool, (label, target, target_text))) > 1:
        raise UsageError("a task has a label column, a target column or a column of target texts: one of them")
    if (target or target_text) and labels:
        raise UsageError("a target column makes a regression or a generation, which has no labels and no label words")
    if label or labels:
        return "classification"
    if target:
        return "regression"
    if not (target_text or question):
        raise UsageError(
            "name a label column, a target column or a column of target texts; or, for rows that have none, the labels "
            "to ask for, or a question that is answered in free text"
        )
    return "generation"


def _check_labels(kind: Kind, labels: Sequence[str] | None, label_words: Sequence[str] | None) -> None:
    """Refuse labels that cannot be told apart, and label words that are not those of labels, one each."""
    if label_words and kind != "classification":
        raise UsageError(f"label words belong to labels, which a {kind} has not: name a label column, or the labels")
    for values, what in ((labels, "labels"), (label_words, "label words")):
        if values is not None and (len(values) < 2 or len(set(values)) < len(values)):
            raise UsageError(f"{what} must be two or more, and differ from each other; got: {', '.join(values)}")
    if labels and label_words and len(labels) != len(label_words):
        raise UsageError(
            f"{len(label_words)} label words for {len(labels)} labels: give one a label, in the same order"
        )


def _name_task(path: str) -> str:
    """The file's or folder's name, in letters that a folder of shards may bear."""
    return re.sub(
        r"[^\w.-]+", "_", name_stem(Path(path) if "://" in path else Path(path).expanduser().resolve())
    ).strip("_-")


def _find_splits(path: str) -> dict[str, str]:
    """The files of each split: `all` for a single file."""
    found = resolve_file(path)
    if not isinstance(found, Path) or not found.is_dir():
        return {"all": path}
    files = sorted(file for file in found.iterdir() if file.is_file() and is_table(file))
    splits: dict[str, str] = {}
    for split, names in _SPLIT_NAMES.items():
        # train.csv, or the hub's train-00000-of-00002.parquet
        mine = [file for file in files if name_stem(file).partition("-")[0] in names]
        if len({file.suffix for file in mine}) > 1 or (len(mine) > 1 and any("-" not in file.name for file in mine)):
            raise DataError(f"{found} has more than one file for the {split} split: {', '.join(f.name for f in mine)}")
        if mine:
            splits[split] = (
                str(mine[0]) if len(mine) == 1 else f"{found}/{mine[0].name.partition('-')[0]}-*{mine[0].suffix}"
            )
    if "train" not in splits:
        raise DataError(
            f"{found} has no train file; it has: {', '.join(f.name for f in files) or 'no readable file'}. "
            "Name the files train, validation and test, like train.csv"
        )
    return splits
