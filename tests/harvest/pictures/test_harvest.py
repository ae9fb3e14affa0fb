"""Tasks with pictures from a user's file to sealed shards, against an endpoint on loopback that looks at the pixels."""

import json
import shutil
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from harvest import HarvestConfig, Report, TaskChoice, TeacherChoice, plan_harvest, run_harvest
from harvest.asking.pictures import find_picture
from shared.errors import DataError, RecipeMismatchError, TeacherError
from tests.harvest.fault_server import Asked, FaultServer, make_reply, spread_logprobs
from tests.harvest.pictures.hostile_pictures import CONVERTED, REFUSED, write_all

RED, BLUE = (220, 10, 10), (10, 10, 220)
TEXT = "look at these people"


def read_pictures(asked: Asked) -> list[np.ndarray[Any, Any]]:
    """The pixels of a request's pictures, RGB."""
    content = asked.body["messages"][0]["content"]
    addresses = [] if isinstance(content, str) else [one["image_url"]["url"] for one in content if "image_url" in one]
    return [np.asarray(Image.open(BytesIO(b64decode(a.partition(",")[2]))).convert("RGB")) for a in addresses]


def judge(asked: Asked, *, sees: bool = True) -> dict[str, Any]:
    """Positive where the first picture is more red than blue; a picture takes 85 tokens of the prompt."""
    pictures = read_pictures(asked)
    is_red = bool(pictures and pictures[0][:, :, 0].mean() > pictures[0][:, :, 2].mean())
    tokens = 20 + (85 * len(pictures) if sees else 0)
    return make_reply(("negative", "positive")[is_red], spread_logprobs(0.9 if is_red else 0.1), prompt_tokens=tokens)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(answer=judge) as server:
        yield server


def write_memes(folder: Path, rows: int = 12, shift: int = 0) -> Path:
    """A file of rows that all say the same, beside pictures that are red and blue by turns: the label."""
    (folder / "img").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(rows):
        is_red = (number + shift) % 2
        Image.new("RGB", (30 + number, 20), (BLUE, RED)[is_red]).save(folder / f"img/{number:05}.png")
        label = ("negative", "positive")[is_red]
        lines.append({"id": f"{number:05}", "img": f"img/{number:05}.png", "label": label, "text": TEXT})
    (folder / "memes.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder / "memes.jsonl"


def make_config(path: Path, server: FaultServer, out: Path, task: dict[str, Any] | None = None, **options: Any) -> Any:
    known = {"endpoint": server.url, "model": "m", "scoring": "top_logprobs", "dialect": "openai"}
    choice = TeacherChoice("endpoint", name="endpoint", options={**known, **options})
    return HarvestConfig(TaskChoice(str(path), **(task or {})), choice, out=out)


def read_rows(out: Path) -> pl.DataFrame:
    """The rows of the endpoint's folder but those that were set aside, by sample id."""
    rows = pl.read_parquet(out / "teacher=endpoint/split=*/*.parquet", hive_partitioning=True)
    return rows.filter(pl.col("split") != "removed").sort("sample_id")


def count_asked(server: FaultServer) -> int:
    return sum(server.count.answered.values())


def test_the_teacher_sees_the_picture_and_the_key_follows_it(
    server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_memes(tmp_path / "own"), tmp_path / "out"
    config = make_config(path, server, out, {"id_column": "id"}, keep_images=True)
    planned = plan_harvest(config)
    assert count_asked(server) == 0
    assert planned.forecast is not None
    assert planned.forecast.image_tokens.likely > 12 * 4
    few = run_harvest(replace(config, limits={"*": 2}))
    measured = plan_harvest(config).forecast
    assert measured is not None  # as the endpoint bills a row, whatever the sizes of those that are kept
    assert measured.input_tokens.likely + measured.image_tokens.likely == pytest.approx(105 * (12 - few.asked))
    report = run_harvest(config)
    assert (report.asked, report.failed) == (12 - few.asked, 0)
    assert "image column 'img'" in capsys.readouterr().err
    rows = read_rows(out)
    assert rows["text"].unique().to_list() == [TEXT]
    scores = np.array(rows["label_logprobs"].to_list()).argmax(axis=1)
    assert scores.tolist() == rows["label"].to_list() == [0, 1] * 6  # the same text, and two answers
    for (digest,) in rows["image_sha256"]:
        assert find_picture(out / "teacher=endpoint", digest).is_file()

    shutil.move(tmp_path / "own", tmp_path / "moved")  # a moved file is no other question
    asked = count_asked(server)
    path = tmp_path / "moved/memes.jsonl"
    moved = make_config(path, server, out, {"id_column": "id"}, keep_images=True)
    assert run_harvest(moved).kept == 12

    Image.new("RGB", (9, 9), RED).save(tmp_path / "moved/img/00000.png")  # a changed picture is one
    (tmp_path / "moved/img/00001.png").unlink()  # one that is gone takes no answer away
    assert plan_harvest(moved).to_ask == 1
    report = run_harvest(moved)
    assert (report.asked, report.kept, count_asked(server)) == (1, 11, asked + 1)
    assert "1 kept rows have other pictures" in capsys.readouterr().err
    assert np.argmax(read_rows(out)["label_logprobs"][0].to_list()) == 1
    aside = pl.read_parquet(out / "teacher=endpoint/split=removed/*.parquet")
    assert np.argmax(aside["label_logprobs"][0].to_list()) == 0
    Image.new("RGB", (30, 20), BLUE).save(tmp_path / "moved/img/00000.png")  # as it was: its answer is there
    assert run_harvest(moved).asked == 0
    assert np.argmax(read_rows(out)["label_logprobs"][0].to_list()) == 0


def test_one_bad_picture_never_stops_a_run_and_costs_nothing(server: FaultServer, tmp_path: Path) -> None:
    write_all(tmp_path)
    names = [*CONVERTED, *REFUSED, "missing.png"]
    rows = [
        f"{number},{name},{'negative' if number % 2 else 'positive'},{TEXT} {name}" for number, name in enumerate(names)
    ]
    (tmp_path / "own.csv").write_text("\n".join(["nr,picture,label,text", *rows]) + "\n")
    config = make_config(tmp_path / "own.csv", server, tmp_path / "out", {"image_column": "picture", "id_column": "nr"})
    report = run_harvest(config)
    kept = read_rows(tmp_path / "out")
    by_name = {names[int(row["sample_id"])]: row for row in kept.iter_rows(named=True)}
    assert {name for name, row in by_name.items() if row["status"] == "ok"} == set(CONVERTED)
    assert count_asked(server) == len(CONVERTED)
    for name in (*REFUSED, "missing.png"):
        assert name in by_name[name]["error"]
        assert by_name[name]["cost_usd"] == 0
    assert report.failed == len(REFUSED) + 1


def make_list(folder: Path) -> tuple[Path, dict[str, str]]:
    """Two pictures a row, as JSON in CSV."""
    write_memes(folder, 2)
    pair = json.dumps(["img/00001.png", str(folder / "img/00000.png")]).replace('"', '""')
    rows = [f'"{pair}",{label},{TEXT} {n}' for n, label in enumerate(["negative", "positive"] * 10)]
    (folder / "own.csv").write_text("\n".join(["pictures,label,text", *rows]) + "\n")
    return folder / "own.csv", {"image_column": "pictures"}


def make_feature(folder: Path, *, is_list: bool) -> tuple[Path, dict[str, str]]:
    """The hub's image feature in Parquet: {bytes, path}, guessed by its type."""
    write_memes(folder, 2)
    both = [{"bytes": (folder / f"img/0000{n}.png").read_bytes(), "path": "x.png"} for n in (1, 0)]
    values: list[Any] = [both] * 20 if is_list else [both[0]] * 20
    labels = ["negative", "positive"] * 10
    pl.DataFrame({"image": values, "label": labels, "text": [f"{TEXT} {n}" for n in range(20)]}).write_parquet(
        folder / "own.parquet"
    )
    return folder / "own.parquet", {}


@pytest.mark.parametrize(
    ("make", "pictures"),
    [(make_list, 2), (partial(make_feature, is_list=True), 2), (partial(make_feature, is_list=False), 1)],
)
def test_pictures_in_every_kind_of_column(
    make: Callable[[Path], tuple[Path, dict[str, str]]], pictures: int, server: FaultServer, tmp_path: Path
) -> None:
    path, task = make(tmp_path / "own")
    report = run_harvest(make_config(path, server, tmp_path / "out", task))
    assert (report.asked, report.failed) == (20, 0)
    kept = read_rows(tmp_path / "out")
    assert {len(hashes) for hashes in kept["image_sha256"]} == {pictures}
    assert all(np.argmax(scores) == 1 for scores in kept["label_logprobs"].to_list())  # the red one comes first
    assert Counter(len(read_pictures(asked)) for asked in server.requests) == {pictures: 20}


def test_a_teacher_that_cannot_see_is_told_before_it_is_paid(
    server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_memes(tmp_path)
    with FaultServer(answer=partial(judge, sees=False)) as blind, pytest.raises(TeacherError, match="--no-pictures"):
        run_harvest(make_config(path, blind, tmp_path / "blind", dialect="auto", scoring="auto"))
    report: Report = run_harvest(make_config(path, server, tmp_path / "out", pictures=False))
    assert "is shown no picture" in capsys.readouterr().err
    assert report.asked == 1  # one text: one question
    assert read_rows(tmp_path / "out")["image_sha256"].null_count() == 12
    with pytest.raises(RecipeMismatchError, match="asked without their pictures, as older versions did"):
        plan_harvest(make_config(path, server, tmp_path / "out"))


def test_a_file_whose_pictures_are_elsewhere_is_refused_before_anything_is_asked(
    server: FaultServer, tmp_path: Path
) -> None:
    path = write_memes(tmp_path)
    shutil.rmtree(tmp_path / "img")
    with pytest.raises(DataError, match=r"none of the pictures .* is there"):
        run_harvest(make_config(path, server, tmp_path / "out"))
    assert not server.count.attempts
