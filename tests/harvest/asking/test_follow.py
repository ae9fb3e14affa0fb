"""Kept rows follow a file that changed: whatever stops that half-way, the next run comes to the same end."""

import json
import os
from pathlib import Path

import pytest

from harvest.asking.follow import Changes, drop_found, find_changes, follow_file
from shared.errors import DiskError
from shared.schema import Answer, Row, Status
from shared.shards import Manifest, TeacherFolder, iterate_pieces, load_manifest, verify_shards
from shared.shards.manifest import REMOVED
from shared.tasks import LoadedTask, find_task, load_task

COST_USD = 0.25


def load(folder: Path, texts: dict[str, list[tuple[str, str]]]) -> LoadedTask:
    folder.mkdir(exist_ok=True)
    for split, rows in texts.items():
        lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return load_task(find_task(str(folder), text_column="text", label_column="label", labels=("no", "yes")))


def open_folder(root: Path) -> TeacherFolder:
    manifest = Manifest("files", "t", "classification", ("no", "yes"), "accuracy", {"teacher": "t"}, "a test")
    return TeacherFolder.open(root, manifest)


def keep(root: Path, loaded: LoadedTask) -> None:
    with open_folder(root) as folder:
        for split in loaded.splits:
            answer = Answer(Status.OK, cost_usd=COST_USD, attempts=1)
            rows = [Row(example, f"{abs(hash(example.text)):064x}", 0, answer) for example in loaded.examples(split)]
            folder.append(split, rows)
            folder.seal()
            folder.plan({split: len(rows)})


def read(root: Path) -> dict[str, list[tuple[str, int]]]:
    folder, found = root / "teacher=t", {}
    manifest = load_manifest(folder)
    for split in {shard.split for shard in manifest.shards}:
        found[split] = sorted(
            (row["text"], row["label"])
            for piece in iterate_pieces(folder, manifest, ("text", "label"), split)
            for row in piece.table.select(["text", "label"]).to_pylist()
        )
    return found


BEFORE = {
    "train": [("a", "no"), ("b", "yes"), ("c", "no"), ("d", "yes")],
    "validation": [("e", "no"), ("f", "yes")],
    "test": [("g", "no"), ("h", "yes")],
}
AFTER = {
    "train": [("a", "yes"), ("c", "no"), ("e", "no")],  # b, d and their numbers are gone
    "validation": [("e2", "no"), ("f", "no")],
    "test": [("g", "no"), ("h", "yes")],
}


@pytest.mark.real
def test_whatever_stops_it_the_next_run_comes_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for stop in range(40):
        root = tmp_path / str(stop)
        keep(root, load(tmp_path / "files", BEFORE))
        loaded = load(tmp_path / "files", AFTER)
        left = [stop]

        def fail_later(*paths: Path, left: list[int] = left) -> None:
            if not left[0]:
                raise OSError(28, "No space left on device")
            left[0] -= 1
            replace(*paths)

        monkeypatch.setattr(os, "replace", fail_later)
        try:
            with open_folder(root) as folder:
                follow_file(folder, loaded)
            done = True
        except DiskError:
            done = False
        monkeypatch.setattr(os, "replace", replace)
        texts = {text for rows in read(root).values() for text, _ in rows}
        assert texts == set("abcdefgh"), "every answer that was paid for is there, at any moment"
        with open_folder(root) as folder:
            follow_file(folder, loaded)
            assert find_changes(loaded, folder.path, folder.manifest) == Changes()
        found = read(root)
        assert found["train"] == [("a", 1)], "c and e are copied from what was set aside, by the plan"
        assert found["validation"] == [("f", 0)]
        assert {text for text, _ in found[REMOVED]} == set("bcde")
        assert verify_shards(root).problems == ()
        assert load_manifest(root / "teacher=t").cost_usd == pytest.approx(8 * COST_USD)
        if done:
            break
    assert done
    assert stop > 4


def test_answers_that_stand_in_the_file_again_are_not_kept_twice(tmp_path: Path) -> None:
    keep(tmp_path / "out", load(tmp_path / "files", BEFORE))
    loaded = load(tmp_path / "files", AFTER)
    with open_folder(tmp_path / "out") as folder:
        assert follow_file(folder, loaded) == Changes(relabelled=2, moved=2, removed=2)
        again = next(row for row in folder.find_rows([f"{abs(hash('c')):064x}"]))
        folder.append("train", [Row(list(loaded.examples("train"))[1], again.request_key, 0, again.answer)])
        folder.seal()
        drop_found(folder)
    assert {text for text, _ in read(tmp_path / "out")[REMOVED]} == set("bde")
