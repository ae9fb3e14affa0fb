"""A folder's test rows as a task of lm-eval, to be scored offline: `lm_eval --tasks NAME --include_path DIR`.

The prompts are texts that are ready: lm-eval adds no example, no delimiter and no chat template to them. Replies are
judged by this package's answer rules, or ROUGE-L: it must be installed where lm-eval is.
Source: docs/task_guide.md of EleutherAI/lm-evaluation-harness 0.4.13.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from distill.decoding import DEFAULT_NEW_TOKENS
from distill.runs.formats.rows import AnsweredRows
from distill.scoring.replies import list_references, render_text
from shared.errors import DataError
from shared.example import Example

_JUDGE = '''"""Judges replies as `distill eval` does. Made by distill export."""

from distill.scoring.replies import judge_row


def process_results(doc, results):
    return {"score": judge_row(doc, results[0])}
'''


def write_lm_eval(rows: AnsweredRows, folder: Path, final: Path) -> str:
    """Write <task>_<template>.yaml over test.jsonl, which will lie in `final`; say what was written.

    The rows are those with a right answer of the split `test`, or else `validation`. Raises DataError without any.
    """
    split = next((name for name in ("test", "validation") if name in rows.splits()), "test")
    found = list(rows.read_labelled(split)) if split in rows.splits() else []
    if not found:
        raise DataError(f"{rows.folder} has no rows with a right answer in the split test or validation")
    name = f"{rows.manifest.task}_{rows.template.name}".replace("-", "_")
    if rows.manifest.kind == "choice":
        lines = [_make_choice_row(rows, each) for each in found]
        task = _describe_choice_task(lines)
    else:
        lines = [_make_reply_row(rows, each) for each in found]
        task = _describe_reply_task(rows.manifest.max_reply_tokens)
        (folder / "judge_replies.py").write_text(_JUDGE)
    with (folder / "test.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    described = {"task": name, **_describe_data(final), **task}
    (folder / f"{name}.yaml").write_text(_tag_functions(yaml.safe_dump(described, sort_keys=False)))
    return (
        f"{len(lines):,} rows of {split}; run: lm_eval --model hf --model_args pretrained=runs/NAME/student "
        f"--tasks {name} --include_path {final}"
    )


def _describe_data(final: Path) -> dict[str, Any]:
    files = {"test": str(final.resolve() / "test.jsonl")}
    return {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": 1.0},
    }


def _make_choice_row(rows: AnsweredRows, example: Example) -> dict[str, Any]:
    made = rows.template.list_continuations(example, rows.question)
    contexts = [render_text(rows.tokenizer, each.context) for each in made]
    return {
        "sample_id": example.sample_id,
        "context": contexts[0],
        "contexts": contexts,
        "choices": [each.text for each in made],
        "gold": example.label,
    }


def _describe_choice_task(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Describe a task of likelihoods: of the choices, or where those stand in the context of what follows them."""
    after_space = all(choice.startswith(" ") for line in lines for choice in line["choices"])
    for line in lines:  # lm-eval divides by the characters of a choice without the delimiter
        line["choices"] = [choice.removeprefix(" ") if after_space else choice for choice in line["choices"]]
    delimiter = {"target_delimiter": " " if after_space else ""}
    if all(len(set(line["choices"])) == 1 and len(set(line["contexts"])) > 1 for line in lines):
        for line in lines:
            line["continuation"] = line["choices"][0]
        columns = {"doc_to_text": "gold", "doc_to_choice": "contexts", "doc_to_target": "continuation"}
        metrics = ["acc"]
    else:
        columns = {"doc_to_text": "context", "doc_to_choice": "choices", "doc_to_target": "gold"}
        metrics = ["acc", "acc_norm"]
    return {
        "output_type": "multiple_choice",
        **columns,
        **delimiter,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in metrics],
    }


def _make_reply_row(rows: AnsweredRows, example: Example) -> dict[str, Any]:
    return {
        "sample_id": example.sample_id,
        "context": rows.write_prompt(example, scoring=True),
        "target": list_references(example)[0],
        "metric": rows.manifest.metric,
        "answer_rule": rows.manifest.answer_rule,
        "target_text": example.target_text,
        "references": list(example.references or ()),
        "choices": list(example.choices or ()),
        "label": example.label,
    }


def _describe_reply_task(max_reply_tokens: int | None) -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_text": "context",
        "doc_to_target": "target",
        "target_delimiter": "",
        "process_results": "!function judge_replies.process_results",
        "generation_kwargs": {
            "until": [],
            "max_gen_toks": max_reply_tokens or DEFAULT_NEW_TOKENS,
            "do_sample": False,
        },
        "metric_list": [{"metric": "score", "aggregation": "mean", "higher_is_better": True}],
    }


def _tag_functions(text: str) -> str:
    """Turn the texts that name functions into lm-eval's own YAML tag, which no other writer knows."""
    return text.replace("'!function judge_replies.process_results'", "!function judge_replies.process_results")
