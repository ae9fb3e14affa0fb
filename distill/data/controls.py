"""Teachers that know nothing: what a gain must beat before it is the teacher's and not a regulariser's.

Each puts other answers in the place of a teacher's own: everything after it is as in any run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from distill.data.columns import Array, read_pieces
from distill.data.split import Split
from distill.data.vectors import (
    ArrayVectors,
    KeptVectors,
    VectorColumn,
    choose_sample,
    iterate_vectors,
    make_scratch,
    rank_answered,
)
from distill.phi import Phi
from shared.shards.read import RowGroup

_NEAREST = 1e-7  # to 0 and 1 that a probability is taken to be
BLOCK_NUMBERS = 1 << 20  # of label distributions that are in memory at once
MAX_COVARIANCE_WIDTH = 2048  # beyond it the matrix and its factors cost more than the run; variances are matched then


class TeacherSwap(Protocol):
    """Puts something that knows nothing of a row in the place of the teacher's answer to it."""

    def swap_vectors(self, split: Split, vectors: VectorColumn, seed: int, folder: Path) -> VectorColumn:
        """Give the column of vectors in place of `vectors`; what it keeps lies in nameless files in `folder`."""

    def swap_distributions(self, distributions: Array, seed: int, phi: Phi) -> Iterator[Array]:
        """Give logs (m, k) in place of the logs of `distributions` (m, k), one of each answered row, block by block.

        With `phi` "sigmoid" they are k probabilities of which each stands alone.
        """


@dataclass(frozen=True, slots=True)
class ShuffledTeacher:
    """Gives every answered row the answer to another one, by a permutation of the whole split that the seed chooses.

    Everything but the pairing stays: the same vectors, the same mean and deviation.
    """

    def swap_vectors(self, split: Split, vectors: VectorColumn, seed: int, folder: Path) -> KeptVectors:
        """Copy the vectors to a nameless file, so that memory does not grow with their number, and pair them anew."""
        count = int(split.answered.sum())
        copy = None
        done = 0
        for block in iterate_vectors(split, vectors):
            if copy is None:
                copy = make_scratch(folder, block.dtype, (count, vectors.width))
            copy[done : done + len(block)] = block
            done += len(block)
        assert copy is not None, "find_vectors refuses a split without answers"
        place = permute_rows(count, seed)[rank_answered(split)]
        return KeptVectors(vectors.widths, copy, place)

    def swap_distributions(self, distributions: Array, seed: int, phi: Phi) -> Iterator[Array]:
        """Pair the distributions anew, as the vectors are."""
        order = permute_rows(len(distributions), seed)
        for rows in cut_blocks(*distributions.shape):
            yield np.log(distributions[order[rows]])


def cut_blocks(count: int, width: int) -> list[slice]:
    """Cut so many rows of so many numbers into blocks that are small in memory."""
    rows = max(1, BLOCK_NUMBERS // width)
    return [slice(first, first + rows) for first in range(0, count, rows)]


def permute_rows(count: int, seed: int) -> Array:
    """Choose which row's answer each of `count` rows gets when a teacher is shuffled."""
    return np.random.default_rng([seed, 1]).permutation(count)


@dataclass(frozen=True, slots=True)
class DrawnTeacher:
    """Gives every row a draw of its own from the normal distribution with the answers' mean and covariance."""

    def swap_vectors(self, split: Split, vectors: VectorColumn, seed: int, folder: Path) -> "DrawnVectors":
        """Give x_i = m + L z_i with z_i ~ N(0, I) and L L^T = C, the covariance over the answered rows.

        For vectors wider than MAX_COVARIANCE_WIDTH, C is its diagonal only.
        """
        return DrawnVectors(vectors.widths, *measure_moments(split, vectors), seed)

    def swap_distributions(self, distributions: Array, seed: int, phi: Phi) -> Iterator[Array]:
        """Draw logs, or logits, with their mean and covariance, and make them distributions."""
        count, width = distributions.shape
        blocks = cut_blocks(count, width)
        unbound = take_logits if phi == "sigmoid" else np.log
        mean = sum(unbound(distributions[rows]).sum(axis=0) for rows in blocks) / count
        second = np.zeros((width, width))
        for rows in blocks:
            centred = unbound(distributions[rows]) - mean
            second += centred.T @ centred
        rng = np.random.default_rng([seed, 3])
        for rows in blocks:
            drawn = rng.multivariate_normal(mean, second / count, len(distributions[rows]), method="eigh")
            made = torch.from_numpy(drawn)
            yield (functional.logsigmoid(made) if phi == "sigmoid" else made.log_softmax(1)).numpy()


def take_logits(probabilities: Array) -> Array:
    """Give log(p / (1 - p)), each at most that of a probability as near to 0 or 1 as a float32 endpoint can tell."""
    inside = probabilities.clip(_NEAREST, 1 - _NEAREST)
    return np.asarray(np.log(inside) - np.log1p(-inside))


@dataclass(frozen=True, slots=True)
class DrawnVectors(ArrayVectors):
    """A draw for each row, which depends on `seed` and the row's number alone; see DrawnTeacher."""

    widths: tuple[int, ...]
    mean: Array
    factor: Array
    seed: int

    @property
    def width(self) -> int:
        """Numbers in h_t."""
        return sum(self.widths)

    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Array:
        """Draw the vectors of some rows: see BatchColumn."""
        normal = np.stack([_generator(self.seed, int(row)).standard_normal(self.width) for row in rows + start])
        drawn: Array = self.mean + (normal * self.factor if self.factor.ndim == 1 else normal @ self.factor.T)
        return drawn.astype(np.float32)

    def count_bytes(self, stored: int, rows: int) -> int:
        """Count the bytes of some vectors."""
        return 4 * rows * self.width


def measure_moments(split: Split, vectors: VectorColumn) -> tuple[Array, Array]:
    """Measure the mean (d,) over the answered rows, and a factor L (d, d) of their covariance, (d,) where d is large.

    Of a large split they are those of a sample: see choose_sample. Two passes, a row group at a time. Eigenvalues and
    not Cholesky's factor, since fewer rows than dimensions, or a constant dimension, make a singular covariance.
    """
    sample = choose_sample(split, vectors)
    mean = sum(block.astype(np.float64).sum(axis=0) for block in sample.iterate(vectors)) / sample.rows
    wide = vectors.width > MAX_COVARIANCE_WIDTH
    second = np.zeros(vectors.width if wide else (vectors.width, vectors.width))
    for block in sample.iterate(vectors):
        centred = block.astype(np.float64) - mean
        second += (centred**2).sum(axis=0) if wide else centred.T @ centred
    if wide:
        return mean, np.sqrt(second / sample.rows)
    values, directions = np.linalg.eigh(second / sample.rows)
    return mean, directions * np.sqrt(np.maximum(values, 0))


@dataclass(frozen=True, slots=True)
class ConstantTeacher:
    """Gives every row the answer to one and the same row, that the seed chooses.

    The aligner then gives one target for all, and can learn no more than how frequent the labels are. The mean vector
    would do for that too, but it standardises to 0, and so would be no direction at all for L_m.
    """

    def swap_vectors(self, split: Split, vectors: VectorColumn, seed: int, folder: Path) -> KeptVectors:
        """Give every row one answered row's vector."""
        chosen = np.random.default_rng([seed, 2]).choice(np.flatnonzero(split.answered))
        mask = np.zeros(len(split), np.bool_)
        mask[chosen] = True
        ((piece, table),) = read_pieces(split, mask, vectors)
        vector = vectors.decode(table, piece.rows, piece.group, piece.start)
        return KeptVectors(vectors.widths, vector, np.zeros(len(split), np.int64))

    def swap_distributions(self, distributions: Array, seed: int, phi: Phi) -> Iterator[Array]:
        """Give every row the mean distribution: it has a direction, where a mean vector has none."""
        logs = np.log(distributions.mean(axis=0))
        for rows in cut_blocks(*distributions.shape):
            yield np.broadcast_to(logs, distributions[rows].shape)


def _generator(seed: int, number: int) -> np.random.Generator:
    """Make a generator of a row's own: a counter-based one, because thousands of them are made for a buffer."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))
