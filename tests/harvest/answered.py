"""Rows as the engine has them, of examples that a test makes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from harvest.asking.plan import Action
from harvest.asking.planned import AnsweredRows, PlannedRows
from shared.example import Example
from shared.schema import Row

_COLUMNS: dict[str, Any] = {
    "sample_id": pl.String,
    "text": pl.String,
    "text_pair": pl.String,
    "choices": pl.List(pl.String),
    "label": pl.Int32,
    "label_set": pl.List(pl.Int64),
    "target": pl.Float64,
    "target_text": pl.String,
    "references": pl.List(pl.String),
    "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String})),
}


def make_planned(examples: Sequence[Example], draws: Sequence[int], split: str = "train") -> PlannedRows:
    """Make rows of a plan of examples, in the columns of LoadedTask.frames."""
    values = {name: [getattr(one, name) for one in examples] for name in _COLUMNS}
    values["messages"] = [said and [one._asdict() for one in said] for said in values["messages"]]
    actions = np.full(len(examples), Action.ASK, np.uint8)
    return PlannedRows(split, pl.DataFrame(values, _COLUMNS), np.array(draws, np.int32), actions)


def make_answered(*rows: Row) -> AnsweredRows:
    """Make what is put into a journal of rows with their answers."""
    planned = make_planned([row.example for row in rows], [row.draw for row in rows])
    return AnsweredRows(planned, range(len(rows)), [row.request_key for row in rows], [row.answer for row in rows])
