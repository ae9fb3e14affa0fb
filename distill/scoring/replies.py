"""From what a student writes, or finds likely, to one score a row: by answer rule, ROUGE-L or likelihood."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill.compute.devices import Device
from distill.data.columns import Array
from distill.scoring.choices import encode_pair, judge_choices, judge_choices_by_length, score_choices
from distill.scoring.generate import Generated
from distill.scoring.rouge import rouge_l
from shared.answers import find_rule
from shared.errors import UsageError
from shared.example import Example, Message
from shared.templates import Rendered, Template

REPLY_METRICS = ("accuracy", "exact_match", "rouge_l")


def score_replies(
    replies: Sequence[str], examples: Sequence[Example], metric: str, answer_rule: str | None = None
) -> Array:
    """Score each row's reply, float64 (n,): 1 or 0 by the answer rule, or between them by ROUGE-L.

    exact_match is the rule `exact` unless another is named. Every row must have a right answer. Raises UsageError for
    a metric that is not of replies, or accuracy without a rule.
    """
    if metric == "rouge_l":
        return np.array([rouge_l(reply, list_references(row)) for reply, row in zip(replies, examples, strict=True)])
    if metric not in REPLY_METRICS:
        raise UsageError(f"the task's metric is {metric!r}; replies are scored by {', '.join(REPLY_METRICS)}")
    if answer_rule is None and metric == "exact_match":
        answer_rule = "exact"
    if answer_rule is None:
        raise UsageError("the task has no answer rule, so its replies cannot be judged: harvest it with one")
    rule = find_rule(answer_rule)
    return np.array(
        [
            float(
                rule.is_right(
                    reply,
                    choices=row.choices,
                    label=row.label,
                    target_text=row.target_text,
                    references=row.references,
                )
            )
            for reply, row in zip(replies, examples, strict=True)
        ]
    )


def judge_row(row: Mapping[str, Any], reply: str) -> float:
    """Score one reply to a row of test.jsonl, as distill export writes it for lm-eval."""
    choices, label = (row["choices"], row["label"]) if row["choices"] else (None, None)
    example = Example(
        sample_id=row["sample_id"],
        text="",
        choices=None if choices is None else tuple(choices),
        label=label,
        target_text=row["target_text"],
        references=tuple(row["references"]) or None,
    )
    return float(score_replies([reply], [example], row["metric"], row["answer_rule"])[0])


def list_references(example: Example) -> tuple[str, ...]:
    """List the texts that are right answers of a row."""
    if example.references:
        return example.references
    if example.choices is not None and example.label is not None:
        return (example.choices[example.label],)
    return () if example.target_text is None else (example.target_text,)


@dataclass(frozen=True, slots=True)
class Written:
    """The replies of one seed to a split's rows, in order, and each one's score, float64 (n,)."""

    seed: int
    replies: Sequence[Generated]
    scores: Array


def write_replies(path: Path, examples: Sequence[Example], written: Sequence[Written]) -> None:
    """Write a Parquet file with a row a reply: `sample_id`, `seed`, `reply`, whether it `ended`, and its `score`."""
    columns = {
        "sample_id": [example.sample_id for _ in written for example in examples],
        "seed": [each.seed for each in written for _ in examples],
        "reply": [reply.text for each in written for reply in each.replies],
        "ended": [reply.ended for each in written for reply in each.replies],
        "score": np.concatenate([each.scores for each in written]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@dataclass(frozen=True, slots=True)
class LikelihoodScores:
    """acc and acc_norm a row, float64 (n,), and the log-likelihoods of each row's choices that they come from."""

    acc: Array
    acc_norm: Array
    likelihoods: tuple[Array, ...]


def score_by_likelihood(
    model: Any,
    tokenizer: Any,
    template: Template,
    question: str,
    examples: Sequence[Example],
    device: Device,
) -> LikelihoodScores:
    """Score rows whose label is one of their own choices by how likely the student finds each choice.

    With the template `lm-eval` the numbers are lm-eval's own. Raises DataError where the template does not fit a row.
    """
    continuations = [template.list_continuations(row, question) for row in examples]
    pairs = [
        [encode_pair(tokenizer, render_text(tokenizer, each.context), each.text) for each in row]
        for row in continuations
    ]
    likelihoods = _score_pairs(model, pairs, device)
    labels = [-1 if row.label is None else row.label for row in examples]
    characters = [[each.characters for each in row] for row in continuations]
    return LikelihoodScores(
        judge_choices(likelihoods, labels),
        judge_choices_by_length(likelihoods, labels, characters),
        tuple(likelihoods),
    )


def render_text(tokenizer: Any, rendered: Rendered) -> str:
    """Give a prompt as text: as it stands, or by the tokenizer's chat template. Raises UsageError where it has none."""
    if rendered.text is not None:
        return rendered.text
    messages: Sequence[Message] = rendered.messages or ()
    if tokenizer is None or not tokenizer.chat_template:
        raise UsageError(
            "the template is a conversation, and no tokenizer with a chat template is known: name one, or choose a "
            "template of texts, alpaca say"
        )
    text: str = tokenizer.apply_chat_template(
        [message._asdict() for message in messages], tokenize=False, add_generation_prompt=True
    )
    return text


def _score_pairs(model: Any, pairs: Sequence[Sequence[tuple[list[int], list[int]]]], device: Device) -> list[Array]:
    """Score (context, continuation) ids, several a row; those of a row that share a context are computed together."""
    owners, contexts, continuations = [], [], []
    for row, mine in enumerate(pairs):
        if all(context == mine[0][0] for context, _ in mine):
            mine_together = [(mine[0][0], [ids for _, ids in mine])]
        else:
            mine_together = [(context, [ids]) for context, ids in mine]
        for context, ids_of_choices in mine_together:
            owners.append(row)
            contexts.append(context)
            continuations.append(ids_of_choices)
    found: list[list[Array]] = [[] for _ in pairs]
    for row, scores in zip(owners, score_choices(model, contexts, continuations, device), strict=True):
        found[row].append(scores)
    return [np.concatenate(each) for each in found]
