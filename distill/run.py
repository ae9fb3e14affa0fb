"""One training run, from a shard folder to runs/<name>/."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distill.compute.devices import Device
from distill.compute.processes import Processes, connect_processes
from distill.config import DistillConfig
from distill.data.answers import open_teachers
from distill.data.run_rows import RunRows, describe_rows, read_rows
from distill.methods.choose import check_task, make_method
from distill.methods.materials import FoundModel, find_model
from distill.methods.placing import prepare_device
from distill.runs.folder import choose_run_folder, clear_folder, explain_unwritten, say_kept, working_folder
from distill.runs.names import CHECKPOINT
from distill.runs.record import RunLog, begin_run, describe_run, identify_run, open_log, tell_finished, write_run
from distill.runs.trackers import Curves, TrackedRun, check_trackers, open_trackers
from distill.training.checkpoint import Checkpoints
from distill.training.loop import Training
from distill.training.progress import Progress
from shared.console import say, silence
from shared.errors import DiskError, UsageError
from shared.log_files import keep_log
from shared.options import flatten


@dataclass(frozen=True, slots=True)
class Keep:
    """What a run leaves behind: its `student`, aligner and heads or only its scores and predictions.

    `frozen` is a folder for the outputs of frozen layers, which runs of the same student share; they go with the run
    where it is None.
    """

    student: bool = True
    frozen: Path | None = None


def run_distillation(
    config: DistillConfig,
    out: Path = Path("runs"),
    name: str | None = None,
    overwrite: bool = False,
    checkpoint_steps: int | None = None,
    trackers: Sequence[str] = (),
    keep: Keep = Keep(),
) -> tuple[Path, dict[str, Any]]:
    """Train one student from a shard folder; write out/<name>/ and return it with its metrics.

    The folder holds metrics.json, README.md (its model card), row_scores.parquet (see write_row_scores) and what else
    the method predicted, student/ (which transformers or peft loads) and what the method trained beside it, log.jsonl,
    a line an epoch, run.log, what was said, and what `trackers` write to disk. It appears all at once, when the run is
    done. `name` is <task>-<variant>-s<seed> unless given, with a number behind it where that is taken; a given one is
    refused then, unless `overwrite`.

    A checkpoint is kept every `checkpoint_steps` steps of a phase, or else every five minutes, and after each phase. A
    run that was stopped goes on from it when it is called again, and comes to the same weights. In several processes
    (see distill.compute.processes) each returns the same.
    """
    started = time.perf_counter()
    if checkpoint_steps is not None and checkpoint_steps < 1:
        raise UsageError(f"checkpoint_steps is {checkpoint_steps}; it must be at least 1")
    check_trackers(trackers)
    with keep_log() as log, connect_processes() as processes:
        if not processes.is_first:
            silence()
        teachers = open_teachers(config.data.shards, config.data.teacher)
        manifest = teachers[0].manifest
        check_task(config, manifest)
        default = f"{manifest.task}-{config.name_variant(manifest.kind)}-s{config.training.seed}"
        target = processes.agree(choose_run_folder(out, name, default, overwrite))
        found = find_model(config.student.model, config.student.trust_remote_code)
        device = prepare_device(config, found, processes)
        run = _Run(config, read_rows(config, teachers), found, device, target, keep)
        with working_folder(target, overwrite, device.processes) as work:
            identity = identify_run(config, run.rows, found.fingerprint)
            checkpoints = Checkpoints(work / CHECKPOINT, identity, checkpoint_steps, device.processes)
            checkpoints.settle(overwrite)
            say_kept(out / (name or default), target)
            if processes.is_first:
                begin_run(work, log, config, run.rows, goes_on=checkpoints.goes_on)
            with open_trackers(trackers if processes.is_first else (), run.describe(checkpoints, work)) as curves:
                training, progress = run.train(work, checkpoints, curves)
                try:
                    metrics = run.record(work, training, progress, started - checkpoints.seconds_before)
                except DiskError:  # which says what is kept
                    raise
                except BaseException:  # a signal, or want of memory for scores: what was trained can be scored again
                    training.save_end()
                    raise
                curves.log_result(metrics)
        tell_finished(target, metrics)
    return target, metrics


@dataclass(frozen=True, slots=True)
class _Run:
    """A run whose shards were read: what it trains, on what, and where to."""

    config: DistillConfig
    rows: RunRows
    found: FoundModel
    device: Device
    target: Path
    keep: Keep

    @property
    def processes(self) -> Processes:
        return self.device.processes

    def describe(self, checkpoints: Checkpoints, work: Path) -> TrackedRun:
        """Give what trackers know the run by."""
        task, named = self.rows.manifest.task, (checkpoints.run_id, checkpoints.goes_on)
        return TrackedRun(self.target.name, task, *named, work / "trackers", flatten(self.config))

    def train(self, work: Path, checkpoints: Checkpoints, curves: Curves) -> tuple[Training, Progress]:
        """Make the method and train it; the epochs go to log.jsonl, and the curves to the trackers, too."""
        method = make_method(self.config, self.rows, self.found, self.device, work, self.keep.frozen)
        say(describe_rows(self.rows, sees_unlabelled=self.config.method.sees_unlabelled_rows))
        with open_log(work, writes=self.processes.is_first) as file:
            told = (RunLog(method, file).write, curves.log_point)
            training = Training(method, self.target.name, checkpoints, self.processes, *told)
            return training, training.run()

    def record(self, work: Path, training: Training, progress: Progress, started: float) -> dict[str, Any]:
        """Score what was trained, and write what the run came to to the folder `work`; give the metrics.

        Raises DiskError where that cannot be written; the end of the training is kept first, if it can be.
        """
        method = training.method
        described = method.describe(progress)
        metrics = describe_run(self.config, self.rows, self.device, progress, described, self.found.fingerprint)
        scores = method.score_rows()
        if self.keep.student:
            method.collect()
        metrics["seconds"] = time.perf_counter() - started
        if self.processes.is_first:
            try:
                write_run(work, self.target, method, scores, metrics, self.keep.student)
            except (OSError, SafetensorError) as error:
                clear_folder(work)  # what was written of it may be what filled the disk
                kept, checkpoint = training.save_end(), training.checkpoints.path
                raise explain_unwritten(self.target, error, checkpoint, of_end=kept) from error
        return metrics
