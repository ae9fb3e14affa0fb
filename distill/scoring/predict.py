"""Scoring: logits over a split in order, and the task's metric."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from distill.compute.devices import Device, choose_device
from distill.config import Precision
from distill.data.batches import Source, collate
from distill.data.split import Split, read_split
from distill.data.tokens import TextEncoder
from distill.models.pretrained import load_classifier, load_tokenizer
from distill.runs.folder import read_metrics
from distill.scoring.metrics import find_metric
from shared.errors import DataError, UsageError
from shared.shards.manifest import Manifest, choose_teacher
from shared.shards.read import check_readable
from shared.sources import resolve_model

Array = np.ndarray[Any, Any]

BATCH_SIZE = 64


def scored_rows(split: Split, encoder: TextEncoder, buffer_rows: int) -> Source:
    """The rows that score a student: all labelled examples, once each, whether or not the teacher answered."""
    return Source(split, split.labelled & split.first, split.labelled, encoder=encoder, buffer_rows=buffer_rows)


@torch.inference_mode()
def predict(model: Any, source: Source, encoder: TextEncoder, device: Device) -> tuple[Array, Array]:
    """The model's logits, float32 (n, c), and the targets (n,) of a source's rows, in the order of the shards.

    `model` is a transformers classifier. The longest texts go first, so that what does not fit in memory fails at once.
    """
    model.eval()
    logits, targets = [], []
    share, gather = device.processes.share, device.processes.gather
    for block in (unread.read() for unread in source.blocks()):
        assert block.tokens is not None
        order = np.argsort(-block.tokens.lengths, kind="stable")
        outputs = []
        for start in range(0, len(order), BATCH_SIZE):
            batch = collate(block.take(order[start : start + BATCH_SIZE]), encoder, share).to(device.device)
            with device.autocast():
                outputs.append(gather(model(**batch.inputs).logits.float(), len(batch.target)))
        block_logits = np.empty((len(order), outputs[0].shape[1]), np.float32)
        block_logits[order] = torch.cat(outputs).cpu().numpy()
        logits.append(block_logits)
        targets.append(block.target)
    return np.concatenate(logits), np.concatenate(targets)


@torch.inference_mode()
def predict_aligner(aligner: nn.Module, source: Source, device: Device) -> tuple[Array, Array]:
    """The aligner's main outputs, and the targets, of a source's rows."""
    aligner.eval()
    logits, targets = [], []
    for block in (unread.read() for unread in source.blocks()):
        for start in range(0, len(block), 1024):
            batch = collate(block.take(np.arange(start, min(start + 1024, len(block))))).to(device.device)
            logits.append(aligner(batch.vectors).main.cpu().numpy())
            targets.append(batch.target.cpu().numpy())
    return np.concatenate(logits), np.concatenate(targets)


def score(manifest: Manifest, logits: Array, target: Array) -> float:
    """The task's metric; a regressor's values are clipped to the task's range first."""
    if manifest.kind == "regression" and manifest.target_range is not None:
        logits = logits.clip(*manifest.target_range)
    return find_metric(manifest.metric)(logits, target)


def evaluate_run(
    run_folder: Path, shards: Path | None, split: str, device_name: str, precision: Precision
) -> dict[str, Any]:
    """Score runs/<name>/student again: on a split of the shards it was trained from, or of others of the same task.

    Raises UsageError where the folder is no run, or the shards have other labels.
    """
    metrics = read_metrics(run_folder)
    folder = choose_teacher(shards or Path(metrics["shards"]))
    manifest = check_readable(folder)
    device = choose_device(device_name, precision)
    source = resolve_model(str((run_folder / "student").resolve()))
    tokenizer = load_tokenizer(source)
    model = load_classifier(source).to(device.device)
    outputs = 1 if manifest.kind == "regression" else len(manifest.labels)
    if model.config.num_labels != outputs:
        raise UsageError(
            f"{folder} is a task of {outputs} outputs, and {run_folder} was trained for {model.config.num_labels}"
        )
    encoder = TextEncoder(tokenizer, tokenizer.model_max_length)
    rows = scored_rows(read_split(folder, manifest, split), encoder, metrics["config"]["buffer_rows"])
    if not rows.rows:
        raise DataError(f"{folder} has no labelled rows in the split {split!r}")
    value = score(manifest, *predict(model, rows, encoder, device))
    return {
        "run": str(run_folder),
        "shards": str(folder),
        "split": split,
        "rows": rows.rows,
        "metric": manifest.metric,
        "score": value,
    }
