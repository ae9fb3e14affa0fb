"""The scores of a student that writes: one number a row, by likelihood of choices, by written replies, or by tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from distill.data.columns import Array
from distill.data.dialogues import EXAMPLE_COLUMNS, DialogueColumn, Learnt, read_examples
from distill.data.run_rows import mark_scored
from distill.data.sequences import Sequences, join_sequences
from distill.data.split import Bools, Split
from distill.data.usable import choose_rows
from distill.methods.writing import WritingMaterials
from distill.models.generator import Generator
from distill.scoring.generate import generate_replies
from distill.scoring.replies import REPLY_METRICS, Written, score_by_likelihood, score_replies, write_replies
from distill.scoring.tokens import Taken, measure_replies
from shared.errors import UsageError
from shared.example import Example
from shared.shards.manifest import Manifest
from shared.shards.read import read_row_group

REPLIES = "replies"
# What a student makes of dialogues, by split and words: measured once, as long as it learns nothing in between.
Measured: TypeAlias = "dict[tuple[str, Learnt], list[Taken]]"


@dataclass(frozen=True, slots=True)
class Said:
    """A score a row, float64 (n,), of the rows `number` (n,) of a split; and the replies that were written, if any."""

    number: Array
    score: Array
    examples: Sequence[Example] = ()
    written: Sequence[Written] = ()


class WritingScores:
    """Scores a student on the dev rows, as often as it is asked, and at last on all rows."""

    def __init__(self, materials: WritingMaterials, generator: Generator) -> None:
        self._materials, self._generator = materials, generator
        self._taken: dict[tuple[str, Learnt], tuple[Array, Sequences] | None] = {}
        rows = materials.rows
        if materials.config.generative.score_by == "task" and rows.manifest.kind == "generation":
            check_metric(rows.manifest)
        dev = _choose_some(mark_scored(rows.dev), materials.config.generative.dev_rows)
        self._splits: dict[str, tuple[Split, Bools]] = {"validation": (rows.dev, dev)}
        if rows.test is not None:
            self._splits["test"] = (rows.test, mark_scored(rows.test))
        self._examples: dict[str, tuple[Array, list[Example]]] = {}

    @property
    def metric(self) -> str:
        """What the mean of a row's scores is called."""
        by = self._materials.config.generative.score_by
        return {"task": self._materials.rows.manifest.metric, "acc-norm": "acc_norm", "nll": "minus_nll"}.get(by, by)

    def score_dev(self) -> float:
        """Give the mean score of the dev rows."""
        return float(self._score("validation", {}).score.mean())

    def say_all(self) -> dict[str, Said]:
        """Score all rows, by split; `<split>_nll` is the references' and `<split>_agreement` the teacher's.

        Those are there where the rows have references, and top Ks of the student's own tokenizer.
        """
        measured: Measured = {}
        said = {split: self._score(split, measured) for split in self._splits}
        for split in self._splits:
            if (nll := self._measure(split, "reference", measured)) is not None:
                said[f"{split}_nll"] = Said(nll[0], np.array([each.nll for each in nll[1]]))
            if self._materials.same_tokenizer and (own := self._measure(split, "reply", measured)) is not None:
                agreed = [each.agreement for each in own[1]]
                has = np.array([each is not None for each in agreed], np.bool_)
                if has.any():
                    values = np.array([each for each in agreed if each is not None])
                    said[f"{split}_agreement"] = Said(own[0][has], values)
        return said

    def list_prompts(self, count: int) -> list[list[int]]:
        """List the token ids of a few dev rows' prompts."""
        _, examples = self._read("validation")
        return self._encode(examples[:count])

    def write_replies(self, said: Mapping[str, Said], folder: Path) -> None:
        """Write replies/<split>.parquet for each split that was scored by what the student wrote."""
        for split, each in said.items():
            if each.written:
                write_replies(folder / REPLIES / f"{split}.parquet", each.examples, each.written)

    def _score(self, split: str, measured: Measured) -> Said:
        config, manifest = self._materials.config.generative, self._materials.rows.manifest
        if config.score_by in ("nll", "agreement"):
            return self._score_tokens(split, measured, nll=config.score_by == "nll")
        number, examples = self._read(split)
        materials, model = self._materials, self._generator.model
        if manifest.kind == "choice":
            template, question = materials.prompter.template, materials.prompter.question
            found = score_by_likelihood(model, materials.tokenizer, template, question, examples, materials.device)
            return Said(number, found.acc_norm if config.score_by == "acc-norm" else found.acc, examples)
        decoding = config.decoding.cap(manifest.max_reply_tokens)
        prompts = self._encode(examples)
        written = []
        for seed in decoding.seeds:
            replies = generate_replies(model, materials.tokenizer, prompts, decoding, materials.device, seed=seed)
            texts = [reply.text for reply in replies]
            scores = score_replies(texts, examples, manifest.metric, manifest.answer_rule)
            written.append(Written(seed, replies, scores))
        return Said(number, np.mean([each.scores for each in written], axis=0), examples, written)

    def _score_tokens(self, split: str, measured: Measured, *, nll: bool) -> Said:
        found = self._measure(split, "reference" if nll else "reply", measured)
        values = [] if found is None else [-each.nll if nll else each.agreement for each in found[1]]
        has = np.array([value is not None for value in values], np.bool_)
        if found is None or not has.any():
            lacking = "reference that fits" if nll else "top K of the student's own tokenizer"
            raise UsageError(f"no row of the split {split} has a {lacking}: choose another --score-by")
        return Said(found[0][has], np.array([value for value in values if value is not None]))

    def _measure(self, split: str, learnt: Learnt, measured: Measured) -> tuple[Array, list[Taken]] | None:
        words = self._choose_words(split, learnt)
        kept = self._find_dialogues(split, words)
        if kept is None:
            return None
        number, dialogues = kept
        if (split, words) not in measured:
            generator = self._generator
            measured[split, words] = measure_replies(generator, generator.head, dialogues, self._materials.device)
        return number, measured[split, words]

    def _choose_words(self, split: str, learnt: Learnt) -> Learnt:
        """Choose whose words are measured: the teacher's for the references too, where it scored those themselves."""
        if learnt == "reply" or not self._materials.same_tokenizer:
            return learnt
        reply, reference = self._find_dialogues(split, "reply"), self._find_dialogues(split, "reference")
        if reply is None or reference is None or not _are_same(reply, reference):
            return learnt
        self._taken[split, "reference"] = reply  # the other copy is not kept
        return "reply"

    def _find_dialogues(self, split: str, learnt: Learnt) -> tuple[Array, Sequences] | None:
        """Find the dialogues of a split's rows that have one which fits; they are encoded once."""
        if (split, learnt) not in self._taken:
            rows, scored = self._splits[split]
            column = self._materials.make_column(learnt, learnt == "reply")
            asked = scored if learnt == "reference" else scored & rows.answered
            self._taken[split, learnt] = _read_dialogues(rows, column, asked)
        return self._taken[split, learnt]

    def _read(self, split: str) -> tuple[Array, list[Example]]:
        if split not in self._examples:
            rows, scored = self._splits[split]
            examples: list[Example] = []
            for group, start in zip(rows.groups, rows.starts(), strict=True):
                here = np.flatnonzero(scored[start : start + group.rows])
                if len(here):
                    examples += read_examples(read_row_group(group, list(EXAMPLE_COLUMNS)).take(pa.array(here)))
            self._examples[split] = (np.flatnonzero(scored), examples)
        return self._examples[split]

    def _encode(self, examples: Sequence[Example]) -> list[list[int]]:
        """Encode prompts, cut from the left to leave room for one token."""
        longest = self._materials.encoder.max_length - 1
        texts = [self._materials.prompter.write(example, scoring=True) for example in examples]
        return [ids[-longest:] for ids in self._materials.encoder.encode_prompts(texts)]


def _choose_some(scored: Bools, count: int) -> Bools:
    """Choose so many of the rows, the same ones in every run."""
    rows = np.flatnonzero(scored)
    chosen = np.zeros(len(scored), np.bool_)
    chosen[np.random.default_rng(0).permutation(rows)[:count]] = True
    return chosen


def _read_dialogues(split: Split, column: DialogueColumn, asked: Bools) -> tuple[Array, Sequences] | None:
    wanted = choose_rows(split, [column], asked, None, "all", "all").wanted
    parts = []
    for group, start in zip(split.groups, split.starts(), strict=True):
        rows = np.flatnonzero(wanted[start : start + group.rows])
        if len(rows):
            table = read_row_group(group, list(column.shard_columns))
            parts.append(column.decode(table, rows, group, start))
    return (np.flatnonzero(wanted), join_sequences(parts)) if parts else None


def _are_same(one: tuple[Array, Sequences], other: tuple[Array, Sequences]) -> bool:
    """Tell whether rows and their tokens are the same, whatever a teacher said of them."""
    (number, a), (others, b) = one, other
    pairs = ((number, others), (a.ids, b.ids), (a.offsets, b.offsets), (a.prompts, b.prompts))
    return all(np.array_equal(left, right) for left, right in pairs)


def check_metric(manifest: Manifest) -> None:
    """Raise UsageError for a task whose metric replies do not have, before anything is trained."""
    rule = manifest.answer_rule or ("exact" if manifest.metric == "exact_match" else None)
    if manifest.metric not in REPLY_METRICS or (manifest.metric == "accuracy" and rule is None):
        without = " and no answer rule" if manifest.metric == "accuracy" else ""
        raise UsageError(
            f"{manifest.task} has the metric {manifest.metric!r}{without}: replies cannot be judged by it. Choose "
            "--score-by nll, which needs none"
        )
