"""Teachers that know nothing: what a gain must beat before it is the teacher's and not a regulariser's.

A control that changes the vectors is a lookup, from row numbers to vectors: everything after it is as in any run.
"""

from pathlib import Path

import numpy as np

from distill.config import Control
from distill.data.batches import Lookup
from distill.data.split import Split
from distill.data.vectors import Array, TeacherVectors, iterate_vectors, make_scratch, rank_answered
from shared.shards.read import read_row_group

MAX_COVARIANCE_WIDTH = 2048  # beyond it the matrix and its factors cost more than the run; variances are matched then


def make_lookup(control: Control, split: Split, vectors: TeacherVectors, seed: int, folder: Path) -> Lookup | None:
    """The vectors that a control puts in place of the teacher's own; None where the control keeps those."""
    if control == "shuffled-teacher":
        return shuffle_vectors(split, vectors, seed, folder)
    if control == "random-vectors":
        return draw_vectors(split, vectors, seed)
    if control == "constant-target":
        return repeat_vector(split, vectors, seed)
    return None


def shuffle_vectors(split: Split, vectors: TeacherVectors, seed: int, folder: Path) -> Lookup:
    """Give every answered row the vector of another one, by a permutation over the whole split that `seed` chooses.

    Everything but the pairing stays: the same vectors, the same mean and deviation. The vectors are copied to a
    nameless file in `folder` and read from there, so memory does not grow with their number.
    """
    count = int(split.answered.sum())
    place = rank_answered(split)
    permutation = permute_rows(count, seed)
    copy = None
    done = 0
    for block in iterate_vectors(split, vectors):
        if copy is None:
            copy = make_scratch(folder, block.dtype, (count, vectors.width))
        copy[done : done + len(block)] = block
        done += len(block)
    assert copy is not None, "find_vectors refuses a split without answers"
    kept: Array = copy

    def lookup(numbers: Array) -> Array:
        return np.asarray(kept[permutation[place[numbers]]])

    return lookup


def permute_rows(count: int, seed: int) -> Array:
    """Which row's answer each of `count` rows gets when a teacher is shuffled."""
    return np.random.default_rng([seed, 1]).permutation(count)


def draw_vectors(split: Split, vectors: TeacherVectors, seed: int) -> Lookup:
    """Give every row a draw of its own from the normal distribution with the vectors' mean and covariance.

    x_i = m + L z_i with z_i ~ N(0, I) and L L^T = C, the covariance over the answered rows; for vectors wider than
    MAX_COVARIANCE_WIDTH, C is its diagonal only. A row's draw depends on `seed` and its number alone.
    """
    mean, factor = measure_moments(split, vectors)

    def lookup(numbers: Array) -> Array:
        normal = np.stack([_generator(seed, int(number)).standard_normal(vectors.width) for number in numbers])
        drawn: Array = mean + (normal * factor if factor.ndim == 1 else normal @ factor.T)
        return drawn.astype(np.float32)

    return lookup


def measure_moments(split: Split, vectors: TeacherVectors) -> tuple[Array, Array]:
    """Mean (d,) over the answered rows, and a factor L (d, d) of their covariance; its diagonal (d,) where d is large.

    Two passes, a row group at a time. Eigenvalues and not Cholesky's factor, since fewer rows than dimensions, or a
    constant dimension, make a covariance that is singular.
    """
    count = int(split.answered.sum())
    mean = sum(block.astype(np.float64).sum(axis=0) for block in iterate_vectors(split, vectors)) / count
    wide = vectors.width > MAX_COVARIANCE_WIDTH
    second = np.zeros(vectors.width if wide else (vectors.width, vectors.width))
    for block in iterate_vectors(split, vectors):
        centred = block.astype(np.float64) - mean
        second += (centred**2).sum(axis=0) if wide else centred.T @ centred
    if wide:
        return mean, np.sqrt(second / count)
    values, directions = np.linalg.eigh(second / count)
    return mean, directions * np.sqrt(np.maximum(values, 0))


def repeat_vector(split: Split, vectors: TeacherVectors, seed: int) -> Lookup:
    """Give every row the vector of one and the same answered row, that `seed` chooses.

    The aligner then gives one target for all, and can learn no more than how frequent the labels are. The mean vector
    would do for that too, but it standardises to 0, and so would be no direction at all for L_m.
    """
    chosen = np.random.default_rng([seed, 2]).choice(np.flatnonzero(split.answered))
    for group, start in zip(split.groups, split.starts(), strict=True):
        if start <= chosen < start + group.rows:
            row = np.array([chosen - start])
            (vector,) = vectors.decode(read_row_group(group, vectors.columns), row, group, start)

    def lookup(numbers: Array) -> Array:
        return np.tile(vector, (len(numbers), 1))

    return lookup


def _generator(seed: int, number: int) -> np.random.Generator:
    """A generator of a row's own: a counter-based one, because thousands of them are made for a buffer."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))
