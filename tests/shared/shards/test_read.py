"""Reading a folder: row groups, rows, counts, and what makes it unfit to be read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import CorruptShardError, SchemaVersionError
from shared.example import Example
from shared.schema import SCHEMA_VERSION, Answer, Row, Status
from shared.shards import (
    TeacherFolder,
    check_readable,
    count_unsealed,
    find_rows,
    identify_row,
    iterate_pieces,
    iterate_rows,
    list_row_groups,
    load_manifest,
    read_kept,
    read_row_group,
    seal,
    summarise_folder,
)
from shared.shards.manifest import save_manifest
from shared.shards.read import GroupReader, cut_row_group
from tests.shared.shards.shard_rows import COST_USD, make_key, make_manifest, make_row, make_rows


def fill_folder(task_folder: Path, *, sealed: Sequence[Row], unsealed: Sequence[Row] = ()) -> Path:
    with TeacherFolder.open(task_folder, make_manifest(planned={"train": 10})) as folder:
        folder.append("train", sealed)
        folder.seal()
        folder.append("train", unsealed)
    return folder.path


def the_shard(folder: Path) -> Path:
    (shard,) = load_manifest(folder).shards
    return folder / shard.path


def the_journal(folder: Path) -> Path:
    return folder / "journal" / "split=train" / "w0.arrows"


def assert_equal_rows(found: Row, expected: Row) -> None:
    assert (found.example, found.request_key, found.draw) == (
        expected.example,
        expected.request_key,
        expected.draw,
    )
    for name in Answer.__dataclass_fields__:
        a, b = getattr(found.answer, name), getattr(expected.answer, name)
        if name == "embedding" and b is not None:
            assert a.dtype == b.dtype
            assert a.tolist() == b.tolist()
        elif name.startswith("topk") and b is not None:
            assert a == [list(token) for token in b]
        else:
            assert a == (list(b) if isinstance(b, tuple) else b), name


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    full = make_row(3, image_sha256=("ab" * 32, "cd" * 32), error="none to speak of")
    example = Example("bare", "a text", "its pair", ("one", "two"), target=1.5, target_text="words")
    bare = Row(example, make_key(4), 2, Answer(Status.UNASKED))
    folder = fill_folder(tmp_path, sealed=[full, bare], unsealed=[full])
    for piece in iterate_pieces(folder, load_manifest(folder), list(full.answer.__dataclass_fields__)):
        if piece.row_group is None:
            (found,) = iterate_rows(piece.table)
            assert_equal_rows(found, full)
    (group,) = list_row_groups(folder, load_manifest(folder), "train")
    found_full, found_bare = iterate_rows(read_row_group(group))
    assert_equal_rows(found_full, full)
    assert_equal_rows(found_bare, bare)


def test_row_groups_are_listed_and_read_by_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "ROW_GROUP_ROWS", 4)
    with TeacherFolder.open(tmp_path, make_manifest()) as folder:
        folder.append("train", make_rows(*range(6)))
        folder.append("dev", make_rows(6))
        folder.seal()
        folder.append("train", make_rows(7))
        folder.seal()
    groups = list_row_groups(folder.path, folder.manifest, "train")
    assert [(group.split, group.index, group.rows) for group in groups] == [
        ("train", 0, 4),
        ("train", 1, 2),
        ("train", 0, 1),
    ]
    table = read_row_group(groups[1], ["sample_id", "embedding"])
    assert table.column_names == ["sample_id", "embedding"]
    assert table["sample_id"].to_pylist() == ["row-4", "row-5"]
    assert list_row_groups(folder.path, folder.manifest, "test") == []


def test_a_row_group_is_read_in_pieces_in_any_order(tmp_path: Path) -> None:
    with TeacherFolder.open(tmp_path, make_manifest()) as folder:
        folder.append("train", make_rows(*range(10)))
        folder.seal()
    (group,) = list_row_groups(folder.path, folder.manifest, "train")
    assert group.sizes["embedding"] > 10 * 4 * 2
    assert cut_row_group(group, 10) == [group]
    pieces = cut_row_group(group, 3)
    assert [(piece.first, piece.rows) for piece in pieces] == [(0, 3), (3, 3), (6, 3), (9, 1)]
    columns = ["sample_id", "embedding"]
    whole = read_row_group(group, columns)
    reader = GroupReader()
    assert reader.read(group, columns) == whole
    for number in (0, 1, 2, 3, 3, 1, 2, 0, 2):
        piece = pieces[number]
        for table in (reader.read(piece, columns), read_row_group(piece, columns)):
            assert table == whole.slice(piece.first, piece.rows)
    assert reader.read(pieces[1], ["sample_id"]).column_names == ["sample_id"]
    group.path.unlink()
    with pytest.raises(CorruptShardError, match="is missing, though the manifest names it"):
        reader.read(pieces[0], columns)


def test_only_the_last_answer_is_current(tmp_path: Path) -> None:
    folder = fill_folder(
        tmp_path, sealed=make_rows(0, 1, 2), unsealed=[make_row(1, "a"), make_row(3, "a"), make_row(1, "b")]
    )
    manifest = load_manifest(folder)
    pieces = list(iterate_pieces(folder, manifest, ["reply"]))
    assert [(piece.current.tolist(), piece.row_group is not None) for piece in pieces] == [
        ([True, False, True], True),
        ([False, True, True], False),
    ]
    kept = read_kept(folder, manifest, "train")
    expected = np.array([bytes.fromhex(make_key(number)) for number in (0, 2, 3, 1)], "S32")
    assert kept.request_keys.tolist() == expected.tolist()
    found = find_rows(folder, manifest, [make_key(1), make_key(2)])
    assert [(row.example.sample_id, row.answer.reply) for row in found] == [("row-2", "yes"), ("row-1", "b")]


def test_digests_with_zeros_at_their_end_are_told_apart(tmp_path: Path) -> None:
    row, other = make_row(0), make_row(1)
    object.__setattr__(row, "request_key", "ab" * 31 + "00")
    object.__setattr__(other, "request_key", "ab" * 30 + "0000")
    folder = fill_folder(tmp_path, sealed=[row, other])
    keys = read_kept(folder, load_manifest(folder), "train").request_keys
    assert keys.tobytes().hex() == row.request_key + other.request_key
    assert np.isin(keys, np.frombuffer(bytes.fromhex(row.request_key), "S32")).tolist() == [True, False]


def test_identities_depend_on_sample_and_draw() -> None:
    assert len({identify_row("a", 0), identify_row("a", 1), identify_row("b", 0), identify_row("0a", 0)}) == 4
    assert len(identify_row("é", 10**6)) == 16


def test_the_summary_counts_rows_causes_and_money(tmp_path: Path) -> None:
    failed: dict[str, Any] = {"status": Status.FAILED, "prompt_tokens": None, "completion_tokens": None}
    folder = fill_folder(
        tmp_path,
        sealed=[
            *make_rows(0, 1),
            make_row(2, status=Status.TRUNCATED),
            make_row(3, error="timeout\nafter 3 attempts", **failed),
            make_row(4, error="timeout\nafter 2 attempts", **failed),
            make_row(5, error="HTTP 500", **failed),
        ],
        unsealed=[make_row(5, cost_usd=2.0), make_row(6, status=Status.REFUSED)],
    )
    summary = summarise_folder(folder)
    train = summary.splits["train"]
    assert dict(train.statuses) == {"ok": 3, "truncated": 1, "failed": 2, "refused": 1}
    assert (train.rows, train.planned, train.unsealed) == (7, 10, 2)
    assert train.failures == (("timeout", 2),)
    assert train.cost_usd == summary.cost_usd == 6 * COST_USD + 2.0 + COST_USD
    assert (train.prompt_tokens, train.completion_tokens) == (50, 5)
    assert train.bytes == the_shard(folder).stat().st_size + the_journal(folder).stat().st_size
    with TeacherFolder.open(tmp_path, make_manifest()) as writer:
        writer.seal()
    after = summarise_folder(folder)
    assert after.splits["train"].cost_usd == train.cost_usd - COST_USD
    assert after.cost_usd == summary.cost_usd
    assert after.splits["train"].unsealed == 0


def test_a_split_that_is_planned_only_is_in_the_summary(tmp_path: Path) -> None:
    with TeacherFolder.open(tmp_path, make_manifest(planned={"dev": 3})) as folder:
        pass
    summary = summarise_folder(folder.path)
    assert (summary.splits["dev"].planned, summary.splits["dev"].rows) == (3, 0)
    assert summary.cost_usd == 0


def test_failures_without_end_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.causes.COUNTED_CAUSES", 6)
    rows = [make_row(n, status=Status.FAILED, error="often" if n % 3 else f"once {n}") for n in range(30)]
    with TeacherFolder.open(tmp_path, make_manifest()) as folder:
        for start in range(0, 30, 5):
            folder.append("train", rows[start : start + 5])
    failures = summarise_folder(folder.path).splits["train"].failures
    assert failures[0] == ("often", 20)
    assert len(failures) == 5


def test_a_sound_folder_is_readable(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path, sealed=make_rows(0, 1), unsealed=make_rows(1, 2, 3))
    assert check_readable(folder) == load_manifest(folder)
    assert count_unsealed(folder, load_manifest(folder)) == {"train": 3}


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path, sealed=make_rows(0, 1))
    shard = the_shard(folder)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorruptShardError, match=rf"{shard.name} was changed"):
        check_readable(folder)


def test_a_shortened_shard_is_refused(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path, sealed=make_rows(0, 1))
    shard = the_shard(folder)
    os.truncate(shard, 100)
    with pytest.raises(CorruptShardError, match=rf"{shard.name} has 100 bytes, the manifest says \d+"):
        check_readable(folder)
    with pytest.raises(CorruptShardError, match=rf"{shard.name} cannot be read"):
        list_row_groups(folder, load_manifest(folder), "train")


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path, sealed=make_rows(0, 1))
    (group,) = list_row_groups(folder, load_manifest(folder), "train")
    the_shard(folder).unlink()
    with pytest.raises(CorruptShardError, match="is missing: 2 rows"):
        check_readable(folder)
    with pytest.raises(CorruptShardError, match="is missing, though the manifest names it"):
        read_row_group(group)


def test_a_torn_journal_is_refused_until_the_next_harvest(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path, sealed=make_rows(0), unsealed=make_rows(1))
    journal = the_journal(folder)
    os.truncate(journal, journal.stat().st_size - 1)
    with pytest.raises(CorruptShardError, match=r"w0\.arrows ends in \d+ bytes .* never acknowledged.*harvest run"):
        check_readable(folder)
    with TeacherFolder.open(tmp_path, make_manifest()):
        # A living writer may be in the midst of a batch: what it has is no damage.
        with journal.open("ab") as file:
            file.write(b"half a batch")
        assert check_readable(folder).shards
    with TeacherFolder.open(tmp_path, make_manifest()):
        pass
    assert check_readable(folder).shards


def test_a_journal_damaged_at_its_start_is_refused(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path, sealed=make_rows(0), unsealed=make_rows(1))
    content = bytearray(the_journal(folder).read_bytes())
    content[0] ^= 1
    the_journal(folder).write_bytes(content)
    with pytest.raises(CorruptShardError, match="damaged at its start"):
        check_readable(folder)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path, sealed=make_rows(0))
    save_manifest(folder, make_manifest(schema_version=SCHEMA_VERSION + 1))
    with pytest.raises(SchemaVersionError, match="newer version"):
        check_readable(folder)
