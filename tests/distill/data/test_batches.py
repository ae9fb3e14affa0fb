"""Shards to batches: every row once, in an order that (seed, epoch) alone decides."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from distill.data.batches import BatchPart, Cursor, RowSource, count_batches, iterate_batches
from distill.data.columns import LABELLED, TARGET, TEXT, VECTORS, ArrayColumn, BatchColumn, label_columns
from distill.data.split import Split, read_split
from distill.data.tokens import TextColumn, TextEncoder
from distill.data.vectors import StoredVectors
from shared.schema import Row
from shared.shards.manifest import choose_teacher, load_manifest
from shared.shards.read import RowGroup, read_row_group
from tests.distill.distill_rows import WIDTH, WriteFolder, make_rows

ROWS = make_rows(1000)
STORED = StoredVectors("embedding", WIDTH)


@pytest.fixture
def split(write_folder: WriteFolder) -> Split:
    edges = [0, 300, 310, 650, 900, 1000]
    folder = choose_teacher(write_folder({"train": [ROWS[a:b] for a, b in pairwise(edges)]}))
    return read_split(folder, load_manifest(folder), "train")


@pytest.fixture
def encoder(tiny_student: Path) -> TextEncoder:
    return TextEncoder(AutoTokenizer.from_pretrained(tiny_student), 64)


def choose(
    split: Split,
    wanted: Any,
    visible: Any,
    buffer_rows: int = 10_000,
    encoder: TextEncoder | None = None,
    vectors: BatchColumn = STORED,
) -> RowSource:
    """Some rows with vectors and labels, and with their texts where there is an encoder."""
    texts: dict[str, BatchColumn] = {} if encoder is None else {TEXT: TextColumn(encoder)}
    columns = {**texts, VECTORS: vectors, **label_columns(split, visible=visible)}
    return RowSource(split, columns, wanted=wanted, buffer_rows=buffer_rows)


def every(split: Split, buffer_rows: int = 10_000, **options: Any) -> RowSource:
    return choose(split, split.answered, split.labelled, buffer_rows, **options)


def vector_of(row: Row) -> Any:
    return np.asarray(row.answer.embedding, np.float16).astype(np.float32)


@pytest.mark.parametrize("buffer_rows", [10_000, 350, 1])
def test_a_pass_gives_every_row_once_with_its_own_columns(split: Split, encoder: TextEncoder, buffer_rows: int) -> None:
    source = every(split, buffer_rows, encoder=encoder)
    batches = list(iterate_batches([BatchPart(source, 32, once=True)], count_batches(source, 32), 0, 1))
    assert sorted(len(batch) for batch in batches) == [8] + [32] * 31
    assert sorted(np.concatenate([batch.number for batch in batches]).tolist()) == list(range(1000))
    for batch in batches:
        assert batch.tensor(VECTORS).dtype == torch.float32
        for place, number in enumerate(batch.number):
            row = ROWS[number]
            np.testing.assert_array_equal(batch.tensor(VECTORS)[place].numpy(), vector_of(row))
            assert int(batch.tensor(TARGET)[place]) == row.example.label
            assert int(batch.inputs()["attention_mask"][place].sum()) == len(row.example.text.split()) + 2


def numbers(source: RowSource, seed: int, epoch: int) -> list[list[int]]:
    steps = count_batches(source, 32)
    return [b.number.tolist() for b in iterate_batches([BatchPart(source, 32, once=True)], steps, seed, epoch)]


@pytest.mark.parametrize("buffer_rows", [10_000, 350])
def test_the_order_depends_on_seed_and_epoch_alone(split: Split, buffer_rows: int) -> None:
    source = every(split, buffer_rows)
    first = numbers(source, 3, 1)
    assert numbers(source, 3, 2) != first
    assert numbers(source, 4, 1) != first
    assert numbers(source, 3, 1) == first
    assert numbers(every(split, buffer_rows), 3, 1) == first


def test_a_small_buffer_still_mixes_shards_and_rows(split: Split) -> None:
    order = [n for batch in numbers(every(split, 350), 0, 1) for n in batch]
    assert order[:32] != sorted(order[:32])
    assert len({n // 100 for n in order[:350]}) >= 3


def test_memory_holds_no_more_than_the_buffer_and_a_row_group(split: Split) -> None:
    sizes = [block.rows for block in every(split, 350).blocks(np.random.default_rng(0))]
    assert sum(sizes) == 1000
    assert max(sizes) < 350 + 340


def test_blocks_without_a_generator_keep_the_order_of_the_shards(split: Split) -> None:
    for buffer_rows in (10_000, 350):
        got = np.concatenate([block.read().number for block in every(split, buffer_rows).blocks()])
        assert got.tolist() == list(range(1000))


def test_texts_of_like_length_share_a_batch(split: Split, encoder: TextEncoder) -> None:
    source = every(split, encoder=encoder)
    padded = used = 0
    lengths = []
    for batch in iterate_batches([BatchPart(source, 32, once=True)], 32, 0, 1):
        padded += batch.inputs()["input_ids"].numel()
        used += int(batch.inputs()["attention_mask"].sum())
        lengths.append(batch.inputs()["input_ids"].shape[1])
    assert used / padded > 0.93
    assert lengths != sorted(lengths)


def test_rows_outside_the_mask_never_come_and_hidden_labels_stay_hidden(split: Split) -> None:
    wanted = np.arange(1000) % 3 == 0
    visible = np.arange(1000) % 2 == 0
    source = choose(split, wanted, visible, 100)
    assert source.rows == 334
    seen = []
    for batch in iterate_batches([BatchPart(source, 10, once=True)], count_batches(source, 10), 0, 1):
        seen += batch.number.tolist()
        assert batch.tensor(LABELLED).tolist() == (batch.number % 2 == 0).tolist()
    assert sorted(seen) == list(range(0, 1000, 3))


def test_the_aligners_source_reads_no_text(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def spy(group: Any, columns: Any) -> Any:
        asked.append(tuple(columns))
        return read_row_group(group, columns)

    monkeypatch.setattr("distill.data.batches.read_row_group", spy)
    source = every(split)
    assert sum(len(b) for b in iterate_batches([BatchPart(source, 32, once=True)], 32, 0, 1)) == 1000
    assert set(asked) == {("embedding",)}
    assert len(asked) == 5
    numbers(source, 0, 2)
    assert len(asked) == 5, "a source that fits the buffer is read once"


@pytest.mark.parametrize("buffer_rows", [10_000, 90])
def test_a_composed_batch_has_its_share_of_labelled_rows(split: Split, encoder: TextEncoder, buffer_rows: int) -> None:
    visible = np.arange(1000) % 10 == 0
    parts = [
        BatchPart(choose(split, mask, visible, buffer_rows, encoder), rows)
        for mask, rows in ((visible, 8), (~visible, 24))
    ]
    seen: Counter[int] = Counter()
    for batch in iterate_batches(parts, 40, 0, 1):
        assert batch.tensor(LABELLED).tolist() == [True] * 8 + [False] * 24
        assert len(batch.inputs()["input_ids"]) == 32
        seen.update(batch.number.tolist())
    labelled = [seen[n] for n in range(0, 1000, 10)]
    assert sum(labelled) == 320
    assert {min(labelled), max(labelled)} == {3, 4}, "each labelled row comes as often as any other"
    assert {seen[n] for n in range(1000) if n % 10} == {1, 2}


def test_a_cursor_cycles_in_a_new_order(split: Split) -> None:
    cursor = Cursor(every(split, 350), [1, 2])
    first, second = cursor.take(1000), cursor.take(1000)
    assert sorted(first.number.tolist()) == sorted(second.number.tolist()) == list(range(1000))
    assert first.number.tolist() != second.number.tolist()


def test_cut_texts_are_counted_once(split: Split, tiny_student: Path) -> None:
    encoder = TextEncoder(AutoTokenizer.from_pretrained(tiny_student), 6)
    expected = sum(len(row.example.text.split()) > 4 for row in ROWS)
    for buffer_rows in (10_000, 350):
        source = every(split, buffer_rows, encoder=encoder)
        for _ in range(2):
            for block in source.blocks(np.random.default_rng(0)):
                block.read()
        texts = source.columns[TEXT]
        assert isinstance(texts, TextColumn)
        assert texts.truncated == expected > 0


class Initials(ArrayColumn):
    """A column of this test's own: the code of the first letter of each text."""

    @property
    def shard_columns(self) -> tuple[str, ...]:
        return ("text",)

    def decode(self, table: pa.Table, rows: Any, group: RowGroup, start: int) -> Any:
        return np.array([ord(text[0]) for text in table["text"].take(pa.array(rows)).to_pylist()])


@pytest.mark.parametrize("buffer_rows", [10_000, 90])
def test_a_column_of_ones_own_passes_through_batches(split: Split, encoder: TextEncoder, buffer_rows: int) -> None:
    columns: dict[str, BatchColumn] = {TEXT: TextColumn(encoder), "initial": Initials()}
    source = RowSource(split, columns, wanted=split.answered, buffer_rows=buffer_rows)
    seen = 0
    for batch in iterate_batches([BatchPart(source, 32, once=True)], 32, 0, 1):
        assert set(batch.columns) == {TEXT, "initial"}
        initials = batch.to(torch.device("cpu")).tensor("initial")
        assert initials.tolist() == [ord(ROWS[number].example.text[0]) for number in batch.number]
        seen += len(batch)
    assert seen == 1000


def test_each_process_collates_its_share_of_the_texts_and_all_labels(split: Split, encoder: TextEncoder) -> None:
    source = every(split, encoder=encoder)
    parts = [BatchPart(source, 32, once=True)]
    shared = iterate_batches(parts, 32, 0, 1, share=lambda rows: np.arange(1, rows, 2))
    for whole, half in zip(iterate_batches(parts, 32, 0, 1), shared, strict=True):
        ids = half.inputs()["input_ids"]
        assert torch.equal(ids, whole.inputs()["input_ids"][1::2, : ids.shape[1]])
        assert torch.equal(half.tensor(TARGET), whole.tensor(TARGET))
        assert torch.equal(half.tensor(VECTORS), whole.tensor(VECTORS))
