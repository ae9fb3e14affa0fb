"""Check every row of a task once, before anything is asked of a teacher."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shared.buckets import Buckets, find_repeated, join_buckets
from shared.errors import DataError
from shared.suggestions import suggest
from shared.tasks.frames import Part, list_columns, read_frames
from shared.tasks.nested import MOST_CHOICES, ROLES
from shared.tasks.tables import Table
from shared.tasks.task import Source, Task

if TYPE_CHECKING:
    import polars as pl

_MOST_LABELS = 256
_SHOWN = 3  # bad rows of one kind that a message names


@dataclass(slots=True)
class Check:
    """What one pass over a task's rows finds: the label values seen, the lowest and the highest target, and how many
    rows have a right choice or a text to write.

    What is wrong with single rows is gathered over all parts, and raised by `finish`.
    """

    task: Task
    source: Source
    dropped: Counter[str] = field(default_factory=Counter)
    labels: set[str] = field(default_factory=set)
    sets: set[tuple[str, ...]] = field(default_factory=set)  # two that differ, at most
    low: float = float("inf")
    high: float = float("-inf")
    answered: int = 0
    _shown: dict[str, list[str]] = field(default_factory=dict)
    _found: Counter[str] = field(default_factory=Counter)

    def read(self, part: Part) -> Iterator["pl.DataFrame"]:
        """Check all rows of `part`, and yield its frames. Raises DataError for a broken file."""
        columns = list_columns(self.source)
        for table in part.tables:
            there = table.read_columns(columns)
            if not there:
                raise DataError(f"{table.path} is empty")
            if missing := [name for name in columns if name not in there]:
                blank = next((name for name in there if name.strip() == missing[0].strip()), None)
                meant = f"; {blank!r} has blanks around it: name it so" if blank else ""
                raise DataError(f"{table.path} has no column {missing[0]!r}; {suggest(missing[0], there)}{meant}")
        rows = 0
        ids = Buckets(np.uint64)
        for table, frame in read_frames(part, self.source, self.dropped):
            rows += frame.height
            self._check_frame(table, frame)
            if self.source.id:
                hashes = frame["sample_id"].drop_nulls().hash().to_numpy()
                ids.add(hashes, hashes)
            yield frame
        if not rows:
            kept = " that can be used" if self.dropped else ""
            raise DataError(f"{part.tables[0].path} has no rows{kept}")
        if self.source.id:
            self._check_ids(part, ids)

    def hide(self, value: str, rows: int) -> None:
        """Take a label value, which `rows` rows have, for "no label"."""
        self.labels.discard(value)
        kind = self._say_other_label()
        if self._found.get(kind) == rows:  # else other values are wrong too, and are named
            del self._found[kind]
            self._shown.pop(kind, None)

    def finish(self) -> None:
        """Raise DataError where any row, or the label column as a whole, cannot be used."""
        if self._found:
            raise DataError("\n".join([*map(self._say, self._shown), "Rows are counted from 0, without a header."]))
        column = self.source.label or self.source.target
        if broken := [label for label in sorted(self.labels) if "\n" in label]:
            raise DataError(f"the label {broken[0][:60]!r} has a line break: is a quote not closed before it?")
        if self.task.kind == "classification" and not self.task.labels:
            lists = [label for label in sorted(self.labels) if label.startswith("[") and label.endswith("]")]
            if lists:
                raise DataError(
                    f"the column {column!r} holds lists, {lists[0][:60]!r} among them; where a row has several labels, "
                    "say --multilabel"
                )
        if self.task.kind == "multilabel":
            self._finish_sets()
        elif len(self.labels) == 1:
            raise DataError(f"all rows have the same label in the column {column!r}: {self.labels.pop()!r}")
        if self.low == self.high:
            raise DataError(f"all rows have the same target in the column {column!r}: {self.low:g}")
        if self.task.kind == "regression" and self.low > self.high and not self.task.target_range:
            raise DataError(f"no row has a target in the column {column!r}")
        if self.task.kind == "classification" and not self.labels and not self.task.labels:
            raise DataError(f"no row has a label in the column {column!r}; name the labels that a teacher may answer")
        column = column or self.source.target_text
        if self.task.kind in ("choice", "generation") and column and not self.answered:
            raise DataError(f"no row has {'a label' if self.source.label else 'a text'} in the column {column!r}")

    def _check_frame(self, table: Table, frame: "pl.DataFrame") -> None:
        import polars as pl

        self._note(table, frame.filter("empty"), "the text is empty", "text")
        if self.source.id:
            self._note(table, frame.filter(pl.col("sample_id").is_null()), "the id is empty", "sample_id")
        if self.task.kind == "choice":
            self._check_choices(table, frame)
        elif self.task.kind == "multilabel":
            self._check_label_sets(table, frame)
        elif self.source.label:
            self._check_labels(table, frame)
        if self.source.target:
            self._check_targets(table, frame)
        if self.source.messages:
            self._check_messages(table, frame)
        if "target_text" in frame.columns:
            self.answered += len(frame) - frame["target_text"].null_count()

    def _check_labels(self, table: Table, frame: "pl.DataFrame") -> None:
        import polars as pl

        values = frame["value"].drop_nulls().unique().to_list()
        self.labels.update(set(values).difference(self.source.unlabelled))
        known = self.source.label_values
        if known is not None and not self.labels <= set(known):
            unknown = ~pl.col("value").is_in([*known, *self.source.unlabelled])
            self._note(table, frame.filter(unknown), self._say_other_label(), "value")
            self.labels.intersection_update(known)
        self._check_label_count(table)

    def _check_label_count(self, table: Table) -> None:
        if len(self.labels) > _MOST_LABELS:
            raise DataError(
                f"{table.path}: the column {self.source.label!r} has more than {_MOST_LABELS} labels, "
                f"{self.labels.pop()!r} among them; numbers to be predicted are a target column"
            )

    def _check_label_sets(self, table: Table, frame: "pl.DataFrame") -> None:
        import polars as pl

        if "values" not in frame.columns:
            return
        sets = frame["values"].drop_nulls()
        self.labels.update(sets.explode().drop_nulls().unique().to_list())
        if len(self.sets) < 2:
            self.sets.update(tuple(one) for one in sets.list.sort().unique().head(2).to_list())
        known = self.source.label_values
        if known is not None and not self.labels <= set(known):
            strange = ~pl.col("values").list.eval(pl.element().is_in(known)).list.all().fill_null(True)
            self._note(table, frame.filter(strange), self._say_other_label(), "values")
            self.labels.intersection_update(known)
        self._check_label_count(table)

    def _finish_sets(self) -> None:
        """Raise DataError where the rows' labels tell nothing apart."""
        column = self.source.label or ", ".join(self.source.label_columns)
        if column and len(self.sets) < 2:
            only = f"the same labels, {', '.join(next(iter(self.sets))) or 'none'}" if self.sets else "no labels"
            raise DataError(f"all rows have {only}, in {column!r}")
        if not self.task.labels and len(self.labels) < 2:
            raise DataError(
                f"the column {column!r} has one label only, {', '.join(self.labels)!r}: name all that there may be "
                "(labels)"
            )

    def _check_targets(self, table: Table, frame: "pl.DataFrame") -> None:
        import polars as pl

        low, high = self.task.target_range or (float("-inf"), float("inf"))
        number, given = pl.col("target"), pl.col("value").is_not_null()
        self._note(
            table,
            frame.filter(given & ~number.is_finite().fill_null(False)),
            "the target is no number",
            "value",
        )
        outside = frame.filter(number.is_finite() & ~number.is_between(low, high))
        self._note(table, outside, f"the target is not between {low:g} and {high:g}", "value")
        targets = frame["target"].drop_nulls().to_numpy()
        if len(targets):
            self.low = min(self.low, float(targets.min()))
            self.high = max(self.high, float(targets.max()))

    def _check_choices(self, table: Table, frame: "pl.DataFrame") -> None:
        import polars as pl

        few = pl.col("choices").list.len().fill_null(0) < 2
        self._note(table, frame.filter(few), "fewer than two choices", "choices")
        many = frame.filter(pl.col("choices").list.len() > MOST_CHOICES)
        self._note(table, many, f"more than {MOST_CHOICES} choices", "choices")
        if self.source.label is None:
            return
        given = pl.col("value").is_not_null() & ~pl.col("value").is_in(self.source.unlabelled)
        if "label" in frame.columns:
            wrong, known = given & pl.col("label").is_null(), self.source.label_values
        else:  # choices in columns of their own
            known = self.source.label_values or ()
            wrong = given & ~pl.col("value").is_in(known)
        named = f", which are {', '.join(known)}" if known else ""
        self._note(table, frame.filter(wrong & ~few), f"the label names none of the row's choices{named}", "value")
        self.answered += frame.filter(given).height

    def _check_messages(self, table: Table, frame: "pl.DataFrame") -> None:
        import polars as pl

        one = pl.element().struct
        known = pl.col("messages").list.eval(one.field("role").is_in(ROLES).fill_null(False)).list.all()
        said = pl.col("messages").list.eval(one.field("content").is_not_null()).list.all()
        last = pl.col("messages").list.last().struct.field("role")
        self._note(table, frame.filter(~known), f"a role is not one of {', '.join(ROLES)}", "messages")
        self._note(table, frame.filter(known & ~said), "a message has no content", "messages")
        self._note(table, frame.filter(known & (last == "assistant")), "the assistant answers itself", "messages")

    def _check_ids(self, part: Part, ids: Buckets) -> None:
        """Note the ids that occur twice. The rows are read again only where there are any."""
        import polars as pl

        repeated = pl.Series(np.concatenate([find_repeated(hashes) for (hashes,) in join_buckets(ids)]))
        if not len(repeated):
            return
        first: dict[str, str] = {}
        for table, frame in read_frames(part, self.source, Counter()):
            for row in frame.filter(pl.col("sample_id").hash().is_in(repeated)).iter_rows(named=True):
                here = f"row {row['row']} of {table.path.name}"
                before = first.setdefault(row["sample_id"], here)
                if before != here:
                    self._add(
                        "the same id twice",
                        table,
                        row["row"],
                        f"the id {row['sample_id']!r} is that of {before}",
                    )

    def _note(self, table: Table, rows: "pl.DataFrame", what: str, column: str) -> None:
        for row, value in rows.head(_SHOWN).select("row", column).iter_rows():
            self._add(what, table, row, f"{what}: {value!r}")
        if rows.height > _SHOWN:
            self._found[what] += rows.height - _SHOWN

    def _add(self, kind: str, table: Table, row: int, message: str) -> None:
        self._found[kind] += 1
        shown = self._shown.setdefault(kind, [])
        if len(shown) < _SHOWN:
            shown.append(f"{table.path}, row {row}: {message}")

    def _say_other_label(self) -> str:
        return f"the label is not one of {', '.join(self.source.label_values or ())}"

    def _say(self, kind: str) -> str:
        shown = self._shown[kind]
        more = self._found[kind] - len(shown)
        return "\n".join(shown) + (
            f"\n... and {more:,} more like {'these' if len(shown) > 1 else 'it'}" if more else ""
        )
