"""The teacher's own label distributions as the student's soft targets, with no aligner between them."""

import numpy as np
import torch

from distill.config import DistillConfig
from distill.controls import draw_vectors, permute_rows
from distill.features import Array, Vectors, iterate_vectors
from distill.split import Split, describe_number
from shared.errors import DataError

_TOLERANCE = 1e-2  # of a sum of probabilities: endpoints round


def read_label_logprobs(config: DistillConfig, split: Split, labels: int) -> Array:
    """Natural log-probabilities, float32 (m, labels), of the m answered rows of a split, in the order of the shards.

    They are not renormalised: where the teacher put mass on no label, their exponentials sum to less than 1. Below
    distill.features.LOG_FLOOR all are the same. A control's stand in for the teacher's own: another row's, a draw with
    the same moments (of the logs, the residual's among them, made a distribution), or the mean over rows.

    They are kept in memory, 4 bytes a label and a row. Raises DataError, naming the row, where one has none, another
    number of them, or more mass than 1, and where all rows have the same.
    """
    vectors = Vectors("label_logprobs", labels + 1)
    logs = np.concatenate(list(iterate_vectors(split, vectors)))
    mass = np.exp(logs[:, :labels].astype(np.float64)).sum(axis=1)
    wrong = ~(mass <= 1 + _TOLERANCE)  # NaN too
    if wrong.any():
        place = int(np.argmax(wrong))
        row = describe_number(split, int(np.flatnonzero(split.answered)[place]))
        raise DataError(
            f"{row} has label_logprobs whose probabilities sum to {mass[place]:.3f}. Look at it with: harvest show"
        )
    if len(logs) > 1 and np.ptp(logs[:, :labels], axis=0).max() < 1e-6:
        raise DataError(
            f"the teacher gave all {len(logs):,} rows of the split {split.name} the same label distribution: there is "
            "nothing to learn from it. Look at rows with: harvest show"
        )
    if config.control == "shuffled-teacher":
        logs = logs[permute_rows(len(logs), config.seed)]
    elif config.control == "random-vectors":
        drawn = draw_vectors(split, vectors, config.seed)(np.flatnonzero(split.answered))
        logs = torch.from_numpy(drawn).log_softmax(1).numpy()
    elif config.control == "constant-target":
        logs = np.broadcast_to(np.log(np.exp(logs.astype(np.float64)).mean(axis=0)), logs.shape)
    return np.ascontiguousarray(logs[:, :labels], np.float32)
