"""A finished run's student, scored again."""

from pathlib import Path
from typing import Any

from distill.compute.devices import choose_device
from distill.config import DEFAULT_BUFFER_BYTES, Precision
from distill.data.run_rows import find_scored
from distill.data.tokens import TextEncoder
from distill.decoding import Decoding
from distill.models.pretrained import load_classifier, load_tokenizer
from distill.models.saving import is_generator
from distill.runs.evaluate_generator import evaluate_generator
from distill.runs.folder import find_run_student, read_metrics
from distill.scoring.predict import predict, score, scored_rows
from shared.errors import DataError, UsageError
from shared.shards.manifest import choose_teacher
from shared.shards.read import check_readable


def evaluate_run(
    run_folder: Path,
    shards: Path | None = None,
    split: str = "validation",
    device_name: str = "auto",
    precision: Precision = "auto",
    template: str | None = None,
    decoding: Decoding | None = None,
    trusts_code: bool = False,
) -> dict[str, Any]:
    """Score runs/<name>/student again: on a split of the shards it was trained from, or of others of the same task.

    Where the test split has no labels, "test" and "validation" are the rows that runs report and choose by. Where no
    row has one, a classifier's score is agreement with the teacher, and `labels_from` is "teacher", else "file".

    `template` and `decoding` are for generative students: see evaluate_generator. `trusts_code` lets code that comes
    with the student run. Raises UsageError where the folder is no run, or the shards have other labels.
    """
    metrics = read_metrics(run_folder)
    folder = choose_teacher(shards or Path(metrics["shards"]))
    manifest = check_readable(folder)
    device = choose_device(device_name, precision)
    if is_generator(run_folder / "student"):
        config = metrics["config"]
        template = template or config.get("template") or metrics.get("template")
        length = config.get("sequence_length")
        source = find_run_student(run_folder, trusts_code)
        return evaluate_generator(run_folder, source, folder, split, device, template, decoding, length)
    if template is not None or decoding is not None:
        raise UsageError(f"{run_folder} is a classifier: template and decoding are for students that write")
    source = find_run_student(run_folder, trusts_code)
    tokenizer = load_tokenizer(source)
    model = load_classifier(source).to(device.device)
    outputs = 1 if manifest.kind == "regression" else len(manifest.labels)
    if model.config.num_labels != outputs:
        raise UsageError(
            f"{folder} is a task of {outputs} outputs, and {run_folder} was trained for {model.config.num_labels}"
        )
    several = model.config.problem_type == "multi_label_classification"
    if several != (manifest.kind == "multilabel"):
        one, other = ("several labels", "one label") if several else ("one label", "several labels")
        raise UsageError(f"{run_folder} gives a text {one}, and in {folder} a text has {other}")
    encoder = TextEncoder(tokenizer, tokenizer.model_max_length)
    found = find_scored(folder, manifest, split)
    rows = scored_rows(found, encoder, DEFAULT_BUFFER_BYTES)
    if not rows.rows:
        raise DataError(f"{folder} has no labelled rows in the split {split!r}")
    return {
        "run": str(run_folder),
        "shards": str(folder),
        "split": split,
        "rows": rows.rows,
        "labels_from": "teacher" if found.by_teacher else "file",
        "metric": manifest.metric,
        "score": score(manifest, predict(model, rows, device)),
    }
