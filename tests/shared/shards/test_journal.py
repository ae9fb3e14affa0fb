"""The journal keeps every acknowledged batch, whatever a crash or a full disk leaves behind it."""

import os
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from shared.errors import CorruptShardError, DiskError, ShardError
from shared.schema import row_schema, rows_to_batch
from shared.shards.journal import Journal, JournalReader
from tests.shared.full_disk import limit_file_size
from tests.shared.shards.shard_rows import make_rows

SCHEMA = row_schema()


def make_batch(*numbers: int) -> pa.RecordBatch:
    return rows_to_batch(make_rows(*numbers), SCHEMA)


def write_journal(path: Path, *batches: tuple[int, ...]) -> list[int]:
    """Write the batches; the offsets at which they end, the schema's own first."""
    journal = Journal.open(path, SCHEMA)
    ends = [journal.size]
    for numbers in batches:
        journal.append(make_batch(*numbers))
        ends.append(journal.size)
    journal.sync()
    journal.close()
    return ends


def read_ids(path: Path) -> list[str]:
    with JournalReader(path) as reader:
        return [sample_id for batch in reader for sample_id in batch["sample_id"].to_pylist()]


def read_tear(path: Path) -> tuple[int, int]:
    with JournalReader(path) as reader:
        for _ in reader:
            pass
        return reader.torn, reader.damaged


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "split=train" / "w0.arrows"


def test_batches_come_back_as_they_were(path: Path) -> None:
    write_journal(path, (0, 1, 2), (3,))
    with JournalReader(path) as reader:
        batches = list(reader)
    assert [batch.to_pydict() for batch in batches] == [
        make_batch(0, 1, 2).to_pydict(),
        make_batch(3).to_pydict(),
    ]


def test_reopening_appends(path: Path) -> None:
    write_journal(path, (0, 1))
    with JournalReader(path) as reader:
        before = reader.id
    write_journal(path, (2,))
    with JournalReader(path) as reader:
        assert reader.id == before
    assert read_ids(path) == ["row-0", "row-1", "row-2"]


def test_any_arrow_reader_can_read_it(path: Path) -> None:
    write_journal(path, (0, 1), (2,))
    with pa.ipc.open_stream(str(path)) as stream:
        assert stream.read_all()["sample_id"].to_pylist() == ["row-0", "row-1", "row-2"]
    assert pl.read_ipc_stream(path, columns=["sample_id"], use_pyarrow=True).height == 3


def test_two_journals_have_different_ids(tmp_path: Path) -> None:
    write_journal(tmp_path / "a.arrows")
    write_journal(tmp_path / "b.arrows")
    with JournalReader(tmp_path / "a.arrows") as a, JournalReader(tmp_path / "b.arrows") as b:
        assert a.id.startswith("a-")
        assert a.id.split("-")[1] != b.id.split("-")[1]


def test_a_file_cut_anywhere_keeps_its_whole_batches(path: Path) -> None:
    ends = write_journal(path, (0,), (1,), (2,))
    content = path.read_bytes()
    cuts = {*range(0, len(content), 37), *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])}
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends[1:])
        assert read_ids(path) == [f"row-{number}" for number in range(whole)], cut
        journal = Journal.open(path, SCHEMA)
        assert journal.dropped == cut - max([end for end in ends if end <= cut], default=0), cut
        journal.append(make_batch(9))
        journal.close()
        assert read_ids(path) == [*(f"row-{number}" for number in range(whole)), "row-9"], cut


@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 5000,  # what a power loss leaves of blocks that were allocated and never written
        b"\xff" * 5000,
        b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\0" * 100,  # metadata of 2 GiB
        b"\xff\xff\xff\xff\x10\x00\x00\x00" + bytes(range(256)) * 4,
        os.urandom(4096),
    ],
)
def test_a_garbage_tail_is_dropped(path: Path, tail: bytes) -> None:
    write_journal(path, (0, 1))
    with path.open("ab") as file:
        file.write(tail)
    assert read_tear(path) == (len(tail), 0)
    journal = Journal.open(path, SCHEMA)
    journal.append(make_batch(2))
    journal.close()
    assert journal.dropped == len(tail)
    assert read_ids(path) == ["row-0", "row-1", "row-2"]
    assert read_tear(path) == (0, 0)


def test_zeros_inside_the_last_batch_are_not_taken_for_rows(path: Path) -> None:
    *_, start, end = write_journal(path, (0,), (1, 2, 3))
    content = bytearray(path.read_bytes())
    content[end - 256 : end] = bytes(256)  # the framing is whole, the values are not
    path.write_bytes(content)
    assert read_ids(path) == ["row-0"]
    assert read_tear(path) == (end - start, 0)


def test_every_changed_byte_of_a_batch_is_noticed(path: Path) -> None:
    start, end = write_journal(path, (0,))
    content = path.read_bytes()
    for at in range(start, end, 7):
        changed = bytearray(content)
        changed[at] ^= 0x10
        path.write_bytes(changed)
        assert read_ids(path) == [], at


def test_damage_in_the_middle_costs_its_own_batch_only(path: Path) -> None:
    _, first, second, _ = write_journal(path, (0,), (1,), (2, 3))
    content = bytearray(path.read_bytes())
    content[first + 100] ^= 0xFF
    path.write_bytes(content)
    assert read_ids(path) == ["row-0", "row-2", "row-3"]
    assert read_tear(path) == (0, second - first)
    journal = Journal.open(path, SCHEMA)
    journal.append(make_batch(4))
    journal.close()
    assert (journal.dropped, journal.damaged) == (0, second - first)
    assert read_ids(path)[-1] == "row-4"


@pytest.mark.parametrize("content", [b"", b"\xff", b"\xff\xff\xff\xff\x00"])
def test_a_file_that_never_held_a_row_starts_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with JournalReader(path) as reader:
        assert reader.schema is None
        assert list(reader) == []
    write_journal(path, (0,))
    assert read_ids(path) == ["row-0"]


def test_a_damaged_start_with_rows_behind_it_is_refused(path: Path) -> None:
    write_journal(path, (0, 1))
    content = bytearray(path.read_bytes())
    content[4] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CorruptShardError, match=r"w0\.arrows is damaged at its start"):
        Journal.open(path, SCHEMA)
    assert path.read_bytes() == content


def test_a_journal_of_other_columns_is_refused_and_left_alone(path: Path) -> None:
    older = SCHEMA.remove(SCHEMA.get_field_index("attempts"))
    Journal.open(path, older).close()
    content = path.read_bytes()
    with pytest.raises(ShardError, match=r"another layout.*attempts"):
        Journal.open(path, SCHEMA)
    with pytest.raises(ShardError, match=r"another layout.*embedding"):
        Journal.open(path, row_schema(pa.float32()))
    assert path.read_bytes() == content


def test_a_full_disk_leaves_the_journal_whole(path: Path) -> None:
    journal = Journal.open(path, SCHEMA)
    journal.append(make_batch(0))
    size = journal.size
    with limit_file_size(size + 300), pytest.raises(DiskError, match="Everything that was kept before is safe"):
        journal.append(make_batch(1))
    assert path.stat().st_size == size == journal.size
    journal.append(make_batch(2))
    journal.sync()
    journal.close()
    assert read_ids(path) == ["row-0", "row-2"]


def test_rows_that_the_disk_did_not_confirm_are_never_acknowledged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(path, SCHEMA)
    journal.append(make_batch(0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", raise_io_error)
        with pytest.raises(DiskError, match="did not confirm"):
            journal.sync()
    # The kernel reports a lost write once: a second fsync that succeeds proves nothing.
    with pytest.raises(DiskError, match="run the same command again"):
        journal.sync()
    with pytest.raises(DiskError, match="run the same command again"):
        journal.append(make_batch(1))
    journal.close()


def test_syncing_asks_the_disk_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(path, SCHEMA)
    journal.append(make_batch(0))
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    journal.sync()
    journal.sync()
    assert len(synced) == 1
    journal.append(make_batch(1))
    journal.sync()
    assert len(synced) == 2
    journal.close()


def raise_io_error(descriptor: int) -> None:
    raise OSError(5, "Input/output error")
