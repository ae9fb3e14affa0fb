"""What is wrong with shards or with a student is said before anything is trained, and nothing is left behind."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill.config import make_distill_config
from distill.run import run_distillation
from distill.training.loop import Training
from shared.errors import CorruptShardError, DataError, Error, SourceError, UsageError
from shared.schema import Row
from shared.shards.manifest import choose_teacher, load_manifest, save_manifest
from shared.shards.read import find_damage
from tests.distill.distill_rows import WIDTH, WriteFolder, make_rows, with_answer

Check = Callable[..., str]


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run a distillation that must be refused before its training loop; give the message."""

    def check(error: type[Error], shards: Path, student: Path, **options: Any) -> str:
        monkeypatch.setattr(Training, "run", lambda _: pytest.fail("training started"))
        out = tmp_path / "runs"
        with pytest.raises(error) as raised:
            run_distillation(make_distill_config(shards=shards, student=str(student), epochs=1, **options), out)
        assert raised.type is error
        assert not out.exists() or list(out.iterdir()) == []
        return str(raised.value)

    return check


def splits(train: list[Row], dev: list[Row] | None = None) -> dict[str, list[list[Row]]]:
    return {"train": [train[:10], train[10:]], "validation": [dev or make_rows(8, 1)]}


def put_right(folder: Path, shard: Path) -> None:
    """Make the manifest agree with a shard that was written by something else."""
    from hashlib import sha256

    manifest = load_manifest(folder)
    content = shard.read_bytes()
    shards = tuple(
        replace(s, bytes=len(content), sha256=sha256(content).hexdigest()) if folder / s.path == shard else s
        for s in manifest.shards
    )
    save_manifest(folder, replace(manifest, shards=shards))
    assert all(find_damage(folder, s) is None for s in shards)


# --- shards ---


def test_a_label_that_the_manifest_does_not_know(refuse: Check, write_folder: WriteFolder, tiny_student: Path) -> None:
    """A shard of another label set in the same folder."""
    rows = [*make_rows(20), *make_rows(10, 5, classes=3)]
    message = refuse(DataError, write_folder(splits(rows)), tiny_student)
    assert "has label 2, which is not one of the task's 2 labels" in message


def test_label_sets_that_differ_by_row(refuse: Check, write_folder: WriteFolder, tiny_student: Path) -> None:
    rows = [with_answer(row, embedding=None, label_logprobs=[-0.7, -0.8]) for row in make_rows(20)]
    rows[13] = with_answer(rows[13], label_logprobs=[-1.0, -1.1, -1.2])
    message = refuse(DataError, write_folder(splits(rows)), tiny_student)
    assert "'0-13' has label_logprobs of 3 numbers, where others have 2" in message


def test_label_sets_that_differ_by_teacher(refuse: Check, write_folder: WriteFolder, tiny_student: Path) -> None:
    first = write_folder(splits(make_rows(20)))
    other = write_folder(splits(make_rows(20)), task="other", labels=("bad", "good", "fair"))
    message = refuse(UsageError, first, tiny_student, further_shards=(other,))
    assert "must have the same labels in the same order" in message


def test_distributions_over_more_labels_than_there_are(
    refuse: Check, write_folder: WriteFolder, tiny_student: Path
) -> None:
    logs = np.log(np.random.default_rng(0).dirichlet([1.0, 1.0, 1.0], 20)).tolist()
    rows = [with_answer(row, embedding=None, label_logprobs=own) for row, own in zip(make_rows(20), logs, strict=True)]
    folder = write_folder(splits(rows))
    for options in ({}, {"soft": "kl", "loss": "none"}):
        message = refuse(DataError, folder, tiny_student, **options)
        assert "label_logprobs of 3 numbers" in message


@pytest.mark.parametrize("column", ["embedding", "label_logprobs", "reply"])
def test_a_column_without_values(
    refuse: Check, toy: Path, write_folder: WriteFolder, tiny_student: Path, column: str
) -> None:
    folder = write_folder(splits(make_rows(20, vectors=False)), task="bare")
    message = refuse(DataError, folder, tiny_student, vectors=(column,))
    assert f"'0-0' has no {column}: its teacher gave none" in message
    assert "choose with --vectors" in message


def test_a_shard_without_the_column(refuse: Check, write_folder: WriteFolder, tiny_student: Path) -> None:
    folder = choose_teacher(write_folder(splits(make_rows(20))))
    shard = sorted(folder.glob("split=train/*.parquet"))[1]
    pq.write_table(pq.ParquetFile(shard).read().drop_columns(["embedding"]), shard)
    put_right(folder, shard)
    message = refuse(CorruptShardError, folder, tiny_student)
    assert f"{shard} has no column embedding" in message


@pytest.mark.parametrize("place", [3, 17])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_no_numbers(
    refuse: Check, write_folder: WriteFolder, tiny_student: Path, place: int, value: float
) -> None:
    rows = make_rows(20)
    rows[place] = with_answer(rows[place], embedding=np.full(WIDTH, value))
    message = refuse(DataError, write_folder(splits(rows)), tiny_student)
    assert f"'0-{place}' has a vector that is not finite" in message


def test_a_task_of_one_class(refuse: Check, write_folder: WriteFolder, tiny_student: Path) -> None:
    folder = write_folder(splits(make_rows(20, classes=1), make_rows(8, 1, classes=1)), labels=("good",))
    message = refuse(UsageError, folder, tiny_student)
    assert "toy has 1 labels (good): there is nothing to tell apart" in message


def test_labels_of_one_class(refuse: Check, write_folder: WriteFolder, tiny_student: Path) -> None:
    folder = write_folder(splits(make_rows(20, classes=1)))
    message = refuse(DataError, folder, tiny_student)
    assert "the 20 labels of the split train that training may see are all the same" in message
    message = refuse(DataError, write_folder(splits(make_rows(20)), task="more"), tiny_student, labels=1)
    assert "the 1 labels" in message


def test_a_teacher_of_one_answer(refuse: Check, write_folder: WriteFolder, tiny_student: Path) -> None:
    same = [with_answer(row, embedding=None, label_logprobs=[-0.1, -4.0], residual_mass=0.05) for row in make_rows(20)]
    folder = write_folder(splits(same))
    assert "all 20 rows of the split train the same vector" in refuse(DataError, folder, tiny_student)
    message = refuse(DataError, folder, tiny_student, soft="kl", loss="none")
    assert "all 20 rows of the split train the same label distribution" in message


def test_a_shard_that_was_cut(refuse: Check, toy: Path, tiny_student: Path) -> None:
    shard = sorted(toy.glob("teacher=t/split=train/*.parquet"))[2]
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)
    assert f"{shard} has" in refuse(CorruptShardError, toy, tiny_student)


def test_a_shard_that_is_no_parquet(refuse: Check, toy: Path, tiny_student: Path) -> None:
    """What a mirror that answers with an error page leaves, under a manifest that was made from it."""
    folder = choose_teacher(toy)
    shard = sorted(folder.glob("split=train/*.parquet"))[1]
    shard.write_text("<html>404</html>")
    put_right(folder, shard)
    assert f"{shard} cannot be read" in refuse(CorruptShardError, toy, tiny_student)


def test_a_manifest_that_was_cut(refuse: Check, toy: Path, tiny_student: Path) -> None:
    manifest = toy / "teacher=t" / "manifest.json"
    manifest.write_text(manifest.read_text()[:100])
    assert "manifest.json is not JSON" in refuse(CorruptShardError, toy, tiny_student)


# --- the student, and a text encoder ---


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("weights cut", lambda folder: cut(folder / "model.safetensors"), "cannot load the student"),
    ("no weights", lambda folder: (folder / "model.safetensors").unlink(), "cannot load the student"),
    ("weights empty", lambda folder: (folder / "model.safetensors").write_bytes(b""), "cannot load the student"),
    ("config cut", lambda folder: cut(folder / "config.json"), "cannot load the student"),
    ("no config", lambda folder: (folder / "config.json").unlink(), "a model is a folder that holds config.json"),
    ("tokenizer cut", lambda folder: cut(folder / "tokenizer.json"), "cannot load the student"),
    ("no tokenizer", lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
]


@pytest.mark.parametrize(("damage", "message"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
@pytest.mark.parametrize("control", ["none", "label-smoothing"])
def test_a_student_that_was_half_downloaded(
    refuse: Check,
    toy: Path,
    tiny_student: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    message: str,
    control: str,
) -> None:
    folder = tmp_path / "student"
    shutil.copytree(tiny_student, folder)
    damage(folder)
    said = refuse(SourceError, toy, folder, control=control)
    assert message in said
    assert str(folder) in said


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_text_encoder_that_was_half_downloaded(
    refuse: Check, write_folder: WriteFolder, tiny_student: Path, tmp_path: Path, file: str
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_student, encoder)
    cut(encoder / file)
    folder = write_folder(splits([with_answer(row, reply="good film") for row in make_rows(20)]))
    message = refuse(SourceError, folder, tiny_student, vectors=("reply",), reply_encoder=str(encoder))
    assert f"{encoder} cannot be loaded" in message
    assert not list(folder.glob("teacher=t/vectors/*.npy"))


def test_a_student_of_other_labels(refuse: Check, toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    AutoModelForSequenceClassification.from_pretrained(tiny_student, num_labels=3).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_student).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
    message = refuse(SourceError, toy, folder)
    assert "has a head of 3 outputs (LABEL_0, LABEL_1, LABEL_2), and the task needs 2" in message
