"""A task with pictures from end to end: the teacher needs the picture, and what the text alone allows is said."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import distill
import harvest
from harvest.looking.status import read_status
from shared.tasks import find_task, load_task
from tests.distill.conftest import tiny_student as tiny_student
from tests.harvest.fault_server import FaultServer
from tests.harvest.pictures.test_harvest import judge

TEXTS = ("look how many people love you", "what a day", "they said it was easy", "a warm film")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """An endpoint that looks at pixels; in the working directory 120 memes of four texts, red ones and blue ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "img").mkdir()
    rows = []
    for number in range(120):
        is_red = number % 3 == 0
        Image.new("RGB", (8 + number, 8), ((10, 10, 220), (220, 10, 10))[is_red]).save(f"img/{number:05}.png")
        label = ("negative", "positive")[is_red]
        rows.append({"id": number, "img": f"img/{number:05}.png", "label": label, "text": TEXTS[number % 4]})
    (tmp_path / "memes.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    with FaultServer(answer=judge) as server:
        yield server


def bound(rows: pl.DataFrame) -> float:
    """The share of rows whose label is the most frequent one of their text."""
    labels = defaultdict[str, Counter[int]](Counter)
    for text, label in rows.select("text", "label").iter_rows():
        labels[text][label] += 1
    return sum(max(of_text.values()) for of_text in labels.values()) / len(rows)


def test_the_teacher_needs_the_picture_and_the_students_ceiling_is_said(
    server: FaultServer, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"endpoint": server.url, "model": "m", "scoring": "top_logprobs", "dialect": "openai"}
    report = harvest.run_harvest(harvest.make_harvest_config({"teacher": "endpoint", "task": "memes.jsonl", **options}))
    said = capsys.readouterr().err
    assert (report.asked, report.failed) == (120, 0)
    rows = pl.read_parquet("data/memes/teacher=*/split=*/*.parquet", hive_partitioning=True)
    assert np.array(rows["label_logprobs"].to_list()).argmax(1).tolist() == rows["label"].to_list()
    assert set(rows["text"]) == set(TEXTS)
    for split in ("train", "validation", "test"):
        own = bound(rows.filter(pl.col("split") == split))
        assert own < 1
        assert f"{split}: texts stand beside several labels: who reads the text alone gets {own:.1%} right" in said

    (status,) = read_status(Path("data/memes"))["teachers"]
    assert status["text_ceilings"] == {
        split: pytest.approx(bound(rows.filter(pl.col("split") == split))) for split in ("train", "validation", "test")
    }

    config = distill.make_distill_config(shards="data/memes", student=str(tiny_student), epochs=1, batch_size=32)
    folder, metrics = distill.run_distillation(config)
    expected = {"dev": "validation", "test": "test"}
    assert metrics["text_ceiling"] == {
        part: pytest.approx(bound(rows.filter(pl.col("split") == split))) for part, split in expected.items()
    }
    assert metrics["test"] <= metrics["text_ceiling"]["test"]
    assert f"at most {metrics['text_ceiling']['dev']:.4f} on validation" in (folder / "README.md").read_text()


def test_hateful_memes_is_read_from_the_folder_that_its_authors_publish(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    for number in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / f"img/{number:05}.png")
    for name in ("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen"):
        rows = [{"id": n, "img": f"img/{n:05}.png", "label": n % 2, "text": f"{name} {n}"} for n in range(4)]
        if name.startswith("test"):
            rows = [{key: value for key, value in row.items() if key != "label"} | {"label": None} for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    loaded = load_task(find_task("hateful-memes", task_file=str(tmp_path)))
    assert loaded.splits == {"train": 4, "validation": 4, "test": 4}
    example = next(loaded.examples("validation"))
    assert (example.text, example.label) == ("dev_seen 0", 0)
    assert example.pictures is not None
    assert example.pictures[0].place == str(tmp_path / "img/00000.png")
