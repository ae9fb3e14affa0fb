"""Frozen dataclasses as columns, for messages of many: object by object, to pickle them costs ten times as much."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import repeat
from typing import Any, TypeAlias, TypeVar

import numpy as np

Item = TypeVar("Item")
Columns: TypeAlias = Mapping[str, Sequence[Any]]  # by field; one that is None throughout is left out


def pack(items: Sequence[Any]) -> Columns:
    """The fields of `items`, which are of one dataclass, as columns; vectors of one length as one matrix."""
    if not items:
        return {}
    columns: dict[str, Sequence[Any]] = {}
    for field in fields(items[0]):
        values = [getattr(item, field.name) for item in items]
        if any(value is not None for value in values):
            columns[field.name] = _stack(values)
    return columns


def unpack(kind: type[Item], columns: Columns) -> Iterator[Item]:
    """The items, of the dataclass `kind`, that pack has made columns of."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if columns:
        yield from map(kind, *(columns.get(name, repeat(None)) for name in names))


def _stack(values: list[Any]) -> Sequence[Any]:
    first = values[0]
    if not isinstance(first, np.ndarray):
        return values
    alike = all(isinstance(one, np.ndarray) and one.dtype == first.dtype and one.shape == first.shape for one in values)
    return np.stack(values) if alike else values  # type: ignore[return-value]
