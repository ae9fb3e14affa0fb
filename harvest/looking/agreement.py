"""How many of a teacher's answers are right, where the right ones are known: by the task's own rule, split by split.

A classification's answer is its most probable label; of several labels a row those that are likelier than not, and it
is right where they are exactly the row's. A reply is judged by the task's answer rule (shared.answers). Only
answers that came are judged: refused rows, and those that failed, were cut or cannot be read, are counted apart. So are
further draws: the share and its interval are of the first draw, one answer an example, which no example is in twice.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.answers import AnswerRule, find_rule
from shared.buckets import Buckets, Hashes, join_buckets
from shared.schema import Status
from shared.shards import Manifest, iterate_pieces, load_manifest
from shared.shards.manifest import REMOVED
from shared.shards.read import list_splits

_Verdicts: TypeAlias = np.ndarray[Any, np.dtype[np.int8]]
Judge: TypeAlias = Callable[[pa.Table], _Verdicts]

UNJUDGED, WRONG, RIGHT = -1, 0, 1
ALL_SPLITS = "all"
_Z = 1.959964  # of 95 %
JUDGED_BY = ("label", "label_set", "label_logprobs", "reply", "choices", "target_text", "references")
_COLUMNS = ("sample_id", "draw", "status", *JUDGED_BY)
_PROMPT = np.dtype([("hash", np.uint64), ("right", np.bool_)])  # of a judged row: its sample id, hashed


@dataclass(slots=True)
class Count:
    """What was judged of some rows. `judged` and `right` are of first draws; `drawn` and `drawn_right` of all draws.

    `prompts` counts the examples of which any draw was judged, and `prompts_right` those of which one is right.
    `refused` and `unread` are the rows, of all draws, that the teacher declined and that brought no whole answer.
    """

    judged: int = 0
    right: int = 0
    drawn: int = 0
    drawn_right: int = 0
    prompts: int = 0
    prompts_right: int = 0
    refused: int = 0
    unread: int = 0

    def add(self, other: "Count") -> None:
        """Add the counts of other rows."""
        for name, number in asdict(other).items():
            setattr(self, name, getattr(self, name) + number)

    def describe(self) -> dict[str, Any]:
        """The counts, the share of the first draws that are right, and the ends of its 95 % interval."""
        low, high = find_wilson_interval(self.right, self.judged)
        share = self.right / self.judged if self.judged else None
        return {"share": share, "low": low, "high": high, **asdict(self)}


@dataclass(slots=True)
class Agreement:
    """How a teacher's answers agree with the right ones, by split. `rule` is what judged them."""

    rule: str
    splits: dict[str, Count] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """All of it as JSON: each split, and where there are several all of them together."""
        total = Count()
        for count in self.splits.values():
            total.add(count)
        parts = self.splits if len(self.splits) == 1 else {**self.splits, ALL_SPLITS: total}
        return {"rule": self.rule, "splits": {name: count.describe() for name, count in parts.items()}}


def find_wilson_interval(right: int, judged: int) -> tuple[float | None, float | None]:
    """The ends of the 95 % interval of a share (Wilson, JASA 22, 1927); None where nothing was judged."""
    if not judged:
        return None, None
    share, extra = right / judged, _Z * _Z / judged
    middle = (share + extra / 2) / (1 + extra)
    half = _Z * math.sqrt(share * (1 - share) / judged + extra / (4 * judged)) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)


def judge_folder(folder: Path, manifest: Manifest | None = None) -> Agreement | None:
    """Judge all current rows of a teacher folder; None where nothing in it can be right or wrong."""
    manifest = manifest or load_manifest(folder)
    found = find_judge(manifest)
    if found is None:
        return None
    rule, judge = found
    agreement = Agreement(rule)
    prompts: dict[str, Buckets] = defaultdict(partial(Buckets, _PROMPT))
    pieces = (
        piece
        for split in list_splits(folder, manifest)
        if split != REMOVED
        for piece in iterate_pieces(folder, manifest, _COLUMNS, split)
    )
    for piece in pieces:
        table = piece.table.select(_COLUMNS).filter(pa.array(piece.current))
        statuses = table["status"]
        verdicts = judge_table(judge, table)
        first = table["draw"].to_numpy() == 0
        known = verdicts != UNJUDGED
        count = Count(
            judged=int((known & first).sum()),
            right=int(((verdicts == RIGHT) & first).sum()),
            drawn=int(known.sum()),
            drawn_right=int((verdicts == RIGHT).sum()),
            refused=_count(statuses, Status.REFUSED),
            unread=_count(statuses, Status.FAILED, Status.TRUNCATED, Status.UNPARSABLE),
        )
        agreement.splits.setdefault(piece.split, Count()).add(count)
        seen = np.empty(int(known.sum()), _PROMPT)
        seen["hash"] = _hash_names(table["sample_id"].filter(pa.array(known)))
        seen["right"] = verdicts[known] == RIGHT
        prompts[piece.split].add(seen, seen["hash"])
    for split, buckets in prompts.items():
        for (seen,) in join_buckets(buckets):
            agreement.splits[split].prompts += _count_different(seen["hash"])
            agreement.splits[split].prompts_right += _count_different(seen["hash"][seen["right"]])
    judged = {split: count for split, count in agreement.splits.items() if count.drawn}
    return Agreement(rule, judged) if judged else None


def find_judge(manifest: Manifest) -> tuple[str, Judge] | None:
    """What judges the rows of a manifest, and its name; None where there is nothing to judge.

    A judge takes a table with the columns JUDGED_BY and gives RIGHT, WRONG or UNJUDGED for each of its rows.
    """
    if manifest.kind == "classification":
        return "the most probable label", _judge_labels
    if manifest.kind == "multilabel":
        return "the whole set of labels", _judge_label_sets
    if manifest.answer_rule is None or "score_given" in manifest.recipe:  # a given text says nothing of the teacher
        return None
    return f"the rule {manifest.answer_rule}", _ReplyJudge(find_rule(manifest.answer_rule))


def judge_table(judge: Judge, table: pa.Table) -> _Verdicts:
    """What a judge says of the rows of a table, those left unjudged that brought no whole answer.

    The table has the columns JUDGED_BY and `status`.
    """
    answered = pc.equal(table["status"], str(Status.OK)).to_numpy()
    return np.where(answered, judge(table), np.int8(UNJUDGED))


def describe_agreement(found: Mapping[str, Any]) -> list[str]:
    """What Agreement.describe gave, as lines for a person."""
    lines = []
    for split, count in found["splits"].items():
        if count["share"] is None:
            continue
        line = (
            f"{split}: {count['right']:,} of {count['judged']:,} answers are right by {found['rule']}, "
            f"{count['share']:.1%} ({count['low']:.1%} to {count['high']:.1%})"
        )
        if count["drawn"] > count["judged"]:
            line += (
                f"; of all {count['drawn']:,} draws {count['drawn_right'] / count['drawn']:.1%}, and of "
                f"{count['prompts_right']:,} of {count['prompts']:,} prompts at least one"
            )
        apart = [f"{count[name]:,} {name}" for name in ("refused", "unread") if count[name]]
        lines.append(f"{line}; not judged: {', '.join(apart)}" if apart else line)
    return lines


def _hash_names(names: pa.ChunkedArray) -> Hashes:
    import polars as pl

    return pl.Series(pl.from_arrow(names)).cast(pl.String).hash().to_numpy()


def _count_different(hashes: Hashes) -> int:
    ordered = np.sort(hashes)
    return int((ordered[1:] != ordered[:-1]).sum()) + bool(len(ordered))


def _count(statuses: pa.ChunkedArray, *wanted: Status) -> int:
    return int(pc.sum(pc.is_in(statuses, value_set=pa.array(list(map(str, wanted))))).as_py() or 0)


def _judge_labels(table: pa.Table) -> _Verdicts:
    verdicts = np.full(table.num_rows, UNJUDGED, np.int8)
    known = pc.and_(table["label"].is_valid(), table["label_logprobs"].is_valid()).to_numpy()
    if known.any():
        scores = table["label_logprobs"].filter(pa.array(known)).combine_chunks()
        said = scores.flatten().to_numpy().reshape(int(known.sum()), -1).argmax(axis=1)
        verdicts[known] = said == table["label"].filter(pa.array(known)).to_numpy()
    return verdicts


def _judge_label_sets(table: pa.Table) -> _Verdicts:
    verdicts = np.full(table.num_rows, UNJUDGED, np.int8)
    known = pc.and_(table["label_set"].is_valid(), table["label_logprobs"].is_valid()).to_numpy()
    if known.any():
        rows = table.select(["label_set", "label_logprobs"]).filter(pa.array(known))
        scores = rows["label_logprobs"].combine_chunks()
        said = scores.flatten().to_numpy().reshape(rows.num_rows, -1) > math.log(0.5)
        right = np.zeros_like(said)
        right[pc.list_parent_indices(rows["label_set"]).to_numpy(), pc.list_flatten(rows["label_set"]).to_numpy()] = 1
        verdicts[known] = (said == right).all(axis=1)
    return verdicts


@dataclass(frozen=True, slots=True)
class _ReplyJudge:
    """Judges replies by an answer rule."""

    rule: AnswerRule

    def __call__(self, table: pa.Table) -> _Verdicts:
        columns: Sequence[Sequence[Any]] = [
            table[name].to_pylist() for name in ("reply", "choices", "label", "target_text", "references")
        ]
        return np.array([self._judge(*row) for row in zip(*columns, strict=True)], np.int8)

    def _judge(self, reply: Any, choices: Any, label: Any, target_text: Any, references: Any) -> int:
        has_right = (choices is not None and label is not None) or bool(references) or target_text is not None
        if reply is None or not has_right:
            return UNJUDGED
        is_right = self.rule.is_right(
            reply, choices=choices, label=label, target_text=target_text, references=references
        )
        return RIGHT if is_right else WRONG
