"""The rows of one split as training needs to know them before it reads them: which can be used, and their labels."""

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.errors import DataError, ShardError
from shared.schema import Status
from shared.shards.manifest import Manifest
from shared.shards.read import RowGroup, list_row_groups, read_row_group, read_row_groups
from shared.stores.ahead import fetch_ahead

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

# The columns that hold the right answer, by the task's kind; label for all others.
TRUTH = {
    "regression": ("target",),
    "multilabel": ("label_set",),
    "choice": ("label", "choices"),
    "generation": ("target_text", "references"),
}


@dataclass(frozen=True, slots=True)
class Split:
    """One entry a row in every array; a row's number counts through `groups` in order. About 15 bytes a row.

    `answered` is true where the teacher's answer is whole (status ok); `first` where the row is its example's first
    draw. `target` is a class index (int64) or a value (float32), or the labels that a row has (n, labels), booleans; it
    means nothing where `labelled` is false.
    `by_teacher` is whether the labels are the teacher's.
    """

    name: str
    groups: tuple[RowGroup, ...]
    answered: Bools
    first: Bools
    labelled: Bools
    target: np.ndarray[Any, Any]
    by_teacher: bool = False

    def __len__(self) -> int:
        return len(self.target)

    def starts(self) -> list[int]:
        """List the number of each group's first row."""
        return [0, *np.cumsum([group.rows for group in self.groups]).tolist()][:-1]


def read_split(folder: Path, manifest: Manifest, name: str) -> Split:
    """Look through a split's light columns.

    Raises ShardError for a split without sealed rows, and DataError for a label outside the task's, naming the row.
    """
    groups = tuple(list_row_groups(folder, manifest, name))
    if not groups:
        kept = sorted({shard.split for shard in manifest.shards})
        raise ShardError(
            f"{folder} has no sealed rows of the split {name!r}; it has {', '.join(kept) or 'none at all'}. "
            f"Run: harvest run --teacher {manifest.teacher} --task {manifest.task}"
        )
    rows = sum(group.rows for group in groups)
    # Filled in place: parts that are put together at the end would need twice the memory.
    answered, first, labelled = (np.empty(rows, np.bool_) for _ in range(3))
    targets = _make_targets(rows, manifest)
    start = 0
    columns = ["status", "draw", *TRUTH.get(manifest.kind, ("label",))]
    for group, table in zip(groups, read_row_groups(fetch_ahead(groups, columns), columns), strict=True):
        here = slice(start, start + group.rows)
        start += group.rows
        answered[here] = pc.equal(table["status"], Status.OK.value).to_numpy()
        first[here] = table["draw"].to_numpy() == 0
        labelled[here], targets[here] = _read_truth(group, table, manifest)
    return Split(name, groups, answered, first, labelled, targets)


def _make_targets(rows: int, manifest: Manifest) -> np.ndarray[Any, Any]:
    if manifest.kind == "multilabel":
        return np.zeros((rows, len(manifest.labels)), np.bool_)
    return np.empty(rows, np.float32 if manifest.kind == "regression" else np.int64)


def _read_truth(group: RowGroup, table: pa.Table, manifest: Manifest) -> tuple[Bools, np.ndarray[Any, Any]]:
    """Read which rows have a right answer, and their targets: 0 for texts. Raises DataError naming a wrong one."""
    if manifest.kind == "generation":
        labelled = table["target_text"].is_valid().to_numpy() | pc.fill_null(
            pc.greater(pc.list_value_length(table["references"]), 0), False
        ).to_numpy(zero_copy_only=False)
        return labelled, np.zeros(group.rows, np.int64)
    if manifest.kind == "multilabel":
        return _read_label_sets(group, table["label_set"], len(manifest.labels))
    column = "target" if manifest.kind == "regression" else "label"
    labelled = table[column].is_valid().to_numpy()
    target = table[column].fill_null(0).to_numpy()
    if manifest.kind == "regression":
        usable, limit = np.isfinite(target), "a number"
    elif manifest.kind == "choice":
        counts = pc.fill_null(pc.list_value_length(table["choices"]), 0).to_numpy()
        usable, limit = ~labelled | ((target >= 0) & (target < counts)), "one of its choices"
    else:
        usable = (target >= 0) & (target < len(manifest.labels))
        limit = f"one of the task's {len(manifest.labels)} labels"
    if not usable.all():
        row = int(np.argmin(usable))
        raise DataError(f"{describe_row(group, row)} has {column} {target[row]}, which is not {limit}")
    return labelled, target


def _read_label_sets(group: RowGroup, column: pa.ChunkedArray, labels: int) -> tuple[Bools, Bools]:
    """Read which rows have known labels, and which of them each row has, (n, labels)."""
    target = np.zeros((group.rows, labels), np.bool_)
    rows = pc.list_parent_indices(column).to_numpy()
    numbers = pc.list_flatten(column).fill_null(-1).to_numpy()
    usable = (numbers >= 0) & (numbers < labels)
    if not usable.all():
        at = int(np.argmin(usable))
        row = describe_row(group, int(rows[at]))
        raise DataError(f"{row} has the label {numbers[at]}, which is not one of the task's {labels} labels")
    target[rows, numbers] = True
    return column.is_valid().to_numpy(), target


def label_by_teacher(split: Split) -> Split:
    """Give every answered row the label that the teacher found most probable; rows without probabilities have none.

    Where a row may have several, it gets those that the teacher found likelier than not.
    """
    import polars as pl

    if split.target.ndim == 2:
        return _label_sets_by_teacher(split)

    best = [
        pl.DataFrame(pl.from_arrow(table))["label_logprobs"].list.arg_max()
        for table in read_row_groups(fetch_ahead(split.groups, ["label_logprobs"]), ["label_logprobs"])
    ]
    label = pl.concat(best)
    labelled = split.answered & label.is_not_null().to_numpy()
    return replace(split, labelled=labelled, target=label.fill_null(0).cast(pl.Int64).to_numpy(), by_teacher=True)


def _label_sets_by_teacher(split: Split) -> Split:
    target, labelled = np.zeros_like(split.target), split.answered.copy()
    for group, start in zip(split.groups, split.starts(), strict=True):
        logprobs = read_row_group(group, ["label_logprobs"])["label_logprobs"]
        given = logprobs.is_valid().to_numpy()
        labelled[start : start + group.rows] &= given
        likely = pc.list_flatten(logprobs).to_numpy() > np.log(0.5)
        target[np.flatnonzero(given) + start] = likely.reshape(-1, target.shape[1])
    return replace(split, labelled=labelled, target=target, by_teacher=True)


def describe_row(group: RowGroup, row: int) -> str:
    """Describe a row of a shard for a message: the file and the example."""
    sample_id = read_row_group(group, ["sample_id"])["sample_id"][row].as_py()
    return f"{group.path}: the row of example {sample_id!r}"


def describe_number(split: Split, number: int) -> str:
    """Describe a row by its number in the split: see describe_row."""
    for group, start in zip(split.groups, split.starts(), strict=True):
        if start <= number < start + group.rows:
            return describe_row(group, number - start)
    raise IndexError(number)


def keep_labels(split: Split, count: int, seed: int) -> Bools:
    """Mark the labelled rows that keep their label when only `count` examples of the split may have one.

    Stratified: each class keeps its share of `count`, rounded by largest remainder, and at least one label where
    `count` allows it; a row of several labels counts for the rarest of them. Within a class those with the smallest
    sha256 of seed and sample id stay, so the choice depends neither on the order of rows nor on how they are sharded.
    Only answered rows count. All draws of an example go together. Raises DataError where the split has fewer labelled
    examples than `count`.
    """
    usable = split.labelled & split.answered
    digests = _digest_rows(split, usable, seed)
    candidates = np.flatnonzero(usable)
    _, unique = np.unique(digests[candidates], return_index=True)  # sorted by digest; one draw an example
    candidates = candidates[unique]
    if count > len(candidates):
        raise DataError(
            f"the split {split.name} has {len(candidates)} labelled examples with an answer, "
            f"and {count} labels were asked for"
        )
    strata = _stratify(split.target[candidates])
    chosen = []
    for stratum, share in zip(*_share_out(strata, count), strict=True):
        chosen.append(candidates[strata == stratum][:share])
    return usable & np.isin(digests, digests[np.concatenate(chosen)])


def _stratify(target: np.ndarray[Any, Any]) -> Ints:
    """Give each row its class; of several labels the rarest, or the number of labels where it has none."""
    if target.ndim == 2:
        rare = np.argsort(target.sum(axis=0), kind="stable")  # labels, the rarest first
        found: Ints = np.append(rare, len(rare))[
            np.where(target.any(axis=1), target[:, rare].argmax(axis=1), len(rare))
        ]
        return found
    return target if target.dtype == np.int64 else np.zeros(len(target), np.int64)


def _digest_rows(split: Split, wanted: Bools, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Take the first 8 bytes of the sha256 of seed and sample id, of the rows that `wanted` marks; 0 for the others."""
    prefix = f"{seed}\0".encode()
    digests = np.zeros(len(split), np.uint64)
    for group, start in zip(fetch_ahead(split.groups, ["sample_id"]), split.starts(), strict=True):
        rows = np.flatnonzero(wanted[start : start + group.rows])
        if len(rows):
            ids = read_row_group(group, ["sample_id"])["sample_id"].take(pa.array(rows)).cast(pa.binary()).to_pylist()
            joined = b"".join([sha256(prefix + sample_id).digest() for sample_id in ids])
            digests[start + rows] = np.frombuffer(joined, ">u8")[::4]
    return digests


def _share_out(strata: np.ndarray[Any, Any], count: int) -> tuple[Ints, Ints]:
    """List the strata, and how many of `count` each gets."""
    names, sizes = np.unique(strata, return_counts=True)
    exact = sizes * count / sizes.sum()
    shares = np.floor(exact).astype(np.int64)
    if count >= len(names):
        shares = np.maximum(shares, 1)
    order = np.argsort(-(exact - shares), kind="stable")
    while (missing := count - shares.sum()) > 0:
        shares[[i for i in order if shares[i] < sizes[i]][:missing]] += 1
    while (surplus := shares.sum() - count) > 0:
        shares[np.argsort(-shares, kind="stable")[:surplus]] -= 1
    return names, shares
