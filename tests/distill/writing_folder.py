"""A teacher folder of a task whose answers are written: replies, their tokens and top K; and a run of a student."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.models.saving import save_generator
from shared.example import Example
from shared.fingerprints import fingerprint_tokenizer
from shared.schema import Answer, Row, Status
from shared.shards.folder import TeacherFolder
from shared.shards.manifest import Manifest

K = 5
CHOICES = [("so good", "bad", "a fine film"), ("awful", "great"), ("the plot", "the actor", "a scene", "so")]


def make_top(tokenizer: Any, ids: list[int], seed: int) -> dict[str, Any]:
    """The top K and tail of each token of a reply, of random distributions in which that token is likely."""
    logits = np.random.default_rng(seed).normal(size=(len(ids), len(tokenizer)))
    logits[np.arange(len(ids)), ids] += 4
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    top = np.argsort(-logprobs, axis=1)[:, :K]
    kept = np.take_along_axis(logprobs, top, axis=1)
    tail = np.log1p(-np.exp(kept).sum(axis=1))
    own = logprobs[np.arange(len(ids)), ids]
    return {
        "reply_ids": ids,
        "reply_logprobs": own.tolist(),
        "topk_ids": top.tolist(),
        "topk_logprobs": kept.tolist(),
        "topk_tail": tail.tolist(),
    }


def make_written_rows(tokenizer: Any, kind: str, count: int, split: str) -> list[Row]:
    """Rows of questions; the training rows have the teacher's replies, the others were not asked."""
    rows = []
    for i in range(count):
        choices = CHOICES[i % len(CHOICES)] if kind == "choice" else None
        label = i % len(choices) if choices else None
        example = Example(
            sample_id=f"{split}-{i}",
            text=f"What of the film {i}?",
            choices=choices,
            label=label,
            target_text=None if choices else f"The film is good, the answer {i}.",
            references=None if choices else (f"The film is good, the answer {i}.", "so good"),
        )
        answer = Answer(Status.UNASKED)
        if split == "train":
            reply = f"The film is great, the answer {i}."
            ids = [*tokenizer.encode(reply), tokenizer.eos_token_id]
            answer = Answer(Status.OK, reply=reply, finish_reason="stop", attempts=1, **make_top(tokenizer, ids, i))
        rows.append(Row(example, f"{split == 'train':032x}{i:032x}", 0, answer))
    return rows


def write_written_folder(
    out: Path, student: Path, kind: str, metric: str, rule: str | None = None, task: str = "asked"
) -> Path:
    """Write out/<task>/teacher=t/ with 6 training, 5 validation and 7 test rows; give out/<task>/."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    manifest = Manifest(
        task=task,
        teacher="t",
        kind=kind,
        labels=(),
        metric=metric,
        recipe={
            "teacher": "t",
            "prompt": {"question": "Answer the question."},
            "tokenizer": {"name": "the test's", "sha256": fingerprint_tokenizer(tokenizer.get_vocab())},
        },
        source="made by the test",
        answer_rule=rule,
        max_reply_tokens=12,
    )
    with TeacherFolder.open(out / task, manifest) as folder:
        for split, count in (("train", 6), ("validation", 5), ("test", 7)):
            folder.append(split, make_written_rows(tokenizer, kind, count, split))
            folder.seal(split)
    return out / task


def write_run(out: Path, student: Path, shards: Path, **config: Any) -> Path:
    """Write a run's folder with a saved student, as a generative run leaves one."""
    folder = out / "run"
    save_generator(AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student), folder)
    (folder / "metrics.json").write_text(json.dumps({"config": config, "shards": str(shards)}))
    return folder
