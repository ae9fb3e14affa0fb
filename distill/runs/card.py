"""The model card of a run: a README.md with its own numbers, which the Hugging Face hub reads as it is.

It claims nothing that was not measured: a split that was not scored, and each control that was not run beside the run,
is said to be absent.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from distill.config import DistillConfig
from distill.controls import CONTROLS
from distill.runs.folder import read_metrics
from distill.scoring.metrics import SET_METRICS
from shared.errors import UsageError
from shared.markdown import escape_code, escape_markdown, hide_place, put_on_line
from shared.options import list_options

Metrics = Mapping[str, Any]

# By what a difference means (see shared.options.Option): settings that must agree, and that say nothing of a variant.
_COMPARED = {one.name: one.option.compared for one in list_options(DistillConfig)}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w./-]+)?", re.ASCII)


def find_comparable(metrics: Metrics, runs: Path) -> list[dict[str, Any]]:
    """Find finished runs in the folder `runs` on the same shards and student, with as many labels and student steps."""
    found = []
    for path in sorted(runs.glob("*/metrics.json")):
        try:
            other = read_metrics(path.parent)
            if _describe_setting(other) == _describe_setting(metrics):
                found.append(other)
        except (UsageError, KeyError):
            continue  # of another version
    return found


def make_card(name: str, metrics: Metrics, comparable: Sequence[Metrics], *, folder: str | None = None) -> str:
    """Make the card of the run `name`. `comparable` are runs to hold against it, itself among them or not.

    `folder` is where its model lies, as a reader of the card would name it: a hub id, or runs/<name>/student, which it
    is unless given.
    """
    # A student that writes is saved whole, its adapter merged.
    adapter = metrics["config"].get("lora_rank") is not None and folder is None and not _writes(metrics)
    sections = [
        _make_header(name, metrics, adapter),
        f"# {escape_markdown(name)}",
        _introduce(metrics),
        _show_scores(metrics),
        _show_comparison(metrics, comparable),
        _show_data(metrics),
        _show_training(metrics),
        _show_use(metrics, folder or f"runs/{name}/student", adapter),
        "## Licence\n\nNot settled here: those of the student's base, of the texts and of the teacher's answers apply.",
    ]
    return "\n\n".join(sections) + "\n"


def _describe_setting(metrics: Metrics) -> dict[str, Any]:
    config = {name: value for name, value in metrics["config"].items() if _COMPARED.get(name, "setting") == "setting"}
    config["shards"] = sorted(metrics["manifest_sha256"].values())
    return {**config, "student": metrics["student_fingerprint"], "steps": metrics["student_steps"]}


def _make_header(name: str, metrics: Metrics, adapter: bool) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    base, task, metric = (
        metrics["student"].partition("@")[0],
        put_on_line(metrics["task"]),
        put_on_line(metrics["metric"]),
    )
    scores = [("validation", metrics["dev_best"]), (_name_test(metrics), metrics["test"])]
    data = ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag=name_pipeline(metrics),
        base_model=base if _HUB_ID.fullmatch(metrics["student"]) and not Path(base).exists() else None,
        tags=["knowledge-distillation", "harvest-distill"],
        model_name=put_on_line(name),
        eval_results=[
            EvalResult(
                task_type=name_pipeline(metrics),
                dataset_type=task,
                dataset_name=task,
                dataset_split=split,
                metric_type=metric,
                metric_value=round(value, 6),
            )
            for split, value in scores
            if value is not None
        ],
    )
    return f"---\n{data.to_yaml()}\n---"


def _introduce(metrics: Metrics) -> str:
    labels = ", ".join(map(escape_markdown, metrics["labels"]))
    what = f"a classifier ({labels})" if labels else "a regressor"
    template = escape_markdown(hide_place(str(metrics["template"]))) if _writes(metrics) else ""
    trained = f"to write, with the template {template}" if template else f"as {what}"
    start = f"{_name_student(metrics)}, trained on {escape_markdown(metrics['task'])} {trained}"
    if not _has_teacher(metrics):
        return f"{start}, without a teacher: the variant {escape_code(metrics['variant'])}."
    what = f"the variant {escape_code(metrics['variant'])}, by harvest-distill"
    if metrics["aligner_steps"]:
        what += ", with ARMADA's aligner ([arXiv:2603.10877](https://arxiv.org/abs/2603.10877))"
    return f"{start}, with the kept answers of the teacher {escape_code(metrics['teacher'])}: {what}."


def _show_scores(metrics: Metrics) -> str:
    rows = metrics["rows"]
    lines = [
        "## Scores",
        "",
        f"| | {escape_markdown(metrics['metric'])} |",
        "|---|---:|",
        f"| validation, {rows['dev']:,} rows, epoch {metrics['best_epoch']} | {metrics['dev_best']:.4f} |",
        f"| validation, last epoch | {metrics['dev_last']:.4f} |",
        f"| {_name_test(metrics)} | {'not measured' if metrics['test'] is None else format(metrics['test'], '.4f')} |",
    ]
    if metrics["aligner_dev"] is not None:
        lines.append(f"| the aligner alone, on the teacher's vectors, validation | {metrics['aligner_dev']:.4f} |")
    head = metrics.get("teacher_head") or {}
    lines += [
        f"| the teacher's head, on the teacher's answers to {head[f'{rows}_rows']:,} {what} rows | {head[rows]:.4f} |"
        for rows, what in (("hidden", "training"), ("validation", "validation"), ("test", "test"))
        if head.get(rows) is not None
    ]
    if head:
        lines += ["", _describe_head(head)]
    if metrics.get("labels_from") == "teacher":
        lines += [
            "",
            "No row had a label: the teacher's stood in, and the scores are agreement with it, not with the truth.",
        ]
    if ceiling := metrics.get("text_ceiling"):
        names = {"dev": "validation", "test": _name_test(metrics)}
        parts = " and ".join(f"{bound:.4f} on {names[part]}" for part, bound in ceiling.items())
        lines += [
            "",
            "Rows of the same text have different labels: who reads the text alone has an accuracy of at most "
            f"{parts}.",
        ]
    lines += ["", f"The validation score chose the epoch, so it flatters. One run, seed {metrics['seed']}."]
    return "\n".join(lines)


def _name_test(metrics: Metrics) -> str:
    """Name the rows that are reported: others are held out where the test split has no labels."""
    origin = metrics.get("test_from")
    return "test" if origin in (None, "test") else f"held out from {origin}"


def _describe_head(head: Metrics) -> str:
    """Say which head gave the soft targets, and how it did on labelled rows that it was not fitted on."""
    names = {
        "accuracy": "accuracy",
        "f1_micro": "F1 (micro)",
        "nll": "NLL",
        "brier": "Brier score",
        "ece": "ECE",
        "mse": "mean square error",
    }
    scores = ", ".join(f"{word} {head[name]:.3f}" for name, word in names.items() if name in head)
    how = f"{head['folds']}-fold cross-validation on" if head["folds"] else "not held out, on"
    source = (
        "the teacher's own distribution" if head["kind"] == head["signal"] else f"{head['kind']} on {head['signal']}"
    )
    strength = f", strength {head['strength']:g}" if "strength" in head else ""
    return f"Soft targets: {source}{strength}; {how} {head['rows']:,} labels: {scores}."


def _show_comparison(metrics: Metrics, comparable: Sequence[Metrics]) -> str:
    if not _has_teacher(metrics):
        return "## Did the teacher help?\n\nThere was none: this is a run to hold others against."
    by_variant: dict[str, dict[int, Metrics]] = {}
    for run in (*comparable, metrics):
        by_variant.setdefault(run["variant"], {})[run["seed"]] = run
    lines = ["## Did the teacher help?", ""]
    if len(by_variant) > 1:
        lines += [
            f"Runs beside this one on the same rows, labels and student, with {metrics['student_steps']:,} steps each; "
            f"means of {metrics['metric']}:",
            "",
            "| variant | seeds | validation | test |",
            "|---|---:|---:|---:|",
        ]
        for variant, runs in sorted(by_variant.items()):
            dev = fmean(run["dev_best"] for run in runs.values())
            tests = [run["test"] for run in runs.values()]
            test = "" if None in tests else f"{fmean(tests):.4f}"
            lines.append(f"| {escape_markdown(variant)} | {len(runs)} | {dev:.4f} | {test} |")
        lines.append("")
    ran = {run["control"] for runs in by_variant.values() for run in runs.values()}
    absent = [name for name in ("undistilled", "heads-only") if name not in by_variant]
    controls = [
        name
        for name, traits in CONTROLS.items()
        if name != "none" and (traits.for_texts if _writes(metrics) else traits.for_labels)
    ]
    absent += [name for name in controls if name not in ran]
    if absent:
        lines.append(f"Not run beside it: {', '.join(absent)}.")
    if "undistilled" in absent:
        lines.append("Without an undistilled student nothing here says that the teacher helped.")
    elif not ran & set(controls):
        lines.append("Without a control, a gain may be that of regularisation and not the teacher's.")
    else:
        lines.append("A difference in this table comes without an interval: `distill compare` gives one.")
    return "\n".join(lines)


def _show_data(metrics: Metrics) -> str:
    rows, texts = metrics["rows"], escape_markdown(hide_place(str(metrics["texts"])))
    lines = [
        "## Data",
        "",
        f"{escape_markdown(metrics['task'])} ({texts}): {rows['answered']:,} of {rows['train']:,} training rows have a "
        f"whole answer of the teacher, {rows['labelled']:,} showed their label.",
        "",
        "| answers of | sha256 of the recipe | sha256 of the manifest |",
        "|---|---|---|",
    ]
    for path, manifest in metrics["manifest_sha256"].items():
        teacher = Path(path).name.removeprefix("teacher=")
        lines.append(f"| {escape_markdown(teacher)} | `{metrics['recipe_sha256'][path]}` | `{manifest}` |")
    if metrics["truncated_texts"]:
        cut = f"{metrics['truncated_texts']:,} training texts were cut to {metrics['config']['max_length']} tokens."
        lines += ["", cut]
    return "\n".join(lines)


def _show_training(metrics: Metrics) -> str:
    said = {name for name, compared in _COMPARED.items() if compared == "nothing"} | {"student"}
    config = {name: value for name, value in metrics["config"].items() if name not in said}
    packages = ", ".join(f"{name} {version}" for name, version in metrics["packages"].items() if version)
    precision = next((name for name in ("bfloat16", "float16") if metrics.get(name)), "float32")
    return "\n".join(
        [
            "## Training",
            "",
            f"{metrics['student_steps']:,} steps of the student and {metrics['aligner_steps']:,} of the aligner, "
            f"{metrics['seconds']:.0f} seconds on {metrics['processes']} x {metrics['device']} in {precision}, "
            f"finished {metrics['finished_at']}. Commit {metrics['git_revision'] or 'unknown'}; {packages}.",
            "",
            f"Student before training: `{metrics['student_fingerprint']}`.",
            "",
            *(f"- `{name}`: {escape_markdown(hide_place(str(value)))}" for name, value in sorted(config.items())),
        ]
    )


def _show_use(metrics: Metrics, folder: str, adapter: bool) -> str:
    lines = ["## Use", ""]
    if metrics.get("probe"):
        return "\n".join(
            [
                *lines,
                "This is a baseline and leaves no student: `probe.safetensors` holds a linear map of the "
                f"{metrics['probe']['signal']} of the last layer of {_name_student(metrics)}.",
            ]
        )
    if not adapter:
        verb = "write" if _writes(metrics) else "classify"
        has_sets = metrics["metric"] in SET_METRICS
        code = [
            "from transformers import pipeline",
            f'{verb} = pipeline("{name_pipeline(metrics)}", model={json.dumps(folder)}{", top_k=None" * has_sets})',
        ]
        if has_sets:
            lines += ["It gives each label its own probability; a text has those that are above .5.", ""]
    else:
        lines += [f"This is a LoRA adapter of {_name_student(metrics)}; `distill export` merges the two.", ""]
        code = [
            "from peft import PeftModel",
            "from transformers import AutoConfig, AutoModelForSequenceClassification",
            f"config = AutoConfig.from_pretrained({json.dumps(folder)})",
            "base = AutoModelForSequenceClassification.from_pretrained(BASE, config=config)",
            f"model = PeftModel.from_pretrained(base, {json.dumps(folder)})",
        ]
    return "\n".join([*lines, *(f"    {line}" for line in code)])


def _name_student(metrics: Metrics) -> str:
    student: str = metrics["student"]
    return escape_code(hide_place(student))


def _writes(metrics: Metrics) -> bool:
    return metrics.get("template") is not None


def name_pipeline(metrics: Metrics) -> str:
    """Name the pipeline of transformers that a run's student is for."""
    return "text-generation" if _writes(metrics) else "text-classification"


def _has_teacher(metrics: Metrics) -> bool:
    return metrics["variant"] not in ("undistilled", "heads-only")
