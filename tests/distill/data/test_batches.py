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

from distill.data.batches import BatchPart, Cursor, HeldRows, RowSource, count_batches, count_fitting, iterate_batches
from distill.data.columns import LABELLED, TARGET, TEXT, VECTORS, ArrayColumn, BatchColumn, label_columns
from distill.data.split import Split, read_split
from distill.data.tokens import TextColumn, TextEncoder
from distill.data.vectors import StoredVectors
from shared.schema import Row
from shared.shards.manifest import choose_teacher, load_manifest
from shared.shards.read import GroupReader, RowGroup
from tests.distill.distill_rows import WIDTH, WriteFolder, make_rows

ROWS = make_rows(1000)
STORED = StoredVectors("embedding", WIDTH)
LARGE, SMALL = 1_000_000, 40_000  # of buffers: all rows fit into half of one, and about 500 rows without texts


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
    buffer_bytes: int = LARGE,
    encoder: TextEncoder | None = None,
    vectors: BatchColumn = STORED,
) -> RowSource:
    """Some rows with vectors and labels, and with their texts where there is an encoder."""
    texts: dict[str, BatchColumn] = {} if encoder is None else {TEXT: TextColumn(encoder)}
    columns = {**texts, VECTORS: vectors, **label_columns(split, visible=visible)}
    return RowSource(split, columns, wanted=wanted, buffer_bytes=buffer_bytes)


def every(split: Split, buffer_bytes: int = LARGE, **options: Any) -> RowSource:
    return choose(split, split.answered, split.labelled, buffer_bytes, **options)


def vector_of(row: Row) -> Any:
    return np.asarray(row.answer.embedding, np.float16).astype(np.float32)


@pytest.mark.parametrize("buffer_bytes", [LARGE, SMALL, 1])
def test_a_pass_gives_every_row_once_with_its_own_columns(
    split: Split, encoder: TextEncoder, buffer_bytes: int
) -> None:
    source = every(split, buffer_bytes, encoder=encoder)
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


@pytest.mark.parametrize("buffer_bytes", [LARGE, SMALL])
def test_the_order_depends_on_seed_and_epoch_alone(split: Split, buffer_bytes: int) -> None:
    source = every(split, buffer_bytes)
    first = numbers(source, 3, 1)
    assert numbers(source, 3, 2) != first
    assert numbers(source, 4, 1) != first
    assert numbers(source, 3, 1) == first
    assert numbers(every(split, buffer_bytes), 3, 1) == first


def test_a_small_buffer_still_mixes_shards_and_rows(split: Split) -> None:
    order = [n for batch in numbers(every(split, SMALL), 0, 1) for n in batch]
    assert order[:32] != sorted(order[:32])
    assert len({n // 100 for n in order[:350]}) >= 3


def test_a_block_takes_no_more_than_half_of_the_buffer(split: Split, encoder: TextEncoder) -> None:
    source = every(split, SMALL, encoder=encoder)
    blocks = list(source.blocks(np.random.default_rng(0)))
    assert sum(block.rows for block in blocks) == 1000
    assert len(blocks) > 1
    for block in blocks:
        rows = block.read().join()
        tokens = rows.values[TEXT]
        arrays = [rows.number, rows.values[VECTORS], rows.values[TARGET], rows.values[LABELLED]]
        arrays += [tokens.ids, tokens.types, tokens.offsets]
        assert sum(array.nbytes for array in arrays) <= SMALL / 2


def test_rows_of_any_block_are_taken_as_from_one_array(split: Split) -> None:
    parts = [block.read().join() for block in every(split, SMALL).blocks()]
    order = np.random.default_rng(1).permutation(sum(map(len, parts)))
    held = HeldRows(parts, order)
    assert len(held) == 1000
    assert held.join().number.tolist() == order.tolist()
    for start, end in [(0, 3), (990, 1000), (17, 600)]:
        rows = held.take(start, end)
        assert rows.number.tolist() == order[start:end].tolist()
        np.testing.assert_array_equal(rows.values[VECTORS], [vector_of(ROWS[n]) for n in rows.number])


def test_a_large_row_group_is_read_in_pieces_that_change_no_row(split: Split, encoder: TextEncoder) -> None:
    source = every(split, 10_000, encoder=encoder)
    whole = next(block.read().join() for block in every(split, LARGE, encoder=encoder).blocks())
    for rng in (None, np.random.default_rng(0)):
        blocks = list(source.blocks(rng))
        assert max(block.rows for block in blocks) < 100
        for block in blocks[::-1]:  # whichever is read first, and whether or not those before it were
            rows = block.read().join()
            np.testing.assert_array_equal(rows.values[VECTORS], whole.values[VECTORS][rows.number])
            np.testing.assert_array_equal(rows.values[TEXT].ids, whole.values[TEXT].take(rows.number).ids)
    batches = iterate_batches([BatchPart(source, 32, once=True)], count_batches(source, 32), 0, 1)
    assert sorted(n for batch in batches for n in batch.number.tolist()) == list(range(1000))


def test_wide_rows_are_drawn_and_made_ahead_a_few_batches_at_a_time(split: Split) -> None:
    wide = every(split, 32 * 4 * every(split).row_bytes * 3)  # a quarter of it holds three batches
    narrow = every(split, LARGE)
    assert count_fitting([BatchPart(narrow, 32)], 16) == 16
    assert count_fitting([BatchPart(narrow, 32), BatchPart(wide, 32)], 16) == 3
    assert count_fitting([BatchPart(wide, 32)], 8, copies=2) == 1
    assert count_fitting([BatchPart(wide, 1000)], 8) == 1
    assert sorted(n for batch in numbers(wide, 0, 1) for n in batch) == list(range(1000))


def test_blocks_without_a_generator_keep_the_order_of_the_shards(split: Split) -> None:
    for buffer_bytes in (LARGE, SMALL):
        got = np.concatenate([block.read().join().number for block in every(split, buffer_bytes).blocks()])
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
    source = choose(split, wanted, visible, 10_000)
    assert source.rows == 334
    seen = []
    for batch in iterate_batches([BatchPart(source, 10, once=True)], count_batches(source, 10), 0, 1):
        seen += batch.number.tolist()
        assert batch.tensor(LABELLED).tolist() == (batch.number % 2 == 0).tolist()
    assert sorted(seen) == list(range(0, 1000, 3))


def test_the_aligners_source_reads_no_text(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, read = [], GroupReader.read

    def spy(reader: GroupReader, group: RowGroup, columns: Any) -> Any:
        asked.append(tuple(columns))
        return read(reader, group, columns)

    monkeypatch.setattr(GroupReader, "read", spy)
    source = every(split)
    assert sum(len(b) for b in iterate_batches([BatchPart(source, 32, once=True)], 32, 0, 1)) == 1000
    assert set(asked) == {("embedding",)}
    assert len(asked) == 5
    numbers(source, 0, 2)
    assert len(asked) == 5, "a source that fits the buffer is read once"


@pytest.mark.parametrize("buffer_bytes", [LARGE, 10_000])
def test_a_composed_batch_has_its_share_of_labelled_rows(split: Split, encoder: TextEncoder, buffer_bytes: int) -> None:
    visible = np.arange(1000) % 10 == 0
    parts = [
        BatchPart(choose(split, mask, visible, buffer_bytes, encoder), rows)
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
    cursor = Cursor(every(split, SMALL), [1, 2])
    first, second = cursor.take(1000), cursor.take(1000)
    assert sorted(first.number.tolist()) == sorted(second.number.tolist()) == list(range(1000))
    assert first.number.tolist() != second.number.tolist()


def test_cut_texts_are_counted_once(split: Split, tiny_student: Path) -> None:
    encoder = TextEncoder(AutoTokenizer.from_pretrained(tiny_student), 6)
    expected = sum(len(row.example.text.split()) > 4 for row in ROWS)
    for buffer_bytes in (LARGE, SMALL):
        source = every(split, buffer_bytes, encoder=encoder)
        for _ in range(2):
            for block in source.blocks(np.random.default_rng(0)):
                block.read().join()
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


@pytest.mark.parametrize("buffer_bytes", [LARGE, 10_000])
def test_a_column_of_ones_own_passes_through_batches(split: Split, encoder: TextEncoder, buffer_bytes: int) -> None:
    columns: dict[str, BatchColumn] = {TEXT: TextColumn(encoder), "initial": Initials()}
    source = RowSource(split, columns, wanted=split.answered, buffer_bytes=buffer_bytes)
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


class Counted(Initials):
    """Counts the rows that were decoded."""

    def __init__(self) -> None:
        self.rows = 0

    def decode(self, table: pa.Table, rows: Any, group: RowGroup, start: int) -> Any:
        self.rows += len(rows)
        return super().decode(table, rows, group, start)


def test_training_begins_before_rows_that_fit_are_all_read_and_reads_each_once(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.data.batches.PIECE_BYTES", 4_000)
    column = Counted()
    source = choose(split, split.answered, split.labelled, vectors=column)
    steps = count_batches(source, 4)
    first = iterate_batches([BatchPart(source, 4, once=True)], steps, 0, 1)
    begun = next(first).number.tolist()
    assert column.rows < 500
    rest = [batch.number.tolist() for batch in first]
    assert sorted(n for batch in [begun, *rest] for n in batch) == list(range(1000))
    assert column.rows == 1000
    again = numbers(source, 0, 2)
    assert column.rows == 1000
    assert again == numbers(every(split), 0, 2)  # a run that was stopped reads them all at once there
    assert numbers(source, 0, 1) == numbers(choose(split, split.answered, split.labelled, vectors=column), 0, 1)


def test_rows_that_fit_are_read_once_whatever_an_epoch_leaves_and_whichever_begins_at_once(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.data.batches.PIECE_BYTES", 4_000)
    column = Counted()
    source = choose(split, split.answered, split.labelled, vectors=column)
    resumed = iterate_batches([BatchPart(source, 32, once=True)], 32, 0, 1, start=16)
    rest = [batch.number.tolist() for batch in resumed]
    assert 0 < column.rows < 1000
    assert numbers(source, 0, 2) == numbers(every(split), 0, 2)
    assert column.rows == 1000
    first = numbers(source, 0, 1)  # as of a second phase, which finds all rows in memory
    assert first == numbers(choose(split, split.answered, split.labelled, vectors=Counted()), 0, 1)
    assert first[16:] == rest
    assert column.rows == 1000
    assert sum(len(block.read().join()) for block in source.blocks(np.random.default_rng(0), at_once=True)) == 1000
    assert column.rows == 1000
