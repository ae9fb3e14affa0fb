"""The rows that all compared teachers keep, as they are judged: one line a row and teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from harvest.asking.plan import hash_sample_id
from harvest.chat.imported import IMPORTED
from harvest.looking.agreement import JUDGED_BY, RIGHT, find_judge, judge_table
from shared.errors import DataError, UsageError
from shared.schema import Status
from shared.shards import iterate_pieces, load_manifest
from shared.shards.manifest import REMOVED
from shared.shards.read import list_splits

Array: TypeAlias = np.ndarray[Any, Any]
_Key: TypeAlias = tuple[str, str]  # split and sample id

LEAST_SAMPLE = 30  # rows: of fewer, and more that are no sample, all are shown and nothing is concluded

_COLUMNS = (
    *("sample_id", "text", "text_pair", "draw", "status", "residual_mass", "cost_usd", "latency_ms"),
    *JUDGED_BY,
)


@dataclass(frozen=True, slots=True)
class Rows:
    """The answers of one teacher to n rows, in an order that all teachers share. Each array is of shape (n,).

    `right` is whether a row is right; one without a whole answer is not. `known` is whether its right answer is known,
    `whole` whether it has a whole answer, and `said` what it says, to be held against others (None: nothing). `label`
    is the known label, -1 without one; `probabilities`, (n, labels), are NaN in a row without them, and None where no
    row has any. `cost_usd` and `latency_ms` are NaN where nobody knows them.
    """

    right: Array
    known: Array
    whole: Array
    said: Array
    label: Array
    probabilities: Array | None
    residual: Array
    cost_usd: Array
    latency_ms: Array
    rule: str | None

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True, slots=True)
class CommonRows:
    """The answers of all compared teachers to the same rows, in the teachers' order.

    `is_sample` is whether the rows are a random sample of all: teachers that were asked about rows that were chosen for
    them (--escalate) are compared on those only where there are no others.
    """

    teachers: Sequence[Rows]
    is_sample: bool


def read_common_rows(folders: Sequence[Path], split: str | None) -> CommonRows:
    """Read the rows that every one of `folders` was asked about, of one split or of all.

    Of several draws the first counts. Raises UsageError where the folders answer several tasks, or one of them says
    nothing; DataError where they have no row in common, or a row has another text in one of them.
    """
    _check_same_task(folders)
    tables = [_read_table(folder, split) for folder in folders]
    common = set(tables[0])
    for table in tables[1:]:
        common &= set(table)
    if not common:
        raise DataError(
            f"{' and '.join(map(str, folders))} were asked about no row in common: compare them with --task"
        )
    order = _find_sample(tables)
    is_sample = len(order) >= min(LEAST_SAMPLE, len(common))
    if not is_sample:
        order = sorted(common)
    for folder, table in zip(folders[1:], tables[1:], strict=True):
        for key in order:
            if (table[key]["text"], table[key]["text_pair"]) != (tables[0][key]["text"], tables[0][key]["text_pair"]):
                raise DataError(f"{folder}: the row {key[1]} of {key[0]} has another text there than in {folders[0]}")
    rows = [_make_rows(folder, [table[key] for key in order]) for folder, table in zip(folders, tables, strict=True)]
    wanted = "label probabilities" if load_manifest(folders[0]).kind == "classification" else "replies"
    for folder, own in zip(folders, rows, strict=True):
        says = own.said if wanted == "replies" else own.probabilities
        if own.whole.any() and (says is None or all(one is None for one in says)):
            raise UsageError(f"{folder} keeps no {wanted}, so nothing of it can be right or wrong")
    return CommonRows(rows, is_sample)


def _find_sample(tables: Sequence[Mapping[_Key, dict[str, Any]]]) -> list[_Key]:
    """The rows, split by split, that a limit lets in first and all were asked about, up to the first that one was not.

    A limit is a random sample, so these are one, whatever other rows a teacher was asked about. Rows whose right answer
    is known are looked at alone, where there are any: a comparison asks about no others.
    """
    every = {key: row for table in tables for key, row in table.items()}
    known = [key for key, row in every.items() if _is_known(row)] or list(every)
    found: list[_Key] = []
    for split in dict.fromkeys(key[0] for key in known):
        own = sorted((hash_sample_id(key[1]), key) for key in known if key[0] == split)
        found += [key for _, key in takewhile(partial(_is_in_all, tables), own)]
    return found


def _is_in_all(tables: Sequence[Mapping[_Key, dict[str, Any]]], hashed: tuple[int, _Key]) -> bool:
    return all(hashed[1] in table for table in tables)


def _check_same_task(folders: Sequence[Path]) -> None:
    first, *others = [load_manifest(folder) for folder in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        if (other.kind, other.labels) != (first.kind, first.labels):
            raise UsageError(
                f"{folder} answers with {', '.join(other.labels) or other.kind}, and {folders[0]} with "
                f"{', '.join(first.labels) or first.kind}: they are answers to different questions"
            )


def _read_table(folder: Path, split: str | None) -> dict[_Key, dict[str, Any]]:
    """The rows that a teacher was asked about, by split and sample id, each with its verdict."""
    manifest = load_manifest(folder)
    judge = find_judge(manifest)
    found = {}
    for name in [split] if split else list_splits(folder, manifest):
        if name == REMOVED:
            continue
        for piece in iterate_pieces(folder, manifest, _COLUMNS, name):
            table = piece.table.select(_COLUMNS).filter(pa.array(piece.current))
            verdicts = np.full(table.num_rows, -1) if judge is None else judge_table(judge[1], table)
            for row, verdict in zip(table.to_pylist(), verdicts.tolist(), strict=True):
                if row["draw"] == 0 and row["status"] != Status.UNASKED:
                    found[name, row["sample_id"]] = {**row, "verdict": verdict}
    return found


def _make_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> Rows:
    manifest = load_manifest(folder)
    judge = find_judge(manifest)
    whole = np.array([row["status"] == Status.OK for row in rows])
    scores = [row["label_logprobs"] for row in rows]
    width = next((len(one) for one in scores if one is not None), None)
    probabilities = None
    if width is not None:
        none = [np.nan] * width
        logprobs = np.array([none if one is None else one for one in scores], np.float64)
        probabilities = np.where(whole[:, None], np.exp(logprobs), np.nan)
    known = np.array([judge is not None and _is_known(row) for row in rows])
    return Rows(
        right=np.array([row["verdict"] == RIGHT for row in rows]),
        known=known,
        whole=whole,
        said=np.array([_name_answer(row) for row in rows], object),
        label=np.array([-1 if row["label"] is None else row["label"] for row in rows]),
        probabilities=probabilities,
        residual=_to_floats(rows, "residual_mass"),
        # What rows of several folders cost was paid there: here stands 0, which is no price of theirs.
        cost_usd=np.full(len(rows), np.nan)
        if manifest.recipe.get("teacher") == IMPORTED
        else _to_floats(rows, "cost_usd"),
        latency_ms=_to_floats(rows, "latency_ms"),
        rule=None if judge is None else judge[0],
    )


def _is_known(row: dict[str, Any]) -> bool:
    return row["label"] is not None or row["target_text"] is not None or bool(row["references"])


def _name_answer(row: dict[str, Any]) -> Any:
    """What a row says, as it is held against another teacher's: its most probable label, or its text."""
    if row["status"] != Status.OK:
        return None
    if row["label_logprobs"] is not None:
        return int(np.argmax(row["label_logprobs"]))
    return None if row["reply"] is None else " ".join(row["reply"].split()).casefold()


def _to_floats(rows: Sequence[dict[str, Any]], name: str) -> Array:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
