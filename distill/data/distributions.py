"""The teacher's own label distributions as the student's soft targets, with no aligner between them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from distill.data.columns import Array, Piece, read_pieces
from distill.data.controls import TeacherSwap, cut_blocks, take_logits
from distill.data.split import Split, describe_row
from distill.data.vectors import VectorColumn, make_scratch
from distill.phi import Phi
from shared.errors import DataError

_TOLERANCE = 1e-2  # of a sum of probabilities: endpoints round
_SAME = 1e-6  # logs that differ by less are the same


def read_label_logprobs(
    split: Split,
    parts: Sequence[VectorColumn],
    work: Path,
    swap: TeacherSwap | None = None,
    seed: int = 0,
    *,
    phi: Phi = "softmax",
) -> Array:
    """Read the natural log-probabilities, float32 (m, labels), of the m answered rows of a split, in their order.

    `parts` are one for each teacher, of log-probabilities and the residual's log, (labels + 1) wide. Several teachers'
    are mixed: the mean of their probabilities, the residuals' among them. Nothing is renormalised: where the teacher
    put mass on no label, the exponentials sum to less than 1. With `phi` "sigmoid", where each is its label's own
    whatever the others are, their logits are given. Below distill.data.vectors.LOG_FLOOR all are the same.
    `swap` puts others in the place of the teacher's own, as `seed` chooses.

    They lie in a nameless file in the folder `work`, 4 bytes a label and a row, and are read a row group at a time;
    `swap` needs another one for as long, 8 bytes each. Raises DataError, naming the row, where one has none, another
    number of them, or more mass than 1, and where all rows have the same.
    """
    count, labels = int(split.answered.sum()), parts[0].width - 1
    mixed = _read_mixed(split, parts, phi)
    logs: Iterator[Array]
    if swap is None:
        logs = map(np.log, mixed)
    else:
        kept = make_scratch(work, np.float64, (count, labels + 1))
        _fill(kept, mixed)
        logs = swap.swap_distributions(kept, seed, phi)
    logprobs = make_scratch(work, np.float32, (count, labels))
    own = (block[:, :labels] for block in logs)
    _fill(logprobs, (take_logits(np.exp(block)) for block in own) if phi == "sigmoid" else own)
    return logprobs


def _fill(array: Array, blocks: Iterable[Array]) -> None:
    """Write blocks of rows one after the other."""
    done = 0
    for block in blocks:
        array[done : done + len(block)] = block
        done += len(block)


def _read_mixed(split: Split, parts: Sequence[VectorColumn], phi: Phi) -> Iterator[Array]:
    """Give the mean of the teachers' probabilities, float64 (n, labels + 1), a row group or a piece at a time."""
    labels = parts[0].width - 1
    low, high = np.full(labels, np.inf), np.full(labels, -np.inf)
    for piece, table in read_pieces(split, split.answered, *parts):
        mixed = np.zeros((len(piece.rows), labels + 1))
        for part in parts:
            own = np.exp(part.decode(table, piece.rows, piece.group, piece.start).astype(np.float64))
            _check_mass(piece, own[:, :labels].max(axis=1) if phi == "sigmoid" else own[:, :labels].sum(axis=1))
            mixed += own / len(parts)
        logs = np.log(mixed[:, :labels])
        low, high = np.minimum(low, logs.min(axis=0)), np.maximum(high, logs.max(axis=0))
        yield mixed
    count = int(split.answered.sum())
    if count > 1 and (high - low).max() < _SAME:
        raise DataError(
            f"the teacher gave all {count:,} rows of the split {split.name} the same label distribution: there is "
            "nothing to learn from it. Look at rows with: harvest show"
        )


def _check_mass(piece: Piece, mass: Array) -> None:
    wrong = mass > 1 + _TOLERANCE
    if wrong.any():
        place = int(np.argmax(wrong))
        raise DataError(
            f"{describe_row(piece.group, int(piece.rows[place]))} has label_logprobs whose probabilities sum to "
            f"{mass[place]:.3f}. Look at it with: harvest show"
        )


def measure_mass(logprobs: Array) -> float:
    """Measure how much probability lies on the labels, (m, labels), in the mean over rows."""
    blocks = cut_blocks(*logprobs.shape)
    return float(sum(np.exp(logprobs[rows]).sum(dtype=np.float64) for rows in blocks) / len(logprobs))
