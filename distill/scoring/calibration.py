"""How far a student's confidence can be believed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """By bins of confidence that have rows: the mean confidence, the share that is right, and the share of all rows.

    `error` is the expected calibration error, sum over bins of share |right - confidence| (Guo et al. 2017), which
    a student has at 0 that says the same of every row. `nll` and `brier` are proper scores, which reward knowing more
    too: the mean of -log p(label) in nats, and of sum_k (p_k - [k is the label])^2 over all labels, from 0 to 2 (Brier
    1950).
    """

    confidence: tuple[float, ...]
    right: tuple[float, ...]
    share: tuple[float, ...]
    error: float
    nll: float
    brier: float


def measure_calibration(logits: Array, target: Array) -> Calibration:
    """Measure all seeds together: logits (seeds, rows, c), target (rows,). Confidence is the largest softmax.

    Where a row has several labels, target is (rows, c) of booleans, and each label of each row is measured as one of
    two classes: the logits (seeds, rows c, 2) of its not being there, 0, and of its being there.
    """
    if target.ndim == 2:
        one = logits.reshape(len(logits), -1)
        logits, target = np.stack([np.zeros_like(one), one], axis=-1), target.reshape(-1).astype(np.int64)
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    probabilities = np.exp(logprobs)
    confidence = probabilities.max(axis=-1).reshape(-1)
    right = (probabilities.argmax(axis=-1) == target).reshape(-1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    used = [number for number in range(BINS) if (bins == number).any()]
    means = [float(confidence[bins == number].mean()) for number in used]
    shares = [float(right[bins == number].mean()) for number in used]
    weights = [float((bins == number).mean()) for number in used]
    error = sum(w * abs(r - c) for w, r, c in zip(weights, shares, means, strict=True))
    truth = np.eye(logits.shape[-1])[target]
    nll = -logprobs[:, np.arange(len(target)), target].mean()
    brier = ((probabilities - truth) ** 2).sum(axis=-1).mean()
    return Calibration(tuple(means), tuple(shares), tuple(weights), float(error), float(nll), float(brier))
