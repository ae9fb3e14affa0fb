"""The teacher's own label distributions as the student's soft targets, with no aligner between them."""

from collections.abc import Sequence

import numpy as np
import torch

from distill.config import DistillConfig
from distill.data.controls import permute_rows
from distill.data.split import Split, describe_number
from distill.data.vectors import Array, TeacherVectors, iterate_vectors
from shared.errors import DataError

_TOLERANCE = 1e-2  # of a sum of probabilities: endpoints round


def read_label_logprobs(config: DistillConfig, split: Split, parts: Sequence[TeacherVectors]) -> Array:
    """Natural log-probabilities, float32 (m, labels), of the m answered rows of a split, in the order of the shards.

    `parts` are one for each teacher, of log-probabilities and the residual's log, (labels + 1) wide. Several teachers'
    are mixed: the mean of their probabilities, the residuals' among them. Nothing is renormalised: where the teacher
    put mass on no label, the exponentials sum to less than 1. Below distill.data.vectors.LOG_FLOOR all are the same.
    A control's stand in for the teacher's own: another row's, a draw with the same moments (of the logs, the
    residual's among them, made a distribution), or the mean over rows.

    They are kept in memory, 4 bytes a label and a row. Raises DataError, naming the row, where one has none, another
    number of them, or more mass than 1, and where all rows have the same.
    """
    labels = parts[0].width - 1
    mixed = np.zeros((int(split.answered.sum()), labels + 1))
    for part in parts:
        own = np.exp(np.concatenate(list(iterate_vectors(split, part))).astype(np.float64))
        _check_mass(split, own[:, :labels].sum(axis=1))
        mixed += own / len(parts)
    logs = np.log(mixed)
    if len(logs) > 1 and np.ptp(logs[:, :labels], axis=0).max() < 1e-6:
        raise DataError(
            f"the teacher gave all {len(logs):,} rows of the split {split.name} the same label distribution: there is "
            "nothing to learn from it. Look at rows with: harvest show"
        )
    if config.control == "shuffled-teacher":
        logs = logs[permute_rows(len(logs), config.seed)]
    elif config.control == "random-vectors":
        rng = np.random.default_rng([config.seed, 3])
        drawn = rng.multivariate_normal(logs.mean(axis=0), np.cov(logs.T, bias=True), len(logs), method="eigh")
        logs = torch.from_numpy(drawn).log_softmax(1).numpy()
    elif config.control == "constant-target":
        logs = np.broadcast_to(np.log(mixed.mean(axis=0)), logs.shape)
    return np.ascontiguousarray(logs[:, :labels], np.float32)


def _check_mass(split: Split, mass: Array) -> None:
    wrong = ~(mass <= 1 + _TOLERANCE)  # NaN too
    if wrong.any():
        place = int(np.argmax(wrong))
        row = describe_number(split, int(np.flatnonzero(split.answered)[place]))
        raise DataError(
            f"{row} has label_logprobs whose probabilities sum to {mass[place]:.3f}. Look at it with: harvest show"
        )
