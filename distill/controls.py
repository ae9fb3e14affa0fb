"""Teachers that know nothing: what a gain must beat before it is the teacher's and not a regulariser's."""

from pathlib import Path
from uuid import uuid4

import numpy as np

from distill.features import Array, Vectors, decode_vectors
from distill.split import Split
from distill.stream import Lookup
from shared.shards.read import read_row_group


def shuffle_vectors(split: Split, vectors: Vectors, seed: int, folder: Path) -> Lookup:
    """Give every answered row the vector of another one, by a permutation over the whole split that `seed` chooses.

    Everything but the pairing stays: the same vectors, the same mean and deviation. The vectors are copied to a
    nameless file in `folder` and read from there, so memory does not grow with their number.
    """
    count = int(split.answered.sum())
    place = np.cumsum(split.answered) - 1  # of a row among the answered ones
    permutation = np.random.default_rng([seed, 1]).permutation(count)
    copy = None
    done = 0
    for group, start in zip(split.groups, split.starts(), strict=True):
        rows = np.flatnonzero(split.answered[start : start + group.rows])
        if not len(rows):
            continue
        block = decode_vectors(read_row_group(group, vectors.columns), rows, vectors, group)
        if copy is None:
            path = folder / f"shuffled-{uuid4().hex}.npy"  # one a process
            copy = np.lib.format.open_memmap(path, "w+", dtype=block.dtype, shape=(count, vectors.width))
            path.unlink()  # the mapping keeps its bytes, and no ending of the run can leave them behind
        copy[done : done + len(rows)] = block
        done += len(rows)
    assert copy is not None, "find_vectors refuses a split without answers"
    kept: Array = copy

    def lookup(numbers: Array) -> Array:
        return np.asarray(kept[permutation[place[numbers]]])

    return lookup
