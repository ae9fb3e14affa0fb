"""The shuffled teacher."""

from pathlib import Path
from typing import Any

import numpy as np
from distill_rows import WIDTH, WriteFolder, make_rows, with_answer

from distill.controls import shuffle_vectors
from distill.features import Vectors
from distill.split import read_split
from shared.row import Status
from shared.shards.manifest import choose_teacher, load_manifest

VECTORS = Vectors("embedding", WIDTH)


def test_every_vector_stays_and_hardly_any_keeps_its_row(write_folder: WriteFolder, tmp_path: Path) -> None:
    rows = make_rows(300)
    rows[7] = with_answer(rows[7], status=Status.FAILED, embedding=None)
    folder = choose_teacher(write_folder({"train": [rows[:100], rows[100:130], rows[130:]]}))
    split = read_split(folder, load_manifest(folder), "train")
    answered = np.flatnonzero(split.answered)
    own = np.stack([np.asarray(rows[n].answer.embedding, np.float16) for n in answered])

    def shuffle(seed: int) -> Any:
        return shuffle_vectors(split, VECTORS, seed, tmp_path)(answered)

    got = shuffle(0)
    order = np.lexsort(own.T), np.lexsort(got.T)
    np.testing.assert_array_equal(own[order[0]], got[order[1]])
    assert (own == got).all(axis=1).mean() < 0.05
    np.testing.assert_array_equal(shuffle(0), got)
    assert (shuffle(1) != got).any()


def test_a_row_gets_the_same_vector_whenever_it_is_asked_for(write_folder: WriteFolder, tmp_path: Path) -> None:
    folder = choose_teacher(write_folder({"train": [make_rows(50)]}))
    split = read_split(folder, load_manifest(folder), "train")
    lookup = shuffle_vectors(split, VECTORS, 0, tmp_path)
    everything = lookup(np.arange(50))
    np.testing.assert_array_equal(lookup(np.array([9, 4])), everything[[9, 4]])
