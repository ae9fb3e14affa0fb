"""Texts that were encoded before training: batches are of the same rows as where each process encodes its own."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from distill.compute.processes import Processes
from distill.data.batches import RowSource
from distill.data.columns import TEXT
from distill.data.shared_texts import share_texts
from distill.data.split import read_split
from distill.data.tokens import TextColumn, TextEncoder, Tokens
from shared.shards.manifest import choose_teacher, load_manifest
from tests.distill.distill_rows import WriteFolder, make_rows, without_label


@pytest.mark.parametrize("buffer_bytes", [1_000_000, 3000])  # all rows at once, and row groups in random order
def test_a_pass_over_them_is_that_over_texts(
    tiny_student: Path, write_folder: WriteFolder, tmp_path: Path, buffer_bytes: int
) -> None:
    rows = [row if i % 3 else without_label(row) for i, row in enumerate(make_rows(120))]
    shards = [rows[start : start + 20] for start in range(0, 120, 20)]
    folder = choose_teacher(write_folder({"train": shards}))
    split = read_split(folder, load_manifest(folder), "train")
    encoder = TextEncoder(AutoTokenizer.from_pretrained(tiny_student), 64)
    shared = share_texts(split, split.labelled, encoder, Processes(), tmp_path)
    sources = [
        RowSource(split, {TEXT: column}, wanted=split.labelled, buffer_bytes=buffer_bytes)
        for column in (shared, TextColumn(encoder))
    ]
    for ours, theirs in zip(*(source.blocks(np.random.default_rng(0)) for source in sources), strict=True):
        found, expected = ours.read().join(), theirs.read().join()
        assert np.array_equal(found.number, expected.number)
        values: tuple[Tokens, Tokens] = (found.values[TEXT], expected.values[TEXT])
        assert all(np.array_equal(*(getattr(each, name) for each in values)) for name in Tokens.__slots__)
