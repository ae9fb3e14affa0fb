"""How far a student's confidence can be believed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """By bins of confidence that have rows: the mean confidence, the share that is right, and the share of all rows.

    `error` is the expected calibration error, sum over bins of share |right - confidence| (Guo et al. 2017).
    """

    confidence: tuple[float, ...]
    right: tuple[float, ...]
    share: tuple[float, ...]
    error: float


def measure_calibration(logits: Array, target: Array) -> Calibration:
    """Measure all seeds together: logits (seeds, rows, c), target (rows,). Confidence is the largest softmax."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=-1, keepdims=True)
    confidence = probabilities.max(axis=-1).reshape(-1)
    right = (probabilities.argmax(axis=-1) == target).reshape(-1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    used = [number for number in range(BINS) if (bins == number).any()]
    means = [float(confidence[bins == number].mean()) for number in used]
    shares = [float(right[bins == number].mean()) for number in used]
    weights = [float((bins == number).mean()) for number in used]
    error = sum(w * abs(r - c) for w, r, c in zip(weights, shares, means, strict=True))
    return Calibration(tuple(means), tuple(shares), tuple(weights), float(error))
