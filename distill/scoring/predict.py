"""What a model says of a split's rows, in their order, and what the task's metric makes of that."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from distill.compute.devices import Device
from distill.data.batches import Rows, RowSource
from distill.data.columns import TARGET, TEXT, VECTORS, Array, label_columns
from distill.data.run_rows import mark_scored
from distill.data.split import Split
from distill.data.tokens import TextColumn, TextEncoder
from distill.scoring.metrics import find_metric
from shared.shards.manifest import Manifest

VECTOR_BATCH_SIZE, VECTOR_BATCH_BYTES = 1024, 32 << 20


@dataclass(frozen=True, slots=True)
class Predictions:
    """Logits, float32 (n, c), or values (n, 1) of a regression, of n rows with their `target` (n,) or (n, c).

    `number` is a row's place in the split.
    """

    number: Array
    target: Array
    logits: Array


def scored_rows(split: Split, encoder: TextEncoder, buffer_bytes: int) -> RowSource:
    """Give the rows that score a student, with their texts and labels."""
    columns = {TEXT: TextColumn(encoder), **label_columns(split, visible=split.labelled)}
    return RowSource(split, columns, wanted=mark_scored(split), buffer_bytes=buffer_bytes)


@torch.inference_mode()
def predict(model: Any, source: RowSource, device: Device) -> Predictions:
    """Run `model`, a transformers classifier, over the texts of a source's rows, in the order of the shards.

    The longest texts go first, so that what does not fit in memory fails at once.
    """
    model.eval()
    blocks = []
    share, gather = device.processes.share, device.processes.gather
    for block in source.blocks():
        rows = block.read().join()
        lengths = rows.measure()
        assert lengths is not None, "texts have a length"
        order = np.argsort(-lengths, kind="stable")
        outputs = []
        for start, end in device.split_by_tokens(lengths[order]):
            batch = rows.take(order[start:end]).collate(share).to(device.device)
            with device.autocast():
                outputs.append(gather(model(**batch.inputs()).logits.float(), len(batch)))
        logits = np.empty((len(order), outputs[0].shape[1]), np.float32)
        logits[order] = torch.cat(outputs).cpu().numpy()
        blocks.append(_give(rows, logits))
    return _join(blocks)


@torch.inference_mode()
def predict_aligner(aligner: nn.Module, source: RowSource, device: Device) -> Predictions:
    """Run the aligner over the vectors of a source's rows, in the order of the shards: its main outputs."""
    aligner.eval()
    blocks = []
    size = max(1, min(VECTOR_BATCH_SIZE, VECTOR_BATCH_BYTES // source.row_bytes))
    for block in source.blocks():
        held = block.read()
        for start in range(0, len(held), size):
            rows = held.take(start, min(start + size, len(held)))
            batch = rows.collate().to(device.device)
            blocks.append(_give(rows, aligner(batch.tensor(VECTORS)).main.cpu().numpy()))
    return _join(blocks)


def score(manifest: Manifest, predictions: Predictions) -> float:
    """Give the task's metric."""
    return find_metric(manifest.metric)(clip_values(manifest, predictions.logits), predictions.target)


def clip_values(manifest: Manifest, logits: Array) -> Array:
    """Clip a regressor's values to the task's range; the logits of a classifier stay as they are."""
    if manifest.kind == "regression" and manifest.target_range is not None:
        return np.asarray(logits.clip(*manifest.target_range))
    return logits


def _give(rows: Rows, logits: Array) -> Predictions:
    return Predictions(rows.number, rows.values[TARGET], logits)


def _join(blocks: list[Predictions]) -> Predictions:
    return Predictions(
        np.concatenate([block.number for block in blocks]),
        np.concatenate([block.target for block in blocks]),
        np.concatenate([block.logits for block in blocks]),
    )
