"""Frozen dataclasses as columns, for messages of many: object by object, to pickle them costs ten times as much."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import repeat
from typing import Any, TypeAlias, TypeVar

Item = TypeVar("Item")
Columns: TypeAlias = Mapping[str, Sequence[Any]]  # by field; one that is None throughout is left out


def pack(items: Sequence[Any]) -> Columns:
    """The fields of `items`, which are of one dataclass, as columns."""
    columns = {field.name: [getattr(item, field.name) for item in items] for field in fields(items[0])} if items else {}
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def unpack(kind: type[Item], columns: Columns) -> Iterator[Item]:
    """The items, of the dataclass `kind`, that pack has made columns of."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if columns:
        yield from map(kind, *(columns.get(name, repeat(None)) for name in names))
