"""A finished generative student, scored again: by what it writes, or by how likely it finds each choice."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.compute.devices import Device
from distill.data.dialogues import make_encoder
from distill.data.run_rows import TRAIN
from distill.decoding import Decoding, show_decoding
from distill.models.generator import load_generator
from distill.models.pretrained import open_tokenizer
from distill.runs.formats.rows import AnsweredRows, choose_template, open_rows
from distill.scoring.generate import find_end_tokens, generate_replies
from distill.scoring.intervals import estimate_mean
from distill.scoring.replies import Written, score_by_likelihood, score_replies, write_replies
from shared.errors import DataError
from shared.example import Example
from shared.overlap import measure_overlap
from shared.sources import ResolvedModel

DEFAULT_LENGTH = 2048  # of a model whose config names no limit


@dataclass(frozen=True, slots=True)
class _Student:
    """A loaded student with the rows that score it."""

    model: Any
    tokenizer: Any
    rows: AnsweredRows
    examples: list[Example]
    device: Device
    length: int

    def encode_prompts(self) -> list[list[int]]:
        """Encode each row's prompt, cut from the left to leave room for one token."""
        encoder = make_encoder(self.tokenizer, self.length, find_end_tokens(self.model, self.tokenizer))
        texts = [self.rows.write_prompt(each, scoring=True) for each in self.examples]
        return [ids[-(self.length - 1) :] for ids in encoder.encode_prompts(texts)]


def evaluate_generator(
    run_folder: Path,
    source: ResolvedModel,
    folder: Path,
    split: str,
    device: Device,
    template: str | None,
    decoding: Decoding | None,
    sequence_length: int | None = None,
) -> dict[str, Any]:
    """Score `source`, a run's student, on a split of a teacher folder; give score, interval and what they are of.

    Rows of choices are scored by likelihood, as lm-eval scores them with the template `lm-eval`, unless a `decoding` is
    given: then by what the student writes, as all other rows. Replies go to runs/<name>/replies/<split>.parquet. Each
    row's score is its mean over the decoding's seeds. A prompt is cut from the left to leave one token of
    `sequence_length`, as in training. Raises DataError where no row has a right answer.
    """
    tokenizer = open_tokenizer(source)
    rows = open_rows(folder, template or choose_template(tokenizer), tokenizer)
    examples = list(rows.read_labelled(split)) if split in rows.splits() else []
    if not examples:
        raise DataError(f"{folder} has no rows with a right answer in the split {split!r}")
    model = load_generator(source).to(device.device)
    length = sequence_length or getattr(model.config, "max_position_embeddings", None) or DEFAULT_LENGTH
    student = _Student(model, tokenizer, rows, examples, device, length)
    by_likelihood = rows.manifest.kind == "choice" and decoding is None
    scored = _score_choices(student) if by_likelihood else _score_written(student, decoding, run_folder, split)
    told = {"run": str(run_folder), "shards": str(folder), "split": split, "template": rows.template.name}
    return {**told, **scored, "overlap": _describe_overlap(rows, split)}


def _describe_overlap(rows: AnsweredRows, split: str) -> dict[str, Any] | None:
    """Describe how much of a split's texts stands in the training split; None where there is none, or it is that."""
    if split == TRAIN or TRAIN not in rows.splits():
        return None
    found = measure_overlap(rows.read_texts(split), rows.read_texts(TRAIN))
    return {**asdict(found), "said": found.describe()}


def _score_choices(student: _Student) -> dict[str, Any]:
    found = score_by_likelihood(
        student.model,
        student.tokenizer,
        student.rows.template,
        student.rows.question,
        student.examples,
        student.device,
    )
    acc, normed = estimate_mean(found.acc), estimate_mean(found.acc_norm)
    return {
        "rows": len(student.examples),
        "metric": "acc",
        "score": acc.mean,
        "interval": [acc.low, acc.high],
        "acc_norm": normed.mean,
        "acc_norm_interval": [normed.low, normed.high],
    }


def _score_written(student: _Student, decoding: Decoding | None, run_folder: Path, split: str) -> dict[str, Any]:
    manifest, examples = student.rows.manifest, student.examples
    capped = (decoding or Decoding()).cap(manifest.max_reply_tokens)
    prompts = student.encode_prompts()
    written = []
    for seed in capped.seeds:
        replies = generate_replies(student.model, student.tokenizer, prompts, capped, student.device, seed=seed)
        scores = score_replies([r.text for r in replies], examples, manifest.metric, manifest.answer_rule)
        written.append(Written(seed, replies, scores))
    path = run_folder / "replies" / f"{split}.parquet"
    write_replies(path, examples, written)
    estimate = estimate_mean(np.mean([each.scores for each in written], axis=0))
    return {
        "rows": len(examples),
        "metric": manifest.metric,
        "score": estimate.mean,
        "interval": [estimate.low, estimate.high],
        "decoding": show_decoding(capped),
        "by_seed": {str(each.seed): float(each.scores.mean()) for each in written},
        "ended": float(np.mean([reply.ended for each in written for reply in each.replies])),
        "replies": str(path),
    }
