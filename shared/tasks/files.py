"""Tasks made of a user's own files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from shared.errors import UsageError
from shared.hub_files import HUB_FOLDER
from shared.tasks.splits import find_splits
from shared.tasks.tables import is_table, name_stem
from shared.tasks.task import Kind, Source, Task

METRICS: Mapping[Kind, tuple[str, ...]] = {  # the first is the default
    "classification": ("accuracy", "f1", "matthews"),
    "multilabel": ("f1_micro", "f1_macro", "f1_samples", "subset_accuracy"),
    "regression": ("pearson",),
    "choice": ("accuracy",),
    "generation": ("exact_match", "rouge_l", "accuracy"),
}
TEXT_NEEDED = "name the column of {path} that holds the text"
ANSWER_NEEDED = (
    "name a label column, a target column or a column of target texts; or, for rows that have none, the labels to ask "
    "for, or a question that is answered in free text"
)
_QUESTIONS: Mapping[Kind, str] = {
    "choice": "Which choice is right? Answer with it, and nothing else.",
    "generation": "Which text answers this one? Write the answer, and nothing else.",
}


class FileOptions(TypedDict, total=False):
    """What task_from_file takes besides a path."""

    text_column: str | None
    text_pair_column: str | None
    label_column: str | None
    multilabel: bool
    label_columns: Sequence[str] | None
    target_column: str | None
    target_text_column: str | None
    prompt_column: str | None
    completion_column: str | None
    messages_column: str | None
    choices_column: str | None
    image_column: str | None
    id_column: str | None
    labels: Sequence[str] | None
    question: str | None
    label_words: Sequence[str] | None
    name: str | None


def task_from_file(
    path: str,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    multilabel: bool = False,
    label_columns: Sequence[str] | None = None,
    target_column: str | None = None,
    target_text_column: str | None = None,
    prompt_column: str | None = None,
    completion_column: str | None = None,
    messages_column: str | None = None,
    choices_column: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    labels: Sequence[str] | None = None,
    question: str | None = None,
    label_words: Sequence[str] | None = None,
    name: str | None = None,
    splits: Mapping[str, str] | None = None,
) -> Task:
    """A task made of a file, or of a folder that holds train, validation and test files.

    `path` is any source of shared.sources, or a data set of the hub: Parquet, JSONL, JSON or CSV. A label column makes
    it a classification, and with `multilabel`, or a column of 0 and 1 for each label, a task of several labels a row; a
    target column of numbers a regression, one of target texts a generation. With none of them, `labels` says what a
    teacher may answer about rows that have no label, and a `question` without labels asks for free text. Where `labels`
    is not given, load_task finds them: whole numbers by their value, others by the alphabet. `name` is by default the
    file's name without its ending, and `splits` are those that find_splits finds.

    A prompt column, with or without a completion column, and a column of messages make a generation whose text is asked
    as it stands, without a question. A column of choices makes each row's own choices the answers: the label column
    names one of them, by its number from 0, by its name where the choices have names, or as `labels` says in the order
    of the choices. An image column holds what a teacher is shown beside the text. Raises UsageError for options that
    contradict each other, SourceError and DataError for a path that is of no use.
    """
    text, asked_as_it_is = text_column or prompt_column, bool(prompt_column or messages_column)
    _check_columns(path, text_column, prompt_column, messages_column, text_pair_column)
    _check_names(name, text, text_pair_column)
    source = Source(
        splits=find_splits(path) if splits is None else splits,
        text=f"{{{text}}}" if text else "",
        text_pair=f"{{{text_pair_column}}}" if text_pair_column else None,
        choices_column=choices_column,
        target=target_column,
        target_text=_choose_written(prompt_column, completion_column, target_text_column),
        messages=messages_column,
        image=image_column,
        id=id_column,
        **_place_labels(label_column, multilabel, label_columns, labels),
    )
    kind = _find_kind(source, prompt_column, labels := labels or label_columns, question, label_words)
    return Task(
        name=name or _name_task(path),
        kind=kind,
        labels=tuple(labels or ()) if kind in ("classification", "multilabel") else (),
        label_words=tuple(label_words or ()),
        sources=(source,),
        **_choose_answers(kind, question, asked_as_it_is),
    )


def _place_labels(
    column: str | None, several: bool, columns: Sequence[str] | None, labels: Sequence[str] | None
) -> dict[str, Any]:
    """What a Source says of its labels. Raises UsageError for names of columns that are not as many."""
    if columns and labels and len(columns) != len(labels):
        raise UsageError(f"{len(labels)} labels for {len(columns)} label columns: give one a column, in their order")
    return {
        "label": column,
        "several_labels": several or bool(columns),
        "label_columns": tuple(columns or ()),
        "label_values": tuple(columns or labels or ()) or None,
    }


def _choose_answers(kind: Kind, question: str | None, asked_as_it_is: bool) -> dict[str, Any]:
    """What a task of that kind asks, and how an answer is judged."""
    return {
        "question": question or ("" if asked_as_it_is else _QUESTIONS.get(kind, "")),
        "metric": "rouge_l" if asked_as_it_is else METRICS[kind][0],
        "answer_rule": "choice" if kind == "choice" else None,
    }


def _find_kind(
    source: Source,
    prompt: str | None,
    labels: Sequence[str] | None,
    question: str | None,
    label_words: Sequence[str] | None,
) -> Kind:
    """What kind of task the columns make. Raises UsageError where they contradict each other."""
    if source.several_labels:
        _check_several(source, prompt)
    if source.choices_column:
        return _check_choice(source.target or source.target_text or source.messages or prompt, label_words)
    if prompt or source.messages:
        target_text = None if prompt else source.target_text
        return _check_asked_as_it_is(source.label, source.target, target_text, labels, question, label_words)
    kind = _choose_kind(source.label, source.target, source.target_text, labels, question)
    kind = "multilabel" if source.several_labels else kind
    _check_labels(kind, labels, label_words)
    return kind


def _check_several(source: Source, prompt: str | None) -> None:
    """Refuse rows that have several labels and something else to answer, and two places for the labels."""
    other = source.target or source.target_text or source.choices_column or source.messages or prompt
    if other:
        raise UsageError(f"rows with several labels have nothing else to answer: leave the column {other!r} out")
    if source.label and source.label_columns:
        raise UsageError("labels are in the label column, or in a column each (label columns): one of the two")


def _check_names(name: str | None, *columns: str | None) -> None:
    """Refuse a task's name that no folder may bear, and columns that a template cannot name."""
    for column in columns:
        if column and ("{" in column or "}" in column):
            raise UsageError(f"the column name {column!r} holds a brace; rename it")
    if name and re.search(r"[^\w.-]", name):
        raise UsageError(f"the name {name!r} becomes a folder's: use letters, digits, '.', '-' and '_'")


def _choose_written(prompt: str | None, completion: str | None, target_text: str | None) -> str | None:
    """The column of what is to be written: a completion beside a prompt, a target text beside a text."""
    if prompt and target_text:
        raise UsageError("beside a prompt column, the column of what is to be written is a completion column")
    if completion and not prompt:
        raise UsageError("a completion column goes with a prompt column; beside a text it is a column of target texts")
    return completion or target_text


def _check_columns(path: str, text: str | None, prompt: str | None, messages: str | None, pair: str | None) -> None:
    """Refuse rows without a text, and two columns for one thing."""
    if not (text or prompt or messages):
        raise UsageError(TEXT_NEEDED.format(path=path))
    if sum(map(bool, (text, prompt, messages))) > 1:
        raise UsageError("a row has a text column, a prompt column or a column of messages: one of them")
    if pair and not text:
        raise UsageError("a second text goes with a text column; a prompt and a conversation are whole")


def _check_choice(other: str | None, label_words: Sequence[str] | None) -> Kind:
    if other:
        raise UsageError(f"rows with choices have a text column and a label column, not the column {other!r} too")
    if label_words:
        raise UsageError("label words belong to labels that all rows share; the answers here are each row's choices")
    return "choice"


def _check_asked_as_it_is(*others: object) -> Kind:
    if any(others):
        raise UsageError(
            "a prompt column and a column of messages are asked as they stand, and answered in free text: they go with "
            "no label, target or target text column, no labels or label words, and no question"
        )
    return "generation"


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
        raise UsageError(ANSWER_NEEDED)
    return "generation"


def _check_labels(kind: Kind, labels: Sequence[str] | None, label_words: Sequence[str] | None) -> None:
    """Refuse labels that cannot be told apart, and label words that are not those of labels, one each."""
    if label_words and kind not in ("classification", "multilabel"):
        raise UsageError(f"label words belong to labels, which a {kind} has not: name a label column, or the labels")
    for values, what in ((labels, "labels"), (label_words, "label words")):
        if values is not None and (len(values) < 2 or len(set(values)) < len(values)):
            raise UsageError(f"{what} must be two or more, and differ from each other; got: {', '.join(values)}")
    if labels and label_words and len(labels) != len(label_words):
        raise UsageError(
            f"{len(label_words)} label words for {len(labels)} labels: give one a label, in the same order"
        )


def _name_task(path: str) -> str:
    """The file's or folder's name, or that of the hub's data set, in letters that a folder of shards may bear."""
    match = HUB_FOLDER.fullmatch(path)
    if match is None or is_table(Path(path)):
        named = spell_name(name_stem(Path(path) if "://" in path else Path(path).expanduser().resolve()))
        if named or match is None:
            return named
    inside = match["path"] or ""
    return spell_name(f"{match['name']}_{inside.rpartition('/')[0] if '*' in inside else inside}")


def spell_name(name: str) -> str:
    """`name` in letters that a folder of shards may bear."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_-")
