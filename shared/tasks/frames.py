"""Turn a source's columns into the columns of an example, frame by frame."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from shared.errors import DataError
from shared.tasks.label_sets import read_label_sets
from shared.tasks.nested import read_choices, read_messages, split_messages
from shared.tasks.pictures import read_pictures
from shared.tasks.tables import Table, name_stem
from shared.tasks.task import Source

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

_COLUMN = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Part:
    """A split as its source has it, one file or more. The name `all` says that there are no splits.

    `rows` are the first that is taken of the part's rows and the one after the last (None: to the end). `highest` is
    the largest hash of a text that is in the source's sample (see hash_texts), where it takes one.
    """

    name: str
    tables: tuple[Table, ...]
    rows: tuple[int, int | None] = (0, None)
    highest: int | None = None

    @property
    def id_prefix(self) -> str:
        """What stands before the row number in a sample_id."""
        return name_stem(self.tables[0].path) if self.name == "all" else self.name


def list_template_columns(template: str) -> list[str]:
    """The columns in the braces of a Source's text, in their order."""
    return _COLUMN.findall(template)


def list_columns(source: Source, *, pictures: bool = True) -> list[str]:
    """The columns that `source` reads, with that of its pictures or without."""
    image = source.image if pictures else None
    others = (
        source.choices_column,
        source.label,
        *source.label_columns,
        source.target,
        source.target_text,
        source.messages,
        image,
        source.id,
    )
    return list(dict.fromkeys([*_list_text_columns(source), *(name for name in others if name is not None)]))


def read_frames(
    part: Part, source: Source, dropped: Counter[str], *, pictures: bool = False
) -> Iterator[tuple[Table, "pl.DataFrame"]]:
    """The part's rows, with the file they are from, in order.

    A frame has the columns row (within the file, from 0), sample_id, text, empty (a text is), and as the source has
    them text_pair, choices (a list), value (the label or target as it stands there, a string), values (a list of
    strings, where a row has several labels), label (where the choices are one column: which of them it is), target,
    target_text, references (a list) and messages; and, with `pictures`, those (a list of what a RowPicture has): they
    may be many times as large as all else. Rows that the source wants dropped are left out and counted in `dropped` by
    reason; rows outside of the part are left out.

    Raises DataError for a column that cannot be what the source says it is.
    """
    import polars as pl

    columns = list_columns(source, pictures=pictures)
    seen: set[str] = set()
    rows_before = 0
    start, end = part.rows
    for table in part.tables:
        row = 0
        for raw in table.read_frames(columns, source.target_text, _list_text_columns(source)):
            try:
                frame = _read_frame(raw, source, part.id_prefix, row, rows_before + row)
                if pictures and source.image:
                    frame = frame.hstack([read_pictures(raw[source.image], table.path.parent)])
            except DataError as error:
                raise DataError(f"{table.path}, {error}") from error
            if part.rows != (0, None):
                place = pl.col("row") + rows_before
                frame = frame.filter(place >= start, place < (end or place + 1))
            row += raw.height
            yield table, _drop_rows(frame, part, source, seen, dropped)
        rows_before += row


def hash_texts(texts: Iterable[str]) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """Hash texts to 64 bits, the same on every machine: a sample is the texts whose hashes are lowest."""
    import numpy as np

    digests = b"".join(blake2b(text.encode(), digest_size=8, person=b"sample").digest() for text in texts)
    return np.frombuffer(digests, np.dtype(">u8")).astype(np.uint64)


def _read_frame(raw: "pl.DataFrame", source: Source, id_prefix: str, first_row: int, first_id: int) -> "pl.DataFrame":
    import polars as pl

    _check_texts(raw.schema, source)
    frame = raw.select(_make_expressions(raw.schema, source, id_prefix, first_row, first_id))
    if source.several_labels and (source.label or source.label_columns):
        frame = frame.hstack([read_label_sets(raw, source, first_row)])
    if source.choices_column:
        values = frame["value"] if source.label else None
        choices, label = read_choices(
            raw[source.choices_column], values, source.label_values, source.choice_prefix, first_row
        )
        frame = frame.hstack([choices, label]).with_columns(empty=pl.col("empty") | _is_any_blank("choices"))
    if source.messages:
        frame = frame.hstack(split_messages(read_messages(raw[source.messages], first_row)))
        frame = frame.with_columns(empty=pl.col("text").str.strip_chars().fill_null("") == "")
    return frame


def _check_texts(schema: "pl.Schema", source: Source) -> None:
    """Raise DataError for a column of texts, labels or ids that holds something else."""
    for name in _list_text_columns(source):
        if schema[name].is_nested():
            raise DataError(
                f"the column {name!r} holds {schema[name]}, not texts; conversations are named as a column of messages"
            )
    for single in (None if source.several_labels else source.label, source.id):
        if single is not None and schema[single].is_nested():
            several = "; where a row has several labels, say --multilabel" if single == source.label else ""
            raise DataError(f"the column {single!r} holds {schema[single]}, not single values{several}")


def _drop_rows(
    frame: "pl.DataFrame", part: Part, source: Source, seen: set[str], dropped: Counter[str]
) -> "pl.DataFrame":
    """Leave out what the source wants dropped. `seen` are the texts of the frames before."""
    import polars as pl

    if source.drop_empty:
        frame = _drop(frame, ~pl.col("empty"), "empty text", dropped)
    if source.drop_other_labels:
        known = [*(source.label_values or ()), *source.unlabelled]
        if source.several_labels:  # a row keeps its other labels
            had_none = frame["values"].list.len().fill_null(0) == 0
            frame = frame.with_columns(pl.col("values").list.eval(pl.element().filter(pl.element().is_in(known))))
            frame = _drop(frame, had_none | (frame["values"].list.len() > 0), "other labels alone", dropped)
        else:
            wanted = pl.col("value").is_null() | pl.col("value").is_in(known)
            frame = _drop(frame, wanted, "another label", dropped)
    if source.drop_repeats:
        fresh = []
        for text in frame["text"]:
            fresh.append(text not in seen)
            seen.add(text)
        frame = _drop(frame, pl.Series(fresh, dtype=pl.Boolean), "a text that came before", dropped)
    if part.highest is not None:
        chosen = pl.Series(hash_texts(frame["text"]) <= part.highest, dtype=pl.Boolean)
        frame = _drop(frame, chosen, "not in the sample", dropped)
    return frame


def _drop(frame: "pl.DataFrame", keep: "pl.Expr | pl.Series", why: str, dropped: Counter[str]) -> "pl.DataFrame":
    kept = frame.filter(keep)
    if kept.height < frame.height:
        dropped[why] += frame.height - kept.height
    return kept


def _list_text_columns(source: Source) -> list[str]:
    return [*list_template_columns(source.text), *list_template_columns(source.text_pair or ""), *source.choices]


def _make_expressions(
    schema: "pl.Schema", source: Source, id_prefix: str, first_row: int, first_id: int
) -> "list[pl.Expr]":
    import polars as pl

    number = pl.int_range(pl.len(), dtype=pl.Int64)
    blank = [_is_blank(_cast(name)) for name in _list_text_columns(source) if name not in source.optional]
    made = [
        (number + first_row).alias("row"),
        _cast(source.id).alias("sample_id")
        if source.id
        else pl.concat_str(pl.lit(f"{id_prefix}-"), number + first_id).alias("sample_id"),
        pl.any_horizontal(blank).alias("empty") if blank else pl.lit(False).alias("empty"),
    ]
    if source.text:
        made.append(_fill_template(source.text).alias("text"))
    if source.text_pair:
        pair = _fill_template(source.text_pair)
        made.append(pl.when(~_is_blank(pair)).then(pair).alias("text_pair"))
    if source.choices:
        made.append(pl.concat_list([_cast(name) for name in source.choices]).alias("choices"))
    if source.label and not source.several_labels:
        made.append(_read_label(source, schema).alias("value"))
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


def _read_label(source: Source, schema: "pl.Schema") -> "pl.Expr":
    """The label column as strings without blanks around them; a blank one is none.

    pandas turns whole numbers into floats where some are missing, and writes them so: 1.0 is 1.
    """
    import polars as pl

    assert source.label is not None
    value = _cast(source.label, schema).str.strip_chars()
    whole = value.str.extract(r"^(-?[0-9]+)\.0$")
    if source.choices_column or source.choices:  # a blank names no choice, which is said by row
        return pl.when(whole.is_not_null() & schema[source.label].is_float()).then(whole).otherwise(value)
    is_named = value.is_in(source.label_values or ())
    value = pl.when(whole.is_not_null() & ~is_named).then(whole).otherwise(value)
    return pl.when((value != "") & (is_named | ~value.str.to_lowercase().is_in(["nan"]))).then(value)


def _fill_template(template: str) -> "pl.Expr":
    import polars as pl

    pieces = _COLUMN.split(template)  # literal, column, literal, ..., column, literal
    return pl.concat_str(_cast(piece) if i % 2 else pl.lit(piece) for i, piece in enumerate(pieces) if piece)


def _is_blank(text: "pl.Expr") -> "pl.Expr":
    return text.str.strip_chars().fill_null("") == ""


def _is_any_blank(name: str) -> "pl.Expr":
    """Whether any text of a list is blank; a list that is missing is not."""
    import polars as pl

    return pl.col(name).list.eval(_is_blank(pl.element())).list.any().fill_null(False)


def _cast(name: str, schema: "pl.Schema | None" = None) -> "pl.Expr":
    """The column as strings; with its schema, NaN of a float column is null, as pandas means it."""
    import polars as pl

    column = pl.col(name)
    if schema and schema[name].is_float():
        column = column.fill_nan(None)
    return column.cast(pl.String)
