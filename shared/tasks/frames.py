"""Turn a source's columns into the columns of an example, frame by frame."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.tasks.tables import Table, name_stem
from shared.tasks.task import Source

if TYPE_CHECKING:
    import polars as pl

_COLUMN = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Part:
    """A split as its source has it, one file or more. The name `all` says that there are no splits."""

    name: str
    tables: tuple[Table, ...]

    @property
    def id_prefix(self) -> str:
        """What stands before the row number in a sample_id."""
        return name_stem(self.tables[0].path) if self.name == "all" else self.name


def list_columns(source: Source) -> list[str]:
    """The columns that `source` reads."""
    named = [name for name in (source.label, source.target, source.target_text, source.id) if name is not None]
    return list(dict.fromkeys([*_list_text_columns(source), *named]))


def read_frames(part: Part, source: Source, dropped: Counter[str]) -> Iterator[tuple[Table, "pl.DataFrame"]]:
    """The part's rows, with the file they are from, in order.

    A frame has the columns row (within the file, from 0), sample_id, text, empty (a text is), and as the
    source has them text_pair, choice0.., value (the label or target as it stands there, a string),
    target, target_text and references (a list). Rows that the source wants dropped are left out and counted in
    `dropped` by reason.
    """
    import polars as pl

    columns = list_columns(source)
    wanted = pl.col("value").is_null() | pl.col("value").is_in([*(source.label_values or ()), *source.unlabelled])
    seen: set[str] = set()
    rows_before = 0
    for table in part.tables:
        row = 0
        for raw in table.read_frames(columns):
            frame = raw.select(_make_expressions(raw.schema, source, part.id_prefix, row, rows_before + row))
            row += raw.height
            if source.drop_empty:
                frame = _drop(frame, ~pl.col("empty"), "empty text", dropped)
            if source.drop_other_labels:
                frame = _drop(frame, wanted, "another label", dropped)
            if source.drop_repeats:
                fresh = []
                for text in frame["text"]:
                    fresh.append(text not in seen)
                    seen.add(text)
                frame = _drop(frame, pl.Series(fresh, dtype=pl.Boolean), "a text that came before", dropped)
            yield table, frame
        rows_before += row


def _drop(frame: "pl.DataFrame", keep: "pl.Expr | pl.Series", why: str, dropped: Counter[str]) -> "pl.DataFrame":
    kept = frame.filter(keep)
    if kept.height < frame.height:
        dropped[why] += frame.height - kept.height
    return kept


def _list_text_columns(source: Source) -> list[str]:
    return [*_COLUMN.findall(source.text), *_COLUMN.findall(source.text_pair or ""), *source.choices]


def _make_expressions(
    schema: "pl.Schema", source: Source, id_prefix: str, first_row: int, first_id: int
) -> "list[pl.Expr]":
    import polars as pl

    number = pl.int_range(pl.len(), dtype=pl.Int64)
    blank = [_cast(name).str.strip_chars().fill_null("") == "" for name in _list_text_columns(source)]
    made = [
        (number + first_row).alias("row"),
        _cast(source.id).alias("sample_id")
        if source.id
        else pl.concat_str(pl.lit(f"{id_prefix}-"), number + first_id).alias("sample_id"),
        _fill_template(source.text).alias("text"),
        pl.any_horizontal(blank).alias("empty"),
    ]
    if source.text_pair:
        made.append(_fill_template(source.text_pair).alias("text_pair"))
    made += [_cast(name).alias(f"choice{i}") for i, name in enumerate(source.choices)]
    if source.label:
        # pandas turns whole numbers into floats where some are missing.
        value = (
            _cast(source.label, schema).str.strip_suffix(".0")
            if schema[source.label].is_float()
            else _cast(source.label)
        )
        made.append(value.alias("value"))
    if source.target:
        value = _cast(source.target, schema)
        value = pl.when(~value.is_in(source.unlabelled)).then(value)
        made += [value.alias("value"), value.cast(pl.Float64, strict=False).alias("target")]
    if source.target_text:
        is_list = isinstance(schema[source.target_text], pl.List)
        texts = pl.col(source.target_text).cast(pl.List(pl.String)) if is_list else pl.lit(None, pl.List(pl.String))
        made.append((texts.list.first() if is_list else _cast(source.target_text)).alias("target_text"))
        made.append(texts.alias("references"))
    return made


def _fill_template(template: str) -> "pl.Expr":
    import polars as pl

    pieces = _COLUMN.split(template)  # literal, column, literal, ..., column, literal
    return pl.concat_str(_cast(piece) if i % 2 else pl.lit(piece) for i, piece in enumerate(pieces) if piece)


def _cast(name: str, schema: "pl.Schema | None" = None) -> "pl.Expr":
    """The column as strings; with its schema, NaN of a float column is null, as pandas means it."""
    import polars as pl

    column = pl.col(name)
    if schema and schema[name].is_float():
        column = column.fill_nan(None)
    return column.cast(pl.String)
