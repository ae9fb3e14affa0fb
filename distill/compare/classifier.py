"""What a comparison of classifiers shows beyond scores: it reads predictions.npz, which other methods do not write."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PREDICTIONS = "predictions.npz"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class SeedPredictions:
    """What the students of all seeds say of the same rows: `logits` (seeds, rows, c), `target` (rows,), or
    (rows, c) of booleans where a row has several labels.

    `aligner`, of the same shape as the logits, is what the aligners, or the teacher's heads, make of the teacher's
    answers to those rows; None where it did not answer all of them.
    """

    logits: Array
    target: Array
    aligner: Array | None


def read_predictions(folders: Sequence[Path], split: str) -> SeedPredictions | None:
    """Read the predictions of runs that differ in their seed; None where their method writes none of that split."""
    logits, aligner = [], []
    target: Array | None = None
    for folder in folders:
        if not (folder / PREDICTIONS).exists():
            return None
        with np.load(folder / PREDICTIONS) as arrays:
            if split not in arrays:
                return None
            logits.append(arrays[split])
            target = arrays[f"{split}_target"]
            for said in (f"{split}_aligner", f"{split}_head"):
                if said in arrays and len(arrays[said]) == len(arrays[split]):
                    aligner.append(arrays[said])
                    break
    if target is None:
        return None
    return SeedPredictions(np.stack(logits), target, np.stack(aligner) if len(aligner) == len(folders) else None)


def count_confusion(logits: Array, target: Array) -> list[list[float]]:
    """Count the rows of each label (lines) that got each label (columns), as a mean over seeds."""
    classes = logits.shape[-1]
    counts = np.zeros((classes, classes))
    for one in logits:
        np.add.at(counts, (target, one.argmax(axis=1)), 1)
    confusion: list[list[float]] = (counts / len(logits)).tolist()
    return confusion
