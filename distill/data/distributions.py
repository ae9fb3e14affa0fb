"""The teacher's own label distributions as the student's soft targets, with no aligner between them."""

from collections.abc import Sequence

import numpy as np

from distill.data.columns import Array
from distill.data.controls import TeacherSwap
from distill.data.split import Split, describe_number
from distill.data.vectors import VectorColumn, iterate_vectors
from shared.errors import DataError

_TOLERANCE = 1e-2  # of a sum of probabilities: endpoints round


def read_label_logprobs(
    split: Split, parts: Sequence[VectorColumn], swap: TeacherSwap | None = None, seed: int = 0
) -> Array:
    """Read the natural log-probabilities, float32 (m, labels), of the m answered rows of a split, in their order.

    `parts` are one for each teacher, of log-probabilities and the residual's log, (labels + 1) wide. Several teachers'
    are mixed: the mean of their probabilities, the residuals' among them. Nothing is renormalised: where the teacher
    put mass on no label, the exponentials sum to less than 1. Below distill.data.vectors.LOG_FLOOR all are the same.
    `swap` puts others in the place of the teacher's own, as `seed` chooses.

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
    if swap is not None:
        logs = swap.swap_distributions(mixed, seed)
    return np.ascontiguousarray(logs[:, :labels], np.float32)


def _check_mass(split: Split, mass: Array) -> None:
    wrong = ~(mass <= 1 + _TOLERANCE)  # NaN too
    if wrong.any():
        place = int(np.argmax(wrong))
        row = describe_number(split, int(np.flatnonzero(split.answered)[place]))
        raise DataError(
            f"{row} has label_logprobs whose probabilities sum to {mass[place]:.3f}. Look at it with: harvest show"
        )
