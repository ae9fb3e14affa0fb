"""One training run, from a shard folder to runs/<name>/."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from safetensors.torch import save_file

from distill.compute.devices import Device, choose_device
from distill.compute.processes import Processes, connect_processes
from distill.config import DistillConfig
from distill.data.answers import Answers, gather_distributions, gather_vectors, join_teachers, open_teachers
from distill.data.batches import Lookup, Part, Source
from distill.data.controls import make_lookup
from distill.data.distributions import read_label_logprobs
from distill.data.split import Bools, Split, keep_labels, read_split
from distill.data.tokens import TextEncoder
from distill.data.vectors import Array, TeacherVectors, measure_vectors
from distill.losses.objective import Objective
from distill.methods.controls import fit_smoothing, look_up_targets, pseudo_label, smooth_like
from distill.models.adapters import write_trained
from distill.models.aligner import Aligner
from distill.models.classifier import Student
from distill.models.cpu_kernels import keep_freed_memory, quicken
from distill.models.lower_layers import Lower, keep_outputs, take_lower
from distill.models.pretrained import load_student, load_tokenizer, save_student
from distill.runs.card import find_comparable, make_card
from distill.runs.folder import CHECKPOINT, choose_run_folder, working_folder
from distill.runs.trackers import check_trackers, open_trackers
from distill.scoring.metrics import find_metric
from distill.scoring.predict import predict, predict_aligner, score, scored_rows
from distill.training.checkpoint import Checkpoints
from distill.training.loop import Data, EpochRecord, Scores, Trained, derive_seed, train
from shared.console import say, silence, track
from shared.errors import DataError, ShardError, UsageError
from shared.keys import canonical_json
from shared.shards.manifest import Manifest, hash_manifest, hash_recipe
from shared.sources import ResolvedModel, fingerprint_model, resolve_model

TRAIN, DEV, TEST = "train", "validation", "test"
PACKAGES = ("harvest-distill", "numpy", "peft", "pyarrow", "safetensors", "tokenizers", "torch", "transformers")


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
    out: Path,
    name: str | None = None,
    overwrite: bool = False,
    checkpoint_steps: int | None = None,
    trackers: Sequence[str] = (),
    keep: Keep = Keep(),
) -> tuple[Path, dict[str, Any]]:
    """Train one student from a shard folder; write out/<name>/ and return it with its metrics.

    The folder holds metrics.json, README.md (its model card), predictions.npz (see save_predictions), student/ (which
    transformers or peft loads), heads.safetensors, aligner.safetensors where there is a teacher, log.jsonl, a line an
    epoch, and what `trackers` write to disk. It appears all at once, when the run is done. `name` is
    <task>-<variant>-s<seed> unless given, with a number behind it where that is taken; a given one that is taken is
    refused unless `overwrite`.

    A checkpoint is kept every `checkpoint_steps` steps of the student, or else every five minutes. A run that was
    stopped goes on from it when it is called again, and comes to the same weights. In several processes (see
    distill.compute.processes) each returns the same.
    """
    started = time.perf_counter()
    if checkpoint_steps is not None and checkpoint_steps < 1:
        raise UsageError(f"checkpoint_steps is {checkpoint_steps}; it must be at least 1")
    check_trackers(trackers)
    with connect_processes() as processes:
        if not processes.is_first:
            silence()
        return _run(config, out, name, overwrite, checkpoint_steps, trackers, keep, processes, started)


def _run(
    config: DistillConfig,
    out: Path,
    name: str | None,
    overwrite: bool,
    checkpoint_steps: int | None,
    trackers: Sequence[str],
    keep: Keep,
    processes: Processes,
    started: float,
) -> tuple[Path, dict[str, Any]]:
    teachers = open_teachers((config.shards, *config.further_shards), config.teacher)
    folder, manifest = teachers[0].folder, teachers[0].manifest
    outputs = count_outputs(manifest)
    if manifest.kind == "regression":
        if config.control == "label-smoothing":
            raise UsageError(f"{manifest.task} is a regression: there are no labels to smooth")
        if config.soft == "kl":
            raise UsageError(f"{manifest.task} is a regression: soft kl needs a distribution over labels")
    default = f"{manifest.task}-{config.variant}-s{config.seed}"
    target = processes.agree(choose_run_folder(out, name, default, overwrite))
    device = choose_device(config.device, config.precision, processes)
    if device.device.type == "cpu":
        keep_freed_memory()
    source = resolve_model(config.student, say)
    tokenizer = load_tokenizer(source)
    tokenizer.model_max_length = min(config.max_length, tokenizer.model_max_length)
    encoder = TextEncoder(tokenizer, tokenizer.model_max_length)

    split, answers = join_teachers(teachers, read_split(folder, manifest, TRAIN))
    visible = choose_visible(split, config)
    dev_split = read_split(folder, manifest, DEV)
    dev = scored_rows(dev_split, encoder, config.buffer_rows)
    if not dev.rows:
        raise DataError(f"{folder} has no labelled rows in the split {DEV!r}, which chooses the best epoch")

    test_split, test_rows = None, None
    if manifest.shards_of(TEST):
        test_split = read_split(folder, manifest, TEST)
        test_rows = scored_rows(test_split, encoder, config.buffer_rows)
        test_rows = test_rows if test_rows.rows else None

    described = {
        **asdict(config),
        "shards": str(config.shards),
        "further_shards": [str(path) for path in config.further_shards],
        "vectors": list(config.vectors),
    }
    identity = {
        **described,
        "manifest_sha256": {str(teacher.folder): hash_manifest(teacher.manifest) for teacher in teachers},
        "student_fingerprint": fingerprint_model(source),
    }
    with working_folder(target, overwrite, processes) as work:
        checkpoints = Checkpoints(work / CHECKPOINT, identity, checkpoint_steps, processes.is_first)
        checkpoints.settle(overwrite)
        objective = make_objective(config, manifest)

        def gather(answers: Sequence[Answers], rows: Split) -> TeacherVectors:
            return gather_vectors(answers, rows, config.vectors, config.reply_encoder, work)

        def gather_scored(scored: Split) -> tuple[Split, TeacherVectors]:
            rows, answers = join_teachers(teachers, scored)
            return rows, gather(answers, rows)

        vectors, lookup, aligner, aligner_rows, targets, first_phase = None, None, None, None, None, None
        if config.soft == "kl" and config.control != "self-training":
            logprobs = read_label_logprobs(config, split, gather_distributions(answers, split, outputs, work))
            targets = look_up_targets(split, logprobs)
            say(f"the teacher put {1 - np.exp(logprobs).sum(axis=1).mean():.1%} on no label; rows weigh as their rest")
            if config.control == "label-smoothing":
                targets, first_phase = smooth_like(logprobs, config.tau)
        if config.uses_aligner:
            vectors = gather(answers, split)
            mean, std = measure_vectors(split, vectors)
            lookup = make_lookup(config.control, split, vectors, config.seed, work)
            torch.manual_seed(derive_seed(config.seed, "aligner"))
            aligner = Aligner(torch.from_numpy(mean), torch.from_numpy(std), outputs, config.semantics)
            aligner.to(device.device)
            aligner_rows = Source(
                split, visible, visible, vectors=vectors, lookup=lookup, buffer_rows=config.buffer_rows
            )
        if config.control == "frozen-aligner":
            aligner_rows = None

        def build(run: DistillConfig) -> tuple[Student, Lower | None]:
            matched = None if run.control == "label-smoothing" else vectors
            built = build_student(run, source, outputs, manifest, matched)
            built.model.config.pad_token_id = tokenizer.pad_token_id
            if device.device.type == "cpu":
                quicken(built.model, encoder.max_length)
            lower = None
            if config.frozen_layers is not None:
                lower = take_lower(built.model, config.frozen_layers, config.student)
            built.to(device.device)
            if lower is not None and encoder.embed is None:
                shown = Source(split, split.answered, visible, encoder=encoder, buffer_rows=config.buffer_rows)
                texts = [shown, dev, *([] if test_rows is None else [test_rows])]
                path = (keep.frozen or work) / name_kept_outputs(identity, device)
                encoder.embed = keep_outputs(path, lower, built.model, texts, encoder, device).pad
                if keep.frozen is None:
                    for made in (path, path.with_suffix(".lock")):
                        made.unlink(missing_ok=True)  # the mapping keeps the bytes
            return built, lower

        def score_with(trained: Student) -> Callable[[], float]:
            return lambda: score(manifest, *predict(trained.model, dev, encoder, device))

        if config.control == "self-training":
            alone = replace(
                config,
                seed=derive_seed(config.seed, "first student"),
                control="none",
                loss="none",
                alpha=0.0,
                soft="aligner",
            )
            first, _ = build(alone)
            rows = Data(*compose_batches(split, visible, alone, encoder, None, None), None, encoder)
            with track(f"{target.name}, the student that labels", alone.epochs * rows.steps) as tracker:
                scores = Scores(score_with(first), None)
                before = train(
                    alone, make_objective(alone, manifest), first, None, rows, device, scores, tracker, lambda _: None
                )
            write_trained(first.model, before.best)
            everything = Source(split, split.answered, visible, encoder=encoder, buffer_rows=config.buffer_rows)
            targets = pseudo_label(first.model, split, everything, encoder, device)
            first_phase = {"student_steps": alone.epochs * rows.steps, "dev_best": before.best_dev}
        student, lower = build(config)
        if config.control == "label-smoothing" and aligner is not None and aligner_rows is not None:
            everything = Source(split, split.answered, visible, vectors=vectors, buffer_rows=config.buffer_rows)
            targets, first_phase = fit_smoothing(config, objective, aligner, aligner_rows, everything, device)
            vectors, aligner, aligner_rows = None, None, None
        parts, steps = compose_batches(split, visible, config, encoder, vectors, lookup)
        say(describe_rows(manifest, split, visible, parts, config))

        answered_dev = find_answered(dev_split, aligner, vectors, gather_scored, config)
        score_aligner: Callable[[], float] | None = None
        if aligner is not None and answered_dev is not None:
            score_aligner = partial(score_answered, manifest, aligner, answered_dev, device)

        with (
            open_log(work / "log.jsonl", processes) as log,
            open_trackers(trackers if processes.is_first else (), target.name, work / "trackers", described) as report,
            track(target.name, config.epochs * steps) as tracker,
        ):

            def write_epoch(record: EpochRecord) -> None:
                log.write(json.dumps(asdict(record)) + "\n")
                log.flush()
                report(record, record.epoch * steps)

            trained = train(
                config,
                objective,
                student,
                aligner,
                Data(parts, steps, aligner_rows, encoder, targets),
                device,
                Scores(score_with(student), score_aligner),
                tracker,
                write_epoch,
                checkpoints,
            )
        write_trained(student.model, trained.best)
        truncated = sum(part.source.truncated for part in parts)
        if truncated:
            say(f"{truncated:,} training texts were cut to {tokenizer.model_max_length} tokens")
        predictions = {"validation": predict(student.model, dev, encoder, device)}
        if test_rows is not None:
            predictions["test"] = predict(student.model, test_rows, encoder, device)
        test = score(manifest, *predictions["test"]) if "test" in predictions else None
        if aligner is not None and test_split is not None and test_rows is not None:
            answered_test = find_answered(test_split, aligner, vectors, gather_scored, config)
            if answered_test is not None and answered_test.rows == test_rows.rows:
                predictions["test_aligner"] = predict_aligner(aligner, answered_test, device)
        metrics = {
            "task": manifest.task,
            "teacher": "+".join(teacher.manifest.teacher for teacher in teachers),
            "student": config.student,
            "variant": config.variant,
            "loss": config.loss,
            "semantics": config.semantics,
            "control": config.control,
            "seed": config.seed,
            "metric": manifest.metric,
            "dev_best": trained.best_dev,
            "dev_last": trained.epochs[-1].dev,
            "best_epoch": trained.best_epoch,
            "test": test,
            **summarise_epochs(trained),
            "first_phase": first_phase,
            "rows": {
                "train": len(split),
                "answered": int(split.answered.sum()),
                "labelled": int(visible.sum()),
                "dev": dev.rows,
            },
            "truncated_texts": truncated,
            "device": str(device.device),
            "processes": processes.count,
            "bfloat16": device.bfloat16,
            "shards": str(folder),
            "manifest_sha256": identity["manifest_sha256"],
            "recipe_sha256": {str(each.folder): hash_recipe(each.manifest) for each in teachers},
            "labels": list(manifest.labels),
            "texts": manifest.source,
            "student_fingerprint": identity["student_fingerprint"],
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "git_revision": read_git_revision(),
            "packages": {package: read_version(package) for package in PACKAGES},
            "config": described,
        }
        if processes.is_first:
            save_predictions(work / "predictions.npz", predictions)
            if keep.student:
                if lower is not None:
                    lower.put_back(student.model)
                save_student(work / "student", student.model, tokenizer)
                save_file(contiguous(student.extra_weights()), work / "heads.safetensors")
                if aligner is not None:
                    save_file(contiguous(aligner.state_dict()), work / "aligner.safetensors")
        metrics["seconds"] = time.perf_counter() - started + checkpoints.seconds_before
        if processes.is_first:
            (work / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
            if keep.student:
                card = make_card(target.name, metrics, find_comparable(metrics, target.parent))
                (work / "README.md").write_text(card)
    return target, metrics


# --- what is trained ---


def count_outputs(manifest: Manifest) -> int:
    """Outputs of each head: the number of classes, or 1. Raises UsageError for a task that distill cannot train."""
    find_metric(manifest.metric)
    if manifest.kind == "regression":
        return 1
    if manifest.kind != "classification":
        raise UsageError(
            f"{manifest.task} is a task of kind {manifest.kind!r}; classification and regression train here"
        )
    if len(manifest.labels) < 2:
        raise UsageError(
            f"{manifest.task} has {len(manifest.labels)} labels ({', '.join(manifest.labels)}): there is nothing to "
            "tell apart. Harvest a task with two at least"
        )
    return len(manifest.labels)


def make_objective(config: DistillConfig, manifest: Manifest) -> Objective:
    """The objective that a config asks for."""
    return Objective(
        config.semantics,
        config.loss if config.matches else "none",
        config.alpha,
        config.beta,
        config.gamma,
        config.tau,
        regression=manifest.kind == "regression",
        contrastive_temperature=config.contrastive_temperature,
        soft=config.soft,
    )


def name_kept_outputs(identity: Mapping[str, Any], device: Device) -> str:
    """A file name that changes with all that changes the frozen layers' outputs, and with the rows they are of."""
    names = ("student_fingerprint", "student_layers", "frozen_layers", "max_length", "manifest_sha256")
    made_of = {**{name: identity[name] for name in names}, "device": str(device.device), "bfloat16": device.bfloat16}
    return f"frozen-{sha256(canonical_json(made_of).encode()).hexdigest()[:16]}.safetensors"


def build_student(
    config: DistillConfig, source: ResolvedModel, outputs: int, manifest: Manifest, vectors: TeacherVectors | None
) -> Student:
    """A fresh student. For one seed its main head is the same in every variant, and P_s and A_s wherever they fit."""
    torch.manual_seed(derive_seed(config.seed, "student"))
    model = load_student(
        source,
        outputs,
        manifest.labels,
        config.student_layers,
        config.dropout,
        config.lora_rank,
        config.lora_targets,
        config.gradient_checkpointing,
    )
    torch.manual_seed(derive_seed(config.seed, "heads"))
    return Student(model, config.semantics, None if vectors is None else vectors.width)


def choose_visible(split: Split, config: DistillConfig) -> Bools:
    """The rows that training may see the label of. Raises DataError where there is none, or one label only."""
    if config.labels is not None:
        visible = keep_labels(split, config.labels, config.seed)
    else:
        visible = split.labelled & split.answered
    if not visible.any():
        raise DataError(f"the split {split.name} has no row that has both a label and an answer (status ok)")
    if np.ptp(split.target[visible]) == 0:
        raise DataError(
            f"the {int(visible.sum()):,} labels of the split {split.name} that training may see are all the same: "
            "there is nothing to tell apart. Keep more with --labels, or harvest more rows"
        )
    return visible


def compose_batches(
    split: Split,
    visible: Bools,
    config: DistillConfig,
    encoder: TextEncoder,
    vectors: TeacherVectors | None,
    lookup: Lookup | None,
) -> tuple[tuple[Part, ...], int]:
    """What the student's batches are made of, and how many make an epoch: as many as all answered rows fill.

    With a teacher they hold all answered rows. Where only labelled rows are of use, those are drawn over and over until
    the student has had as many steps as any other variant.
    """

    def take(wanted: Bools, rows: int, once: bool) -> Part:
        source = Source(
            split,
            wanted,
            visible,
            encoder=encoder,
            vectors=vectors,
            lookup=lookup,
            buffer_rows=config.buffer_rows,
        )
        return Part(source, rows, once)

    steps = -(-int(split.answered.sum()) // config.batch_size)
    if not config.sees_unlabelled_rows:
        return (take(visible, config.batch_size, once=bool((visible == split.answered).all())),), steps
    if config.labelled_per_batch is None:
        return (take(split.answered, config.batch_size, once=True),), steps
    hidden = split.answered & ~visible
    if not hidden.any():
        raise UsageError("labelled_per_batch mixes labelled rows with unlabelled ones, and every row has a label")
    return (
        take(visible, config.labelled_per_batch, once=False),
        take(hidden, config.batch_size - config.labelled_per_batch, once=False),
    ), steps


def find_answered(
    scored: Split,
    aligner: Aligner | None,
    vectors: TeacherVectors | None,
    gather: Callable[[Split], tuple[Split, TeacherVectors]],
    config: DistillConfig,
) -> Source | None:
    """The labelled rows of a scored split that the teacher answered; None where the aligner cannot read the answers."""
    if aligner is None or vectors is None or not (scored.labelled & scored.answered).any():
        return None
    try:
        rows, own = gather(scored)
        if own.widths != vectors.widths:
            return None
        measure_vectors(rows, own)
    except (DataError, ShardError) as error:
        say(f"the aligner is not scored on its own: {error}")
        return None
    answered = rows.labelled & rows.answered & rows.first
    return Source(rows, answered, answered, vectors=own, buffer_rows=config.buffer_rows)


def score_answered(manifest: Manifest, aligner: Aligner, answered: Source, device: Device) -> float:
    """The aligner's own score."""
    return score(manifest, *predict_aligner(aligner, answered, device))


# --- what is said and kept ---


def describe_rows(
    manifest: Manifest, split: Split, visible: Bools, parts: tuple[Part, ...], config: DistillConfig
) -> str:
    """One line on the rows that are used and on those that are not."""
    answered = int(split.answered.sum())
    line = f"{manifest.task}: {answered:,} training rows, {int(visible.sum()):,} with a label"
    if dropped := len(split) - answered:
        line += f"; {dropped:,} left out, because their answer is not whole (status is not ok)"
    if not config.sees_unlabelled_rows:
        line += f"; no teacher: the student sees the {parts[0].source.rows:,} labelled rows"
    return line


def summarise_epochs(trained: Trained) -> dict[str, Any]:
    """Steps and rates over all epochs, and the aligner's own best score."""
    seconds = sum(record.seconds for record in trained.epochs)
    aligner = [record.aligner_dev for record in trained.epochs if record.aligner_dev is not None]
    return {
        "aligner_dev": max(aligner, default=None),
        "student_steps": sum(record.student_steps for record in trained.epochs),
        "aligner_steps": sum(record.aligner_steps for record in trained.epochs),
        "examples_per_second": sum(record.student_rows for record in trained.epochs) / seconds,
    }


def open_log(path: Path, processes: Processes) -> TextIO:
    """The file that one of the processes writes; the others' lines go nowhere."""
    return path.open("w") if processes.is_first else Path(os.devnull).open("w")


def save_predictions(path: Path, predictions: Mapping[str, tuple[Array, Array]]) -> None:
    """Write what a student said of the scored rows of each split, in the order of the shards.

    `<split>` holds float32 logits (n, c), or values (n, 1); `<split>_target` the labels (n,). "test_aligner" is what
    the aligner says of the test rows, where the teacher answered all of them.
    """
    arrays = {split: logits for split, (logits, _) in predictions.items()}
    arrays |= {f"{split}_target": target for split, (_, target) in predictions.items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def contiguous(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as safetensors takes them."""
    return {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}


def read_git_revision() -> str | None:
    """The commit of the checkout that this code runs from; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def read_version(package: str) -> str | None:
    """The installed version of a package; None where it runs from a checkout."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
