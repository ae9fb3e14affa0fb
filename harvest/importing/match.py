"""Which row of a file is which row of the task: by id, by text, or by order where there are as many."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shared.errors import DataError
from shared.tasks import LoadedTask

if TYPE_CHECKING:
    import polars as pl

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

NOWHERE = -1
_ENDINGS = 64  # of a prompt, that are held against the texts
_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Keys:
    """What tells the rows of a file apart. `ids` are one a row, None where they are matched by order or by texts.

    `places` are what match_texts found, where rows are matched by texts. `name` is what a user calls them: a column.
    """

    file: str
    rows: int
    name: str = ""
    ids: "pl.Series | None" = None
    texts: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True, slots=True)
class Matching:
    """The number in the file of each row of a split, NOWHERE where it has none; `by` says how they were matched.

    `strangers` counts the file's rows that are no row of the task.
    """

    by: str
    places: Mapping[str, Ints]
    strangers: int

    @property
    def missing(self) -> int:
        """How many rows of the splits have no row in the file."""
        return sum(int((places == NOWHERE).sum()) for places in self.places.values())


def match_rows(loaded: LoadedTask, splits: Sequence[str], keys: Keys) -> Matching:
    """Find the file's row of each row of `splits`. Raises DataError that says what does not fit."""
    if keys.ids is not None:
        return _match_ids(loaded, splits, keys, keys.ids)
    if keys.texts is not None:
        return _match_texts(loaded, splits, keys, keys.texts)
    return _match_order(loaded, splits, keys)


# --- by order ---


def _match_order(loaded: LoadedTask, splits: Sequence[str], keys: Keys) -> Matching:
    for chosen in (list(splits), list(loaded.splits)):
        numbers = loaded.number_rows(chosen)
        if sum(map(len, numbers.values())) == keys.rows:
            places = {split: numbers[split] for split in splits}
            return Matching(f"their order ({', '.join(chosen)})", places, keys.rows - sum(map(len, places.values())))
    counts = ", ".join(f"{split} {loaded.splits[split]:,}" for split in splits)
    raise DataError(
        f"{keys.file} has {keys.rows:,} rows, and {loaded.task.name} has {counts}: rows are matched by their order "
        "only where there are as many. Name the column, or the file, of their ids with --ids; or give each split a "
        "file of its own: train=FILE"
    )


# --- by id ---


def _match_ids(loaded: LoadedTask, splits: Sequence[str], keys: Keys, ids: "pl.Series") -> Matching:
    import polars as pl

    file = pl.DataFrame({"id": ids.cast(pl.String), "row": np.arange(len(ids))}).drop_nulls("id")
    _refuse_twice(keys, file)
    frames = [
        pl.DataFrame({"id": frame["sample_id"]}).with_columns(split=pl.lit(split))
        for split, frame in loaded.frames(splits)
    ]
    found = pl.concat(frames).join(file, on="id", how="left", maintain_order="left")
    both = found.filter(pl.col("row").is_not_null() & pl.col("id").is_duplicated())
    if both.height:
        name = both["id"][0]
        where = " and ".join(both.filter(pl.col("id") == name)["split"].unique(maintain_order=True))
        raise DataError(
            f"the id {name!r} of {keys.file} is a row of {where}: nobody knows which one is meant. Give each split a "
            "file of its own, train=FILE, or name one split with --split"
        )
    matched = int(found["row"].is_not_null().sum())
    if not matched:
        raise DataError(
            f"{keys.file}: no id ({keys.name}) is that of a row of {loaded.task.name}. There it is, for one, "
            f"{_show(file['id'][0]) if file.height else 'empty'}, and here {_show(found['id'][0])}; ids are the task's "
            "--id-column, or the split and the number of the row"
        )
    places = {
        split: found.filter(pl.col("split") == split)["row"].fill_null(NOWHERE).to_numpy().astype(np.int64)
        for split in splits
    }
    return Matching(f"the ids in {keys.name}", places, keys.rows - matched)


def _refuse_twice(keys: Keys, file: "pl.DataFrame") -> None:
    import polars as pl

    twice = file.filter(pl.col("id").is_duplicated())
    if twice.height:
        name = twice["id"][0]
        first, second = twice.filter(pl.col("id") == name)["row"][:2]
        raise DataError(
            f"{keys.file}: the id {name!r} ({keys.name}) stands in the rows {first} and {second}; {twice.height:,} "
            "rows share an id with another. A row has one answer: leave one of each out"
        )


def _show(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


# --- by text ---


def hash_text(text: str) -> int:
    """64 bits that stand for a text, white space around it aside."""
    return int.from_bytes(blake2b(text.strip().encode(), digest_size=8).digest())


def join_texts(parts: Iterable[str | None]) -> str:
    """The text fields of a row as one text."""
    return "\n\n".join(part.strip() for part in parts if part)


def hash_endings(prompt: str) -> list[int]:
    """Hash a prompt, and each ending of it that begins a line or follows a colon: what was asked about comes last."""
    starts = [0]
    for at, letter in enumerate(prompt):
        if letter == "\n" or (letter == ":" and prompt[at + 1 : at + 2] == " "):
            starts.append(at + 1)
    kept = starts if len(starts) <= _ENDINGS else [0, *starts[-_ENDINGS:]]
    return [hash_text(prompt[at:]) for at in kept if prompt[at:].strip()]


@dataclass(slots=True)
class _Rows:
    """The rows of the task, and of the file, that have one text."""

    wanted: list[tuple[str, int]] = field(default_factory=list)
    given: list[int] = field(default_factory=list)


def _match_texts(loaded: LoadedTask, splits: Sequence[str], keys: Keys, texts: Sequence[Sequence[int]]) -> Matching:
    """Match by text: the k-th row of the task that has a text has the file's k-th, or its last."""
    rows: dict[int, _Rows] = defaultdict(_Rows)
    starts = dict.fromkeys(splits, 0)
    for split, frame in loaded.frames(splits):
        for number, parts in enumerate(frame.select("text", "text_pair").iter_rows(), starts[split]):
            rows[hash_text(join_texts(parts))].wanted.append((split, number))
        starts[split] += frame.height
    strangers = 0
    for row, hashes in enumerate(texts):
        key = next((one for one in hashes if one in rows), None)
        if key is None:
            strangers += 1
        else:
            rows[key].given.append(row)
    places = {split: np.full(loaded.splits[split], NOWHERE, np.int64) for split in splits}
    for own in rows.values():
        strangers += max(0, len(own.given) - len(own.wanted))
        for index, (split, number) in enumerate(own.wanted if own.given else ()):
            places[split][number] = own.given[min(index, len(own.given) - 1)]
    if all((one == NOWHERE).all() for one in places.values()):
        raise DataError(
            f"{keys.file}: no text ({keys.name}) is, or ends with, that of a row of {loaded.task.name}. Match the rows "
            "by their ids with --ids"
        )
    return Matching(f"the texts in {keys.name}", places, strangers)
