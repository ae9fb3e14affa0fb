"""The scores of a student that writes: one number a row, by likelihood of choices, by written replies, or by tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill.data.columns import Array
from distill.data.dialogues import EXAMPLE_COLUMNS, DialogueColumn, read_examples
from distill.data.run_rows import mark_scored
from distill.data.sequences import Sequences, join_sequences
from distill.data.split import Bools, Split
from distill.data.usable import choose_rows
from distill.methods.writing import WritingMaterials
from distill.models.generator import Generator
from distill.scoring.choices import encode_pair, judge_choices, score_choices
from distill.scoring.generate import generate
from distill.scoring.rouge import rouge_l
from distill.scoring.tokens import Taken, measure_replies
from shared.answers import find_rule
from shared.errors import UsageError
from shared.example import Example
from shared.shards.read import read_row_group

REPLIES = "replies.parquet"


@dataclass(frozen=True, slots=True)
class Said:
    """A score a row, float64 (n,), of the rows `number` (n,) of a split; and the replies that were written, if any."""

    number: Array
    score: Array
    examples: Sequence[Example] = ()
    replies: Sequence[str] = ()


class WritingScores:
    """Scores a student on the dev rows, as often as it is asked, and at last on all rows."""

    def __init__(self, materials: WritingMaterials, generator: Generator) -> None:
        self._materials, self._generator = materials, generator
        self._taken: dict[tuple[str, str], tuple[Array, Sequences] | None] = {}
        rows = materials.rows
        self._judge = find_judge(rows.manifest.metric, rows.manifest.answer_rule, rows.manifest.kind)
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
        return float(self._score("validation").score.mean())

    def say_all(self) -> dict[str, Said]:
        """Score all rows, by split; `<split>_nll` is minus the references' and `<split>_agreement` the teacher's.

        Those are there where the rows have references, and top Ks of the student's own tokenizer.
        """
        said = {split: self._score(split) for split in self._splits}
        for split in self._splits:
            if (nll := self._measure(split, "reference")) is not None:
                said[f"{split}_nll"] = Said(nll[0], -np.array([each.nll for each in nll[1]]))
            if self._materials.same_tokenizer and (own := self._measure(split, "reply")) is not None:
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
        """Write the replies to scored rows, with what they were written to and their scores, where there are any."""
        tables = [
            pa.table(
                {
                    "split": [split] * len(each.replies),
                    "row": each.number,
                    "sample_id": [example.sample_id for example in each.examples],
                    "prompt": self._spell(each.examples),
                    "reply": list(each.replies),
                    "answer": [self._materials.prompter.answer(example) for example in each.examples],
                    "score": each.score,
                }
            )
            for split, each in said.items()
            if each.replies
        ]
        if tables:
            pq.write_table(pa.concat_tables(tables), folder / REPLIES)

    def _score(self, split: str) -> Said:
        config, manifest = self._materials.config.generative, self._materials.rows.manifest
        if config.score_by in ("nll", "agreement"):
            return self._score_tokens(split, nll=config.score_by == "nll")
        number, examples = self._read(split)
        if manifest.kind == "choice":
            return Said(number, self._score_choices(examples, by_length=config.score_by == "acc-norm"), examples)
        decoding = config.decoding.cap(manifest.max_reply_tokens)
        prompts = self._encode(examples)
        totals = np.zeros(len(examples))
        replies: list[str] = []
        for seed in decoding.seeds:
            written = generate(
                self._generator.model, self._materials.tokenizer, prompts, decoding, self._materials.device, seed=seed
            )
            replies = replies or written
            totals += [self._judge(reply, example) for reply, example in zip(written, examples, strict=True)]
        return Said(number, totals / len(decoding.seeds), examples, replies)

    def _score_tokens(self, split: str, *, nll: bool) -> Said:
        found = self._measure(split, "reference" if nll else "reply")
        values = [] if found is None else [-each.nll if nll else each.agreement for each in found[1]]
        has = np.array([value is not None for value in values], np.bool_)
        if found is None or not has.any():
            lacking = "reference that fits" if nll else "top K of the student's own tokenizer"
            raise UsageError(f"no row of the split {split} has a {lacking}: choose another --score-by")
        return Said(found[0][has], np.array([value for value in values if value is not None]))

    def _score_choices(self, examples: Sequence[Example], *, by_length: bool) -> Array:
        prompter, tokenizer = self._materials.prompter, self._materials.tokenizer
        contexts: list[list[int]] = []
        continuations: list[list[list[int]]] = []
        counts = []
        characters = []
        for example in examples:
            listed = prompter.template.list_continuations(example, prompter.question)
            pairs = [encode_pair(tokenizer, prompter.spell(each.context), each.text) for each in listed]
            characters.append(np.array([float(each.characters) for each in listed]))
            together = all(context == pairs[0][0] for context, _ in pairs)
            counts.append(1 if together else len(pairs))
            for context, own in (
                [(pairs[0][0], [text for _, text in pairs])]
                if together
                else [(context, [text]) for context, text in pairs]
            ):
                contexts.append(context)
                continuations.append(own)
        scores = iter(score_choices(self._generator.model, contexts, continuations, self._materials.device))
        likelihoods = [np.concatenate([next(scores) for _ in range(count)]) for count in counts]
        if by_length:
            likelihoods = [one / length for one, length in zip(likelihoods, characters, strict=True)]
        labels = [example.label for example in examples if example.label is not None]
        return judge_choices(likelihoods, labels)

    def _measure(self, split: str, learnt: str) -> tuple[Array, list[Taken]] | None:
        kept = self._find_dialogues(split, learnt)
        if kept is None:
            return None
        number, dialogues = kept
        materials = self._materials
        return number, measure_replies(self._generator, self._generator.head, dialogues, materials.device)

    def _find_dialogues(self, split: str, learnt: str) -> tuple[Array, Sequences] | None:
        """Find the dialogues of a split's rows that have one which fits; they are encoded once."""
        if (split, learnt) not in self._taken:
            rows, scored = self._splits[split]
            column = self._materials.make_column("reference" if learnt == "reference" else "reply", learnt == "reply")
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

    def _spell(self, examples: Sequence[Example]) -> list[str]:
        return [self._materials.prompter.write(example, scoring=True) for example in examples]

    def _encode(self, examples: Sequence[Example]) -> list[list[int]]:
        """Encode prompts, cut from the left to leave room for one token."""
        longest = self._materials.encoder.max_length - 1
        return [ids[-longest:] for ids in self._materials.encoder.encode_prompts(self._spell(examples))]


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


def find_judge(metric: str, rule_name: str | None, kind: str) -> Callable[[str, Example], float]:
    """Find how a reply is scored. Raises UsageError for a metric that replies do not have."""
    if metric == "rouge_l":
        return _judge_by_rouge
    if metric not in ("accuracy", "exact_match"):
        raise UsageError(f"the task's metric is {metric!r}; replies are scored by accuracy, exact_match or rouge_l")
    rule = find_rule(rule_name or ("choice" if kind == "choice" else "exact"))
    return _RuleJudge(rule.is_right)


@dataclass(frozen=True, slots=True)
class _RuleJudge:
    is_right: Callable[..., bool]

    def __call__(self, reply: str, example: Example) -> float:
        return float(
            self.is_right(
                reply,
                choices=example.choices,
                label=example.label,
                target_text=example.target_text,
                references=example.references,
            )
        )


def _judge_by_rouge(reply: str, example: Example) -> float:
    return rouge_l(reply, example.references or (example.target_text or "",))
