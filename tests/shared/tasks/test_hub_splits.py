"""A data set of the hub by its id: its splits are found from its files, its columns guessed or named."""

import io

import polars as pl
import pytest

from shared.errors import DataError, SourceError
from shared.tasks import LoadedTask, find_task, load_task
from tests.shared.hub_server import COMMIT, Hub
from tests.shared.hub_server import hub as hub
from tests.shared.hub_server import own_folders as own_folders

ROOT = "hf://datasets/org/data"


def make_rows(split: str, rows: int = 4) -> pl.DataFrame:
    labels = [("bad", "good")[i % 2] for i in range(rows)]
    return pl.DataFrame({"text": [f"{split} {i}" for i in range(rows)], "label": labels})


def make_file(name: str) -> bytes:
    """A file whose format is its name's ending, or a text for a reader."""
    if name.endswith(".parquet"):
        buffer = io.BytesIO()
        make_rows(name).write_parquet(buffer)
        return buffer.getvalue()
    return make_rows(name).write_csv().encode() if name.endswith(".csv") else b"# Card"


def offer(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(Hub, "files", {name: make_file(name) for name in (".gitattributes", "README.md", *names)})


def load(path: str) -> LoadedTask:
    return load_task(find_task(path))


@pytest.mark.parametrize(
    ("names", "path", "splits", "name"),
    [
        (("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"), "", "train test", "data"),
        (("data/train-0-of-2.parquet", "data/train-1-of-2.parquet", "data/dev-0.parquet"), "", "train=8 dev", "data"),
        (("train.csv", "valid.csv", "test.csv"), "", "train valid test", "data"),
        (("one/train-0.parquet", "one/test-0.parquet", "two/train-0.parquet"), "/one", "train test", "data_one"),
        (("one/train/0000.parquet", "one/test/0000.parquet"), "/one", "train test", "data_one"),
        (("one/train/0.parquet", "one/test/0.parquet"), "@refs%2Fconvert%2Fparquet/one", "train test", "data_one"),
        (("raw/train-0.parquet", "raw/test-0.csv", "raw/test-1.csv"), "/raw/*.parquet", "train", "data_raw"),
        (("raw/a.csv", "raw/b.csv", "c.csv"), "/raw/*.csv", "all=8", "data_raw"),
        (("one/train.parquet", "two/train.parquet", "one/test.parquet"), "/*/train.parquet", "all=8", "train"),
        (("reviews.csv", "dataset_infos.json"), "", "all", "data"),
        (("raw/a.csv", "raw/b.csv"), "/raw/b.csv", "all", "b"),
    ],
)
def test_splits_are_found_from_the_files(
    hub: str, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], path: str, splits: str, name: str
) -> None:
    offer(monkeypatch, *names)
    loaded = load(f"{ROOT}{path}")
    there = dict(one.partition("=")[::2] for one in splits.split())
    rows = {{"dev": "validation", "valid": "validation"}.get(one, one): int(n or 4) for one, n in there.items()}
    assert loaded.task.name == name
    assert sum(loaded.splits.values()) == sum(rows.values())
    if {"train", "test"} <= set(rows):
        assert loaded.splits["test"] == rows["test"]
    assert f"at commit {COMMIT}" in loaded.source


@pytest.mark.parametrize(
    ("names", "path", "message"),
    [
        (
            ("one/train-0.parquet", "two/train/0.csv"),
            "",
            "has several sets; name one, as .*/data/one. It has: one, two",
        ),
        (("one/a.csv", "two/b.csv"), "", "no train file; name a file, as .*/data/one/a.csv. It has: one/a.csv, two/b"),
        (("load.py",), "", "no Parquet, JSON or CSV file. .*: hf://datasets/org/data@refs%2Fconvert%2Fparquet$"),
        (("one/train.csv",), "/two", "no such file or folder; it has: .gitattributes, README.md, one/train.csv"),
        (("one/train.csv",), "/two/*.csv", "no such file or folder"),
    ],
)
def test_what_leaves_no_choice_says_what_there_is(
    hub: str, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], path: str, message: str
) -> None:
    offer(monkeypatch, *names)
    with pytest.raises(SourceError, match=message):
        load(f"{ROOT}{path}")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("train-0.csv", "val-0.csv", "dev-0.csv"),
            "more than one file for the validation split: dev-0",
        ),
        (("train/0.csv", "dev/0.csv", "validation/0.csv"), "more than one folder for .* split: validation, dev"),
    ],
)
def test_two_names_for_one_split_are_refused(
    hub: str, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], message: str
) -> None:
    offer(monkeypatch, *names)
    with pytest.raises(DataError, match=message):
        load(ROOT)


def test_a_data_set_that_the_hub_has_not(hub: str) -> None:
    with pytest.raises(SourceError, match=r"the hub gives no such data set.*Check the spelling"):
        load("hf://datasets/org/none")
    with pytest.raises(SourceError, match="not of the form"):
        load("hf://org/none")


def test_without_a_network_the_cache_is_read_or_the_download_named(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "data/train-0.parquet", "data/test-0.parquet")
    online = load(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = load(ROOT)
    assert (offline.splits, offline.source) == (online.splits, online.source)
    message = "HF_HUB_OFFLINE is set. Where there is a network, run: hf download --repo-type dataset org/other. Without"
    with pytest.raises(SourceError, match=message) as raised:
        load("hf://datasets/org/other")
    assert "\n" not in str(raised.value)
