"""The manifest: written whole or not at all, read only if it is understood."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shared.errors import CorruptShardError, RecipeMismatchError, SchemaVersionError, ShardError, UsageError
from shared.schema import SCHEMA_VERSION
from shared.shards.manifest import (
    MANIFEST_NAME,
    Shard,
    Superseded,
    check_name,
    check_recipe,
    choose_teacher,
    encode_manifest,
    find_teachers,
    hash_manifest,
    load_manifest,
    save_manifest,
)
from tests.shared.shards.shard_rows import make_manifest

SHARD = Shard("split=train/part-00002-w0-0123456789ab.parquet", "train", 3, 100, "ab" * 32, 0.75)


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    manifest = make_manifest(
        kind="regression",
        labels=(),
        target_range=(0.0, 5.0),
        planned={"train": 4},
        shards=(SHARD,),
        superseded=Superseded(2, 0.5),
        retired=("w1-ba9876543210",),
    )
    save_manifest(tmp_path, manifest)
    assert load_manifest(tmp_path) == manifest
    assert hash_manifest(load_manifest(tmp_path)) == hash_manifest(manifest)


def test_the_hash_follows_the_content() -> None:
    assert hash_manifest(make_manifest()) == hash_manifest(make_manifest())
    assert hash_manifest(make_manifest()) != hash_manifest(make_manifest(shards=(SHARD,)))


def test_sealed_ids_outlive_rewriting_and_removal() -> None:
    manifest = make_manifest(shards=(SHARD,), retired=("w1-ba9876543210",))
    assert manifest.sealed_ids() == {"w0-0123456789ab", "w1-ba9876543210"}


def test_saving_keeps_the_old_manifest_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_manifest(tmp_path, make_manifest())
    order: list[str] = []
    replace, fsync = os.replace, os.fsync

    def note_fsync(descriptor: int) -> None:
        order.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        order.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    save_manifest(tmp_path, make_manifest(planned={"train": 1}))
    assert order == [str(tmp_path / f".manifest.json.{os.getpid()}.tmp"), "replace", str(tmp_path)]


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    save_manifest(tmp_path, make_manifest(schema_version=SCHEMA_VERSION + 1))
    with pytest.raises(SchemaVersionError, match=rf"schema {SCHEMA_VERSION + 1}; this one reads up to .*upgrade"):
        load_manifest(tmp_path)


def test_a_newer_schema_may_have_other_fields(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "new": 1}))
    with pytest.raises(SchemaVersionError):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"schema_version": 1}', '{"schema_version": 1, "shards": 3}', "\xff"]
)
def test_what_is_no_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(CorruptShardError, match=r"manifest\.json is not .*untouched"):
        load_manifest(tmp_path)


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    save_manifest(tmp_path, make_manifest())
    content = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "colour": "red"}))
    with pytest.raises(CorruptShardError, match="colour"):
        load_manifest(tmp_path)


def test_no_manifest_is_not_the_same_as_a_lost_one(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="harvest run") as caught:
        load_manifest(tmp_path)
    assert not isinstance(caught.value, CorruptShardError)
    (tmp_path / "split=train").mkdir()
    (tmp_path / "split=train" / "part-00000-w0-0123456789ab.parquet").touch()
    with pytest.raises(CorruptShardError, match="is missing, though the folder holds rows"):
        load_manifest(tmp_path)


def test_another_recipe_is_described_by_what_differs(tmp_path: Path) -> None:
    kept = make_manifest()
    wanted = make_manifest(
        labels=("yes", "no"),
        recipe={"model": "x" * 500, "generation": {"temperature": 0.0}, "seed": 1},
    )
    with pytest.raises(RecipeMismatchError) as caught:
        check_recipe(tmp_path, kept, wanted)
    message = str(caught.value)
    assert 'labels: ["no","yes"] in the folder, ["yes","no"] now' in message
    assert "recipe.generation.max_tokens: 1 in the folder, absent now" in message
    assert "recipe.seed: absent in the folder, 1 now" in message
    assert 'recipe.model: "tiny-vlm" in the folder, "xxx' in message
    assert "temperature" not in message
    assert "--name" in message
    assert message.endswith("with --labels no,yes")
    assert max(map(len, message.splitlines())) < 250


def test_a_recipe_that_went_through_json_is_the_same_recipe(tmp_path: Path) -> None:
    save_manifest(tmp_path, make_manifest(recipe={"sizes": (1, 2), "nested": {"empty": {}}, 3: None}))
    check_recipe(
        tmp_path, load_manifest(tmp_path), make_manifest(recipe={"sizes": [1, 2], "nested": {"empty": {}}, "3": None})
    )


def test_plan_source_and_metric_are_no_part_of_the_recipe(tmp_path: Path) -> None:
    check_recipe(tmp_path, make_manifest(), make_manifest(planned={"dev": 1}, source="hf://other", metric="f1"))


def test_teachers_are_found_from_either_folder(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"teacher={name}").mkdir()
        save_manifest(tmp_path / f"teacher={name}", make_manifest(name))
    (tmp_path / "teacher=empty").mkdir()  # a run that was killed before it could write anything
    (tmp_path / "README.md").touch()
    assert find_teachers(tmp_path) == [tmp_path / "teacher=a", tmp_path / "teacher=b"]
    assert find_teachers(tmp_path / "teacher=a") == [tmp_path / "teacher=a"]


def test_a_path_without_teachers_says_what_to_do(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / "teacher=absent"):
        with pytest.raises(ShardError, match="harvest run"):
            find_teachers(path)


def test_several_teachers_must_be_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"teacher={name}").mkdir()
        save_manifest(tmp_path / f"teacher={name}", make_manifest(name))
    with pytest.raises(ShardError, match=r"several teachers \(a, b\)"):
        choose_teacher(tmp_path)
    with pytest.raises(ShardError, match=r"no answers of teacher 'c'; it has: a, b"):
        choose_teacher(tmp_path, "c")
    assert choose_teacher(tmp_path, "b") == tmp_path / "teacher=b"
    assert choose_teacher(tmp_path / "teacher=a") == tmp_path / "teacher=a"


@pytest.mark.parametrize("name", ["", "a/b", "a=b", "..", ".hidden", "a b", "a\n", "é"])
def test_names_that_would_break_a_path_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="teacher"):
        check_name("teacher", name)


def test_usual_names_are_fine() -> None:
    for name in ("llava", "gpt-4o-mini", "validation_matched", "Qwen2.5-VL-7B", "w0", "c++"):
        assert check_name("teacher", name) == name


PATHS = (
    "../teacher=other/split=train/part-00000-w0-0123456789ab.parquet",
    "split=train/../../teacher=other/part-00000-w0-0123456789ab.parquet",
    "/dev/zero",
    "split=dev/part-00000-w0-0123456789ab.parquet",
    "split=train/part-0-a.parquet\n",
    "split=train/part-0-a\x00.parquet",
    "manifest.json",
    "",
)


def write_changed(folder: Path, **changes: Any) -> None:
    content = json.loads(encode_manifest(make_manifest(shards=(SHARD,))))
    (folder / MANIFEST_NAME).write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_leaves_the_folder_or_is_no_shards_is_refused(path: str, tmp_path: Path) -> None:
    shard = {**json.loads(encode_manifest(make_manifest(shards=(SHARD,))))["shards"][0], "path": path}
    write_changed(tmp_path, shards=[shard])
    with pytest.raises(CorruptShardError, match=r"manifest\.json is not a manifest .*restore it from a copy"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shards", 3),
        ("shards", [3]),
        ("shards", [{"path": "x"}]),
        ("labels", "abc"),
        ("labels", [1, None]),
        ("planned", {"train": "many"}),
        ("planned", {"../x": 1}),
        ("recipe", []),
        ("teacher", "../other"),
        ("teacher", None),
        ("target_range", [1]),
        ("target_range", "ab"),
        ("superseded", {"rows": []}),
        ("retired", {"a": 1}),
        ("schema_version", "new"),
        ("cost", 1),
        ("recipe", json.loads("[" * 500 + "]" * 500)),
    ],
)
def test_a_field_of_another_type_is_named(name: str, value: Any, tmp_path: Path) -> None:
    write_changed(tmp_path, **{name: value})
    with pytest.raises(CorruptShardError, match=r"is not a manifest|is not JSON"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, "NaN", "3", "[]", "null", '{"a": NaN}', "", "\x00"])
def test_what_is_no_manifest_at_all_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(CorruptShardError, match=r"is not a manifest|is not JSON"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a device", "link to a folder"])
@pytest.mark.parametrize("place", [MANIFEST_NAME, SHARD.path])
def test_what_is_no_file_is_not_opened(place: str, kind: str, tmp_path: Path) -> None:
    write_changed(tmp_path)
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if "device" in kind else tmp_path)
    with pytest.raises(CorruptShardError, match="is no plain file"):
        load_manifest(tmp_path)
