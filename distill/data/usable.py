"""Which rows of a split a student that writes can learn from: those whose replies are wanted, are there, and fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from distill.config import OnlyReplies, PickedReplies
from distill.data.columns import Array
from distill.data.dialogues import EXAMPLE_COLUMNS, DialogueColumn, read_examples
from distill.data.split import Bools, Split
from shared.answers import AnswerRule
from shared.shards.read import read_row_group


@dataclass(frozen=True, slots=True)
class UsableRows:
    """The rows that are learnt, `wanted` (n,), and why others are not: how many of `asked` each reason left out.

    `right` of the `judged` replies state the right answer, where a rule judged them.
    """

    wanted: Bools
    asked: int
    judged: int
    right: int
    left_out: Mapping[str, int]

    def __str__(self) -> str:
        line = f"{int(self.wanted.sum()):,} of {self.asked:,} rows are learnt"
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in self.left_out.items() if count)
        line += f"; {reasons}" if reasons else ""
        return line + (f"; {self.right / self.judged:.1%} of the replies are right" if self.judged else "")


def choose_rows(
    split: Split,
    columns: Sequence[DialogueColumn],
    asked: Bools,
    rule: AnswerRule | None,
    only: OnlyReplies,
    pick: PickedReplies,
) -> UsableRows:
    """Choose among the rows that `asked` marks: those with a dialogue in each of `columns`, of at most its tokens.

    With `only` correct, those whose reply states the right answer by `rule`; and of several replies to an example the
    ones that `pick` names: the first of those that are left, the one of the fewest tokens, or all. Reads all rows once.
    """
    wanted = np.zeros(len(split), np.bool_)
    judged = right = missing = 0
    best: dict[str, tuple[int, int, int]] = {}  # by example: what is picked by, the draw, and the row's number
    names = dict.fromkeys((*EXAMPLE_COLUMNS, "reply", "draw", *(n for column in columns for n in column.shard_columns)))
    for group, start in zip(split.groups, split.starts(), strict=True):
        rows = np.flatnonzero(asked[start : start + group.rows])
        if not len(rows):
            continue
        table = read_row_group(group, list(names))
        kept = np.ones(len(rows), np.bool_)
        if rule is not None:
            correct = judge_replies(table, rows, rule)
            judged, right = judged + len(rows), right + int(correct.sum())
            kept &= correct if only == "correct" else True
        made = [column.encode_rows(table, rows) for column in columns]
        lengths = np.array(
            [
                0 if None in each else sum(len(one.reply) for one in each if one is not None)
                for each in zip(*made, strict=True)
            ]
        )
        missing += int((kept & (lengths == 0)).sum())
        kept &= lengths > 0
        wanted[rows[kept] + start] = True
        if pick != "all":
            ids = table["sample_id"].take(pa.array(rows)).to_pylist()
            draws = table["draw"].take(pa.array(rows)).to_pylist()
            for place in np.flatnonzero(kept):
                key = (int(lengths[place]) if pick == "shortest" else 0, draws[place], int(rows[place]) + start)
                best[ids[place]] = min(best.get(ids[place], key), key)
    count = int(wanted.sum())
    if pick != "all":
        wanted[:] = False
        wanted[[row for _, _, row in best.values()]] = True
    left_out = {
        "have a wrong reply": judged - right if only == "correct" else 0,
        "have no reply, or one that does not fit": missing,
        f"are not the {pick} of their prompt's": count - int(wanted.sum()),
    }
    return UsableRows(wanted, int(asked.sum()), judged, right, left_out)


def judge_replies(table: pa.Table, rows: Array, rule: AnswerRule) -> Bools:
    """Judge the replies of some rows of a table by a rule; one without a reply, or without an answer, is not right."""
    picked = table.select([*EXAMPLE_COLUMNS, "reply"]).take(pa.array(rows))
    found = []
    for example, reply in zip(read_examples(picked), picked["reply"].to_pylist(), strict=True):
        known = example.label is not None or example.target_text is not None or bool(example.references)
        found.append(
            reply is not None
            and known
            and rule.is_right(
                reply,
                choices=example.choices,
                label=example.label,
                target_text=example.target_text,
                references=example.references,
            )
        )
    return np.array(found, np.bool_)
