"""What a task's splits hold, said before anything is asked: rows a class, and texts that stand in two splits."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from shared.buckets import Buckets, is_among, join_buckets
from shared.ceilings import bound_accuracy, hash_row_texts
from shared.overlap import spell_words
from shared.tasks.task import Source, Task

if TYPE_CHECKING:
    import polars as pl

NO_LABEL = "-1"  # how GLUE, and whoever follows it, writes a label that is hidden
_NAMED_CLASSES = 20


@dataclass(slots=True)
class SplitCount:
    """The rows of one split: how many, how many of each class (None: no label), and a hash of each text's words.

    Where a row has several labels, it counts for each of them; `bare` rows have none that fits.

    `answers` are the text, hashed, and the label of each row, where rows have pictures: the text tells not all then.
    """

    rows: int = 0
    values: Counter[str | None] = field(default_factory=Counter)
    texts: Buckets = field(default_factory=partial(Buckets, np.uint64))
    answers: "list[pl.DataFrame]" = field(default_factory=list)
    bare: int = 0

    def add(self, frame: "pl.DataFrame", has_classes: bool, *, has_pictures: bool = False) -> None:
        """Count the rows of a frame of shared.tasks.frames; its label values only where they are classes."""
        import polars as pl

        self.rows += frame.height
        said = frame.select(spell_words(name) for name in ("text", "text_pair") if name in frame.columns)
        texts = said.filter(pl.any_horizontal(pl.all() != "")).hash_rows(0).to_numpy()  # emoji are no words
        self.texts.add(texts, texts)
        if has_classes and "values" in frame.columns:
            counted = frame["values"].drop_nulls().explode().drop_nulls().value_counts()
            self.values.update(dict(zip(counted["values"].to_list(), counted["count"].to_list(), strict=True)))
            if missing := frame["values"].null_count():
                self.values[None] += missing
            self.bare += int((frame["values"].list.len() == 0).sum())
        elif has_classes and "value" in frame.columns:
            counted = frame["value"].value_counts()
            self.values.update(dict(zip(counted["value"].to_list(), counted["count"].to_list(), strict=True)))
            if has_pictures:
                self.answers.append(frame.select(hash_row_texts(frame), label="value"))


def find_hidden(task: Task, source: Source, parts: Sequence[Counter[str | None]]) -> str | None:
    """The value -1 where it stands for "no label": all rows of a split have it, and no row of any other.

    `parts` are the label values of each split that the source has; in one that is cut, chance may bring all rows of a
    rare label into one share. Elsewhere -1 is a label as any other: that of a sentiment, say.
    """
    if task.kind != "classification" or NO_LABEL in (source.label_values or ()) or NO_LABEL in source.unlabelled:
        return None
    having = [values for values in parts if values[NO_LABEL]]
    if not having or len(having) == len(parts):
        return None
    return NO_LABEL if all(values[NO_LABEL] == values.total() for values in having) else None


def describe_counts(task: Task, source: Source, counts: Mapping[str, SplitCount]) -> Iterator[str]:
    """Say the rows a class of each split, and how many texts of one split stand in train too."""
    if task.has_labels:
        for name, count in counts.items():
            if count.values or count.bare:
                yield f"{name}: {_describe_values(task, source, count)}"
        yield from _describe_ceilings(source, counts)
    train = counts.get("train")
    if train is None or not len(train.texts):
        return
    others = {name: count for name, count in counts.items() if name != "train" and len(count.texts)}
    for name, count in others.items():
        pairs = join_buckets(count.texts, train.texts)
        if twice := sum(int(is_among(own, known).sum()) for own, known in pairs):
            yield f"{name}: {twice:,} of {count.rows:,} texts stand in train too: a student has seen them"


def _describe_ceilings(source: Source, counts: Mapping[str, SplitCount]) -> Iterator[str]:
    """Say how much of each split the text alone allows to get right, where that is not all of it."""
    import polars as pl

    for name, count in counts.items():
        shown = ~pl.col("label").is_in(source.unlabelled)
        bound = bound_accuracy(pl.concat(count.answers).filter(shown)) if count.answers else None
        if bound is not None and bound < 1:
            yield f"{name}: texts stand beside several labels: who reads the text alone gets {bound:.1%} right at most"


def _describe_values(task: Task, source: Source, count: SplitCount) -> str:
    """The rows of each class by its label, which may be another text than its value in the file."""
    labels = dict(zip(source.label_values or (), task.labels, strict=False))
    missing = sum(count.values[value] for value in {None, *source.unlabelled})
    values = {
        labels.get(value, value): rows
        for value, rows in count.values.items()
        if value is not None and value not in source.unlabelled
    }
    without = f"; {count.bare:,} to which none applies" if count.bare else ""
    without += f"; {missing:,} without a label" if missing else ""
    if not values:
        return without.removeprefix("; ")
    names = sorted(values, key=lambda value: (-values[value], value))
    shown = ", ".join(f"{name} {values[name]:,}" for name in names[:_NAMED_CLASSES])
    if len(names) > _NAMED_CLASSES:
        rest = names[_NAMED_CLASSES:]
        shown += f" and {len(rest):,} more, of {values[rest[-1]]:,} to {values[rest[0]]:,} rows"
    return shown + without
