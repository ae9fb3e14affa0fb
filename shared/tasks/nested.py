"""Columns that hold lists: choices of any number by row, and conversations.

Parquet has them as lists, JSONL and CSV as JSON in a string; both become polars lists here.
"""

from typing import TYPE_CHECKING

from shared.errors import DataError

if TYPE_CHECKING:
    import polars as pl

ROLES = ("system", "user", "assistant")
MOST_CHOICES = 26  # as many as there are letters


def read_choices(
    column: "pl.Series",
    values: "pl.Series | None",
    known: tuple[str, ...] | None,
    prefix: str | None,
    first_row: int,
) -> "tuple[pl.Series, pl.Series]":
    """The choices of each row (list of strings), and which of them its label value names (int32; null for none).

    `column` holds lists of texts, or structs of two lists, `text` and `label`; for `known` and `prefix` see Source's
    `label_values` and `choice_prefix`, and `first_row` is the number of its first row. Raises DataError for a column of
    another kind.
    """
    import polars as pl

    column = _decode_choices(column, first_row)
    names = None
    if isinstance(column.dtype, pl.Struct):
        names = column.struct.field("label").cast(pl.List(pl.String))
        column = column.struct.field("text")
    choices = column.cast(pl.List(pl.String)).alias("choices")
    if prefix is not None:
        frame = choices.to_frame().select(
            pl.col("choices").list.eval(pl.element().str.extract(prefix)).alias("names"),
            pl.col("choices").list.eval(pl.element().str.replace(f"^\\s*{prefix}\\s*", "")),
        )
        names, choices = frame["names"], frame["choices"]
    if values is None:
        return choices, pl.Series("label", [None] * len(choices), pl.Int32)
    return choices, _find_label(choices, names, values, known)


def _find_label(
    choices: "pl.Series", names: "pl.Series | None", values: "pl.Series", known: tuple[str, ...] | None
) -> "pl.Series":
    import polars as pl

    frame = pl.DataFrame({"value": values, "size": choices.list.len()})
    most = min(int(frame["size"].max() or 0), MOST_CHOICES)  # type: ignore[arg-type]
    if names is None:
        fixed = known or tuple(map(str, range(most)))
        tried = [pl.when((pl.col("value") == name) & (pl.col("size") > i)).then(i) for i, name in enumerate(fixed)]
    else:
        frame = frame.with_columns(names.alias("names"))
        tried = [
            pl.when(pl.col("names").list.get(i, null_on_oob=True) == pl.col("value").str.strip_chars()).then(i)
            for i in range(most)
        ]
    return frame.select(pl.coalesce([*tried, pl.lit(None)]).cast(pl.Int32).alias("label"))["label"]


def _decode_choices(column: "pl.Series", first_row: int) -> "pl.Series":
    import polars as pl

    kind = column.dtype
    if kind == pl.String:
        first = next(iter(column.drop_nulls().head(1).to_list()), "").lstrip()
        texts = pl.List(pl.String)
        kind = pl.Struct({"text": texts, "label": texts}) if first.startswith("{") else texts
        return _decode(column, kind, first_row, "a list of choices, nor {text, label}")
    if isinstance(kind, pl.Struct) and {"text", "label"} <= {one.name for one in kind.fields}:
        return column
    if isinstance(kind, (pl.List, pl.Array)):
        return column
    raise DataError(f"the column {column.name!r} does not hold lists of choices, nor {{text, label}}: it is {kind}")


def read_messages(column: "pl.Series", first_row: int) -> "pl.Series":
    """Conversations as lists of {role, content}. Raises DataError as read_choices."""
    import polars as pl

    message = pl.Struct({"role": pl.String, "content": pl.String})
    if column.dtype == pl.String:
        return _decode(column, pl.List(message), first_row, "a list of messages {role, content}")
    inner = getattr(column.dtype, "inner", None)
    there = {one.name: one.dtype for one in inner.fields} if isinstance(inner, pl.Struct) else {}
    if there.get("role") != pl.String or there.get("content") != pl.String:
        raise DataError(
            f"the column {column.name!r} does not hold lists of messages {{role, content}} whose content is text: "
            f"it is {column.dtype}"
        )
    return column.list.eval(pl.struct(pl.element().struct.field("role"), pl.element().struct.field("content")))


def split_messages(messages: "pl.Series") -> "pl.DataFrame":
    """What the conversations come to, one row each: `messages` before the answer, `text`, `target_text`.

    The answer is a last message of the assistant's; without one, all is the conversation and there is no target text.
    The text of a single message of the user's is its content; that of a longer conversation names the roles.
    """
    import polars as pl

    content, role = pl.element().struct.field("content"), pl.element().struct.field("role")
    every, last = pl.col("all"), pl.col("all").list.last()
    answered = last.struct.field("role") == "assistant"
    frame = (
        messages.alias("all")
        .to_frame()
        .select(
            pl.when(answered).then(every.list.head(every.list.len() - 1)).otherwise(every).alias("messages"),
            pl.when(answered).then(last.struct.field("content")).alias("target_text"),
        )
    )
    named = pl.concat_str(role.str.to_titlecase(), pl.lit(": "), content, ignore_nulls=True)
    first = pl.col("messages").list.first()
    alone = (pl.col("messages").list.len() == 1) & (first.struct.field("role") == "user")
    return frame.with_columns(
        pl.when(alone)
        .then(first.struct.field("content"))
        .otherwise(pl.col("messages").list.eval(named).list.join("\n\n"))
        .alias("text")
    )


def _decode(column: "pl.Series", kind: "pl.DataType", first_row: int, what: str) -> "pl.Series":
    """Read a column of JSON. Raises DataError that names the first value that is not `kind`."""
    import polars as pl

    try:
        return column.str.json_decode(kind)
    except pl.exceptions.PolarsError:
        for row, value in enumerate(column.to_list(), first_row):
            if value is not None and not _fits(value, kind):
                raise DataError(f"row {row}: {value[:80]!r} in the column {column.name!r} is not {what}") from None
        raise


def _fits(value: str, kind: "pl.DataType") -> bool:
    import polars as pl

    try:
        pl.Series([value]).str.json_decode(kind)
    except pl.exceptions.PolarsError:
        return False
    return True
