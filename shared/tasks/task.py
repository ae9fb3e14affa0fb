"""What a task is: its labels, the question a teacher is asked, and where its rows come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["classification", "multilabel", "regression", "choice", "generation"]


@dataclass(frozen=True, slots=True)
class Source:
    """One place that a task's rows may come from, and how its columns become examples.

    `splits` names, for each split, a file as shared.sources.resolve_file takes it; an `hf://` name may hold
    a `*`, and "" is a file that the user has to give (`own_file` says where to get it). Splits that a source lacks are
    cut from its own rows (see load_task). `rows` are the first row and the one after the last that a split takes of its
    file, where not all.

    `text` and `text_pair` are templates: `"{word}: {sentence1}"` puts two columns together. Columns that are `optional`
    may be empty, and an empty second text is none. `label`, `target`, `target_text` and `id` are columns; one of
    `target_text` that holds lists (in Parquet, JSONL or JSON) gives each row's references, and the first of them as its
    target text. `messages` is a column of conversations, lists of {role, content}: an assistant's message at the end is
    the target text, and what stands before it the conversation and, in one piece, the text. `image` is a column of
    pictures, one or several a row, as shared.tasks.pictures reads them.

    With `several_labels` a row has any number of labels. They are in the label column, a list or a text that holds
    one, or in `label_columns`, one for each label, of 0 and 1; see shared.tasks.label_sets.

    `label_values` are the label column's values, as strings, in the order of the task's labels (None: they are the
    labels' names), and `unlabelled` those that stand for "no label"; null does always.

    Choices are in columns of their own, `choices`, or in one `choices_column` of lists, of any length by row: of texts,
    or {text, label}, two lists of which the second names the choices. `choice_prefix` is a regular expression of what
    stands before each text and its first group the choice's name: `([A-E])[)]`. The label is one of the row's names;
    without names it is one of `label_values`, or counts from 0.

    `note` is what the user should know of these rows.

    The last four say what is dropped, and counted in LoadedTask.notes, of data that its reader cannot mend: rows with
    an empty text, rows with another label (of several labels a row: other labels, and rows that have no more), all but
    the first of the rows that have the same text, and all but a `sample` of so many rows, which depends on their texts
    only.
    """

    splits: Mapping[str, str]
    text: str
    text_pair: str | None = None
    optional: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    choices_column: str | None = None
    choice_prefix: str | None = None
    label: str | None = None
    several_labels: bool = False
    label_columns: tuple[str, ...] = ()
    target: str | None = None
    target_text: str | None = None
    messages: str | None = None
    image: str | None = None
    id: str | None = None
    label_values: tuple[str, ...] | None = None
    unlabelled: tuple[str, ...] = ()
    rows: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    own_file: str = ""
    note: str = ""
    drop_empty: bool = False
    drop_other_labels: bool = False
    drop_repeats: bool = False
    sample: int | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A task over texts: its answers are labels, one or several a row, numbers, one of each row's own choices, or free
    text.

    `labels` are the names in id order, () but for a classification and several labels a row (multilabel). `label_words`
    are what a teacher answers with, one a label. `question` is the instruction to a teacher; it asks for one of the
    label words, for those that fit, for a number, for one of the choices, or for a text; it is "" where the text of a
    row is the instruction. `metric` is the one by which students are compared: see METRICS of shared.tasks.files.
    `target_range` is the least and the
    greatest target. `answer_rule` names the rule of shared.answers by which a written reply is judged, and
    `max_reply_tokens` caps its length. `sources` are tried in order, and the first that can be reached is used.

    A task of a user's own files may leave labels, label words, question and target range open; load_task
    fills them in.
    """

    name: str
    kind: Kind
    sources: tuple[Source, ...]
    labels: tuple[str, ...] = ()
    label_words: tuple[str, ...] = ()
    question: str = ""
    metric: str = "accuracy"
    target_range: tuple[float, float] | None = None
    answer_rule: str | None = None
    max_reply_tokens: int | None = None

    @property
    def has_pictures(self) -> bool:
        """Whether its rows have pictures beside their texts."""
        return any(source.image is not None for source in self.sources)

    @property
    def has_labels(self) -> bool:
        """Whether its answers are labels that all rows share: one of them, or several."""
        return self.kind in ("classification", "multilabel")

    @property
    def is_written(self) -> bool:
        """Whether an answer is a text of any length, not one of a few label words or a number."""
        return self.kind in ("choice", "generation")
