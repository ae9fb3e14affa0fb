"""The rows that all compared teachers keep, as they are judged: one line a row and teacher.

A line is a name, a verdict, numbers, and hashes in place of texts: it is as short where a row says much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harvest.asking.plan import hash_sample_id
from harvest.asking.select import measure_sureness
from harvest.chat.imported import IMPORTED
from harvest.looking.agreement import JUDGED_BY, RIGHT, UNJUDGED, Judge, find_judge, judge_table
from shared.ceilings import hash_row_texts
from shared.errors import DataError, UsageError
from shared.schema import Status
from shared.shards import Manifest, iterate_pieces, load_manifest
from shared.shards.manifest import REMOVED
from shared.shards.read import list_splits

if TYPE_CHECKING:
    import polars as pl

Array: TypeAlias = np.ndarray[Any, Any]

LEAST_SAMPLE = 30  # rows: of fewer, and more that are no sample, all are shown and nothing is concluded

_KEY = ("split", "sample_id")
_COLUMNS = (*("sample_id", "text", "text_pair", "draw", "status", "residual_mass", "cost_usd"), *JUDGED_BY)


@dataclass(frozen=True, slots=True)
class TeacherAnswers:
    """The answers of one teacher to n rows, in an order that all teachers share. Each array is of shape (n,).

    `right` is whether a row is right; one without a whole answer is not. `known` is whether its right answer is known,
    `whole` whether it has a whole answer, and `said` stands for what it says, to be held against others (0: nothing).
    `label` is the known label, -1 without one; `probabilities`, (n, labels), are NaN in a row without them, and None
    where no row has any. `sure` is how sure it is of a row (see harvest.asking.select.measure_sureness), 0 without
    probabilities. `residual` and `cost_usd` are NaN where nobody knows them.
    """

    right: Array
    known: Array
    whole: Array
    said: Array
    label: Array
    probabilities: Array | None
    sure: Array
    residual: Array
    cost_usd: Array
    rule: str | None

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True, slots=True)
class CommonRows:
    """The answers of all compared teachers to the same rows, in the teachers' order.

    `is_sample` is whether the rows are a random sample of all: teachers that were asked about rows that were chosen for
    them (--escalate) are compared on those only where there are no others.
    """

    teachers: Sequence[TeacherAnswers]
    is_sample: bool


def read_common_rows(folders: Sequence[Path], split: str | None) -> CommonRows:
    """Read the rows that every one of `folders` was asked about, of one split or of all.

    Of several draws the first counts. Raises UsageError where the folders answer several tasks, or one of them says
    nothing; DataError where they have no row in common, or a row has another text in one of them.
    """
    manifests = [load_manifest(folder) for folder in folders]
    _check_same_task(folders, manifests)
    tables = [_read_table(folder, manifest, split) for folder, manifest in zip(folders, manifests, strict=True)]
    common = tables[0].select(_KEY)
    for table in tables[1:]:
        common = common.join(table, on=_KEY, how="semi")
    if common.is_empty():
        raise DataError(
            f"{' and '.join(map(str, folders))} were asked about no row in common: compare them with --task"
        )
    order = _find_sample(tables, common)
    is_sample = len(order) >= min(LEAST_SAMPLE, len(common))
    if not is_sample:
        order = common.sort(_KEY)
    rows = [order.join(table, on=_KEY, how="left", maintain_order="left") for table in tables]
    _check_same_texts(folders, rows)
    answers = [_make_answers(*one) for one in zip(manifests, rows, strict=True)]
    has_labels = manifests[0].kind in ("classification", "multilabel")
    wanted = "label probabilities" if has_labels else "replies"
    for folder, own in zip(folders, answers, strict=True):
        says = own.said.any() if wanted == "replies" else own.probabilities is not None
        if own.whole.any() and not says:
            raise UsageError(f"{folder} keeps no {wanted}, so nothing of it can be right or wrong")
    return CommonRows(answers, is_sample)


def _find_sample(tables: "Sequence[pl.DataFrame]", common: "pl.DataFrame") -> "pl.DataFrame":
    """The rows, split by split, that a limit lets in first and all were asked about, up to the first that one was not.

    A limit is a random sample, so these are one, whatever other rows a teacher was asked about. Rows whose right answer
    is known are looked at alone, where there are any: a comparison asks about no others.
    """
    import polars as pl

    every = pl.concat([table.select(*_KEY, "order", "known") for table in tables]).unique(_KEY, keep="last")
    known = every.filter("known")
    ordered = (every if known.is_empty() else known).sort("split", "order", "sample_id")
    marked = ordered.join(common.with_columns(in_all=1), on=_KEY, how="left", maintain_order="left")
    return marked.filter(pl.col("in_all").fill_null(0).cum_min().over("split") == 1).select(_KEY)


def _check_same_task(folders: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    first = manifests[0]
    for folder, other in zip(folders[1:], manifests[1:], strict=True):
        if (other.kind, other.labels) != (first.kind, first.labels):
            raise UsageError(
                f"{folder} answers with {', '.join(other.labels) or other.kind}, and {folders[0]} with "
                f"{', '.join(first.labels) or first.kind}: they are answers to different questions"
            )


def _check_same_texts(folders: Sequence[Path], rows: "Sequence[pl.DataFrame]") -> None:
    for folder, own in zip(folders[1:], rows[1:], strict=True):
        other = own.filter(own["text"] != rows[0]["text"])
        if not other.is_empty():
            split, name = other.select(_KEY).row(0)
            raise DataError(f"{folder}: the row {name} of {split} has another text there than in {folders[0]}")


def _read_table(folder: Path, manifest: Manifest, split: str | None) -> "pl.DataFrame":
    """The rows that a teacher was asked about, each with its verdict."""
    import polars as pl

    found = find_judge(manifest)
    judge = None if found is None else found[1]
    parts = []
    for name in [split] if split else list_splits(folder, manifest):
        if name != REMOVED:
            for piece in iterate_pieces(folder, manifest, _COLUMNS, name):
                table = piece.table.select(_COLUMNS).filter(pa.array(piece.current))
                asked = pc.and_(pc.equal(table["draw"], 0), pc.not_equal(table["status"], str(Status.UNASKED)))
                several = manifest.kind == "multilabel"
                parts.append(_condense(name, table.filter(asked), judge, several=several))
    return pl.concat(parts) if parts else pl.DataFrame(schema=dict.fromkeys(_KEY, pl.String))


def _condense(split: str, table: pa.Table, judge: Judge | None, *, several: bool) -> "pl.DataFrame":
    """Make of rows what is compared: each text and reply becomes a hash."""
    import polars as pl

    verdicts = np.full(table.num_rows, UNJUDGED) if judge is None else judge_table(judge, table)
    frame = pl.DataFrame(pl.from_arrow(table))
    replies = [None if reply is None else " ".join(reply.split()).casefold() for reply in frame["reply"].to_list()]
    names = frame["sample_id"].to_list()
    whole = pl.col("status") == str(Status.OK)
    scores = pl.col("label_logprobs").list
    likely = scores.eval((pl.element() > math.log(0.5)).cast(pl.String)).list.join("")
    label = likely.hash(0) if several else scores.arg_max().cast(pl.UInt64) + 1
    texts = [pl.col(name).is_not_null() for name in ("label", "label_set", "target_text")]
    return frame.select(
        pl.lit(split).alias("split"),
        "sample_id",
        pl.Series("order", [hash_sample_id(name) for name in names], pl.UInt64),
        hash_row_texts(frame),
        whole.alias("whole"),
        pl.any_horizontal(*texts, (pl.col("references").list.len() > 0).fill_null(value=False)).alias("known"),
        pl.Series("right", verdicts == RIGHT),
        pl.when(whole & pl.col("label_logprobs").is_not_null())
        .then(label)
        .when(whole & pl.col("reply").is_not_null())
        .then(pl.Series(replies, dtype=pl.String).hash(0))
        .otherwise(0)
        .alias("said"),
        "label",
        pl.when(whole).then(pl.col("label_logprobs")).alias("logprobs"),
        "residual_mass",
        "cost_usd",
    )


def _make_answers(manifest: Manifest, rows: "pl.DataFrame") -> TeacherAnswers:
    judge = find_judge(manifest)
    cost: Array = _to_floats(rows["cost_usd"])
    if manifest.recipe.get("teacher") == IMPORTED:  # what was paid for it was paid elsewhere: 0 is no price of it
        cost = np.full(len(rows), np.nan)
    probabilities, sure = _read_probabilities(rows["logprobs"]), np.zeros(len(rows))
    if probabilities is not None:
        sure = np.nan_to_num(measure_sureness(probabilities, several=manifest.kind == "multilabel"), nan=0.0)
    return TeacherAnswers(
        right=rows["right"].to_numpy(),
        known=rows["known"].to_numpy() & (judge is not None),
        whole=rows["whole"].to_numpy(),
        said=rows["said"].to_numpy(),
        label=rows["label"].fill_null(-1).to_numpy(),
        probabilities=probabilities,
        sure=sure,
        residual=_to_floats(rows["residual_mass"]),
        cost_usd=cost,
        rule=None if judge is None else judge[0],
    )


def _read_probabilities(logprobs: "pl.Series") -> Array | None:
    told = logprobs.is_not_null().to_numpy()
    if not told.any():
        return None
    values = np.exp(logprobs.drop_nulls().explode().to_numpy().astype(np.float64)).reshape(int(told.sum()), -1)
    probabilities = np.full((len(logprobs), values.shape[1]), np.nan)
    probabilities[told] = values
    return probabilities


def _to_floats(column: "pl.Series") -> Array:
    import polars as pl

    return column.cast(pl.Float64).fill_null(np.nan).to_numpy()
