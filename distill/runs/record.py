"""What a run's folder says of the run: metrics.json, log.jsonl with a line an epoch, and each row's score."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill.compute.devices import Device
from distill.config import DistillConfig
from distill.data.ceilings import find_ceilings
from distill.data.run_rows import RunRows
from distill.runs.card import find_comparable, make_card
from distill.runs.names import EPOCHS, LOG, METRICS, STARTED
from distill.training.method import Method, RowScores
from distill.training.progress import CurvePoint, EpochRecord, Progress
from distill.training.step import SKIPPED
from shared.events import emit
from shared.log_files import LogFile
from shared.options import flatten
from shared.shards.manifest import hash_manifest, hash_recipe
from shared.stores.mirror import spell_place

ROW_SCORES = "row_scores.parquet"
PACKAGES = ("harvest-distill", "numpy", "peft", "pyarrow", "safetensors", "tokenizers", "torch", "transformers")
SCHEMA = pa.schema([("split", pa.string()), ("row", pa.int64()), ("score", pa.float64())])


def identify_run(config: DistillConfig, rows: RunRows, fingerprint: str) -> dict[str, Any]:
    """Give what a run must share with another to go on from its checkpoint: options, shards and the student.

    What its processes share is no part of it: however many they are, they come to the same student.
    """
    options = {name: value for name, value in flatten(config).items() if name != "parallel"}
    return {**options, "manifest_sha256": hash_manifests(rows), "student_fingerprint": fingerprint}


def begin_run(folder: Path, log: LogFile, config: DistillConfig, rows: RunRows, *, goes_on: bool) -> None:
    """Write what is known of a run that begins, or goes on, to its folder; its log goes on there, too."""
    log.open(folder / LOG, anew=not goes_on)
    manifest = rows.manifest
    known = {
        "task": manifest.task,
        "teacher": name_teachers(rows),
        "student": config.student.model,
        "variant": config.name_variant(manifest.kind),
        "seed": config.training.seed,
        "metric": manifest.metric,
    }
    started = datetime.now(UTC).isoformat(timespec="seconds")
    (folder / STARTED).write_text(json.dumps({**known, "config": flatten(config), "started_at": started}) + "\n")
    emit("started", command="distill", **known, goes_on=goes_on)


def name_teachers(rows: RunRows) -> str:
    """Name the teachers of a run."""
    return "+".join(teacher.manifest.teacher for teacher in rows.teachers)


def hash_manifests(rows: RunRows) -> dict[str, str]:
    """Give the hash of each teacher's manifest, by its folder."""
    return {spell_place(teacher.folder): hash_manifest(teacher.manifest) for teacher in rows.teachers}


@dataclass(frozen=True, slots=True)
class RunLog:
    """Writes each epoch of a method's last phase to a file."""

    method: Method
    file: TextIO

    def write(self, record: EpochRecord) -> None:
        """Write one epoch, with its curve."""
        curve = [describe_step(point) for point in record.curve]
        self.file.write(json.dumps({**self.method.describe_epoch(record), "curve": curve}) + "\n")
        self.file.flush()


def describe_step(point: CurvePoint) -> dict[str, Any]:
    """Give a point of a curve as the run's log has it: what depends on no clock."""
    return {"step": point.step, "dev": next(iter(point.scores.values()), None), **point.terms}


@contextmanager
def open_log(folder: Path, *, writes: bool) -> Iterator[TextIO]:
    """Open the log of a run that one of several processes `writes`; the others' lines go nowhere."""
    with (folder / EPOCHS if writes else Path(os.devnull)).open("w") as file:
        yield file


def describe_progress(folder: Path) -> str:
    """Say in a few words how far a run is by its log in a folder; "" before its first epoch has ended.

    A student's objective and what a writing student learns from are called `total` alike.
    """
    try:
        *_, line = (folder / EPOCHS).read_text().splitlines()
        epoch = json.loads(line)
    except (OSError, ValueError):
        return ""
    terms = epoch.get("student") or {}
    loss = f"loss {terms['total']:.3f}, " if "total" in terms else ""
    return f"epoch {epoch['epoch']}, {loss}dev {epoch['dev']:.3f}"


def describe_run(
    config: DistillConfig,
    rows: RunRows,
    device: Device,
    progress: Progress,
    method: Mapping[str, Any],
    fingerprint: str,
) -> dict[str, Any]:
    """Give all that metrics.json says, but for the seconds; `method` is what Method.describe gave."""
    manifest = rows.manifest
    assert progress.best is not None, "every epoch of the last phase is scored"
    return {
        "task": manifest.task,
        "teacher": name_teachers(rows),
        "student": config.student.model,
        "preset": config.preset,
        "variant": config.name_variant(manifest.kind),
        "seed": config.training.seed,
        "metric": manifest.metric,
        "dev_best": progress.best.dev,
        "dev_last": progress.epochs[-1].dev,
        "best_epoch": progress.best.epoch,
        "best_step": progress.best.step,
        **method,
        **_measure_speed(progress),
        "rows": {
            "train": len(rows.train),
            "answered": int(rows.train.answered.sum()),
            "labelled": int(rows.visible.sum()),
            "dev": rows.dev_rows,
        },
        "dev_from": rows.splits.dev_from,
        "test_from": rows.splits.test_from,
        "labels_from": "teacher" if rows.splits.by_teacher else "file",
        "text_ceiling": find_ceilings(rows),
        "device": str(device.device),
        "processes": device.processes.count,
        "sharded": device.processes.shards,
        **device.describe_half(),
        "skipped_steps": count_skipped(progress),
        "shards": spell_place(rows.folder),
        "manifest_sha256": hash_manifests(rows),
        "recipe_sha256": {spell_place(teacher.folder): hash_recipe(teacher.manifest) for teacher in rows.teachers},
        "labels": list(manifest.labels),
        "texts": manifest.source,
        "student_fingerprint": fingerprint,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_revision": read_git_revision(),
        "packages": {package: read_version(package) for package in PACKAGES},
        "config": flatten(config),
    }


def _measure_speed(progress: Progress) -> dict[str, Any]:
    seconds = sum(record.seconds for record in progress.epochs)
    return {
        "student_steps": sum(record.steps for record in progress.epochs),
        "examples_per_second": sum(record.rows for record in progress.epochs) / seconds,
    }


def tell_finished(target: Path, metrics: Mapping[str, Any]) -> None:
    """Tell what a finished run came to."""
    names = ("metric", "dev_best", "dev_last", "test", "best_epoch", "student_steps", "examples_per_second", "seconds")
    emit("finished", run=str(target), **{name: metrics[name] for name in names})


def count_skipped(progress: Progress) -> int:
    """Count the steps that were left out because their gradients overflowed in float16."""
    return round(sum(record.terms.get(SKIPPED, 0) * record.counts.get(SKIPPED, 0) for record in progress.epochs))


def write_run(
    folder: Path,
    target: Path,
    method: Method,
    scores: Mapping[str, RowScores],
    metrics: Mapping[str, Any],
    student: bool,
) -> None:
    """Write what a run came to, and with `student` what is kept of it, to a `folder` that becomes `target`."""
    write_row_scores(folder, scores)
    method.save_predictions(folder)
    write_metrics(folder, metrics)
    if student:
        method.save(folder)
        (folder / "README.md").write_text(make_card(target.name, metrics, find_comparable(metrics, target.parent)))


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write metrics.json."""
    (folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n")


def write_row_scores(folder: Path, scores: Mapping[str, RowScores]) -> None:
    """Write row_scores.parquet: the `split`, the `row`'s number in its split, and its `score`.

    The mean of a split's scores is the task's metric, or estimates it.
    """
    splits = [split for split, each in scores.items() for _ in each.number]
    numbers = np.concatenate([each.number for each in scores.values()])
    values = np.concatenate([each.score for each in scores.values()])
    pq.write_table(pa.table([splits, numbers, values], schema=SCHEMA), folder / ROW_SCORES)


def read_git_revision() -> str | None:
    """Give the commit of the checkout that this code runs from; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def read_version(package: str) -> str | None:
    """Give the installed version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
