"""shared.tasks.files: a user's own files as tasks, and the lookup by name or path."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shared.errors import DataError, SourceError, UsageError
from shared.tasks import TASKS, find_task, load_task, task_from_file


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "reviews.csv"
    file.write_text("id,body,title,stars,score\na,Good film,One,10,0.5\nb,Bad film,Two,9,-1\nc,Fair film,Three,,\n")
    return file


class TestTaskFromFile:
    def test_labels_are_found_and_sorted_by_value(self, reviews: Path) -> None:
        loaded = load_task(task_from_file("reviews.csv", "body", "title", label_column="stars", id_column="id"))
        task = loaded.task
        assert (task.name, task.kind, task.metric) == ("reviews", "classification", "accuracy")
        assert task.labels == task.label_words == ("9", "10")
        assert task.question == "Which label fits this text? Answer 9 or 10."
        examples = {e.sample_id: e for split in loaded.splits for e in loaded.examples(split)}
        assert (examples["a"].text, examples["a"].text_pair, examples["a"].label) == ("Good film", "One", 1)
        assert examples["c"].label is None
        assert loaded.source == "reviews.csv"

    def test_labels_and_words_that_are_given_keep_their_order(self, reviews: Path) -> None:
        task = task_from_file(
            "reviews.csv",
            "body",
            label_column="stars",
            labels=["10", "9", "8"],
            label_words=["great", "good", "fine"],
            question="How good?",
            name="films",
        )
        loaded = load_task(task)
        assert (loaded.task.name, loaded.task.question) == ("films", "How good?")
        assert (loaded.task.labels, loaded.task.label_words) == (("10", "9", "8"), ("great", "good", "fine"))
        assert sorted(e.label for s in loaded.splits for e in loaded.examples(s) if e.label is not None) == [0, 1]

    def test_words_for_labels_that_are_found_must_be_as_many(self, reviews: Path) -> None:
        with pytest.raises(DataError, match=r"3 label words for 2 labels \(9, 10\)"):
            load_task(task_from_file("reviews.csv", "body", label_column="stars", label_words=["a", "b", "c"]))

    def test_a_target_column_makes_a_regression(self, reviews: Path) -> None:
        loaded = load_task(task_from_file("reviews.csv", "body", target_column="score"))
        assert (loaded.task.kind, loaded.task.metric, loaded.task.labels) == ("regression", "pearson", ())
        assert loaded.task.target_range == (-1.0, 0.5)
        assert loaded.task.question.endswith("from -1 to 0.5.")
        targets = {e.text: e.target for s in loaded.splits for e in loaded.examples(s)}
        assert targets == {"Good film": 0.5, "Bad film": -1.0, "Fair film": None}

    def test_a_column_of_target_texts_makes_a_generation(self, reviews: Path) -> None:
        loaded = load_task(task_from_file("reviews.csv", "body", target_text_column="title"))
        assert (loaded.task.kind, loaded.task.metric, loaded.task.labels) == ("generation", "exact_match", ())
        assert loaded.task.question.startswith("Which text answers this one?")
        examples = [e for s in loaded.splits for e in loaded.examples(s)]
        assert sorted(e.target_text or "" for e in examples) == ["One", "Three", "Two"]
        assert {(e.label, e.target, e.references) for e in examples} == {(None, None, None)}

    def test_a_question_alone_asks_for_free_text(self, reviews: Path) -> None:
        loaded = load_task(task_from_file("reviews.csv", "body", question="Who made it?"))
        assert (loaded.task.kind, loaded.task.question) == ("generation", "Who made it?")
        assert {e.target_text for s in loaded.splits for e in loaded.examples(s)} == {None}

    def test_lists_of_texts_are_references(self, tmp_path: Path) -> None:
        path = tmp_path / "news.parquet"
        pl.DataFrame({"text": ["a", "b", "c"], "right": [["x", "y"], ["z"], None]}).write_parquet(path)
        loaded = load_task(task_from_file(str(path), "text", target_text_column="right"))
        found = {e.text: (e.target_text, e.references) for s in loaded.splits for e in loaded.examples(s)}
        assert found == {"a": ("x", ("x", "y")), "b": ("z", ("z",)), "c": (None, None)}

    def test_rows_without_labels(self, reviews: Path) -> None:
        loaded = load_task(task_from_file("reviews.csv", "body", labels=["good", "bad"]))
        assert loaded.task.labels == ("good", "bad")
        assert {e.label for s in loaded.splits for e in loaded.examples(s)} == {None}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"label_column": "stars", "target_column": "score"}, "one of them"),
            ({"target_column": "score", "labels": ["a", "b"]}, "has no labels"),
            ({"question": "?", "label_words": ["a", "b"]}, "label words belong to labels"),
            ({}, "name a label column, a target column or a column of target texts"),
            ({"label_column": "stars", "labels": ["a"]}, "two or more"),
            ({"label_column": "stars", "labels": ["a", "a"]}, "differ from each other"),
            ({"label_column": "stars", "label_words": ["a", "a"]}, "differ from each other"),
            ({"label_column": "stars", "labels": ["a", "b"], "label_words": ["x", "y", "z"]}, "3 label words for 2"),
            ({"label_column": "stars", "text_pair_column": "a{b}"}, "holds a brace"),
        ],
    )
    def test_options_that_contradict(self, options: dict[str, Any], message: str, reviews: Path) -> None:
        with pytest.raises(UsageError, match=message):
            task_from_file("reviews.csv", "body", **options)

    def test_names(self, reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def name(path: str, **options: Any) -> str:
            return task_from_file(path, "body", label_column="stars", **options).name

        reviews.rename("train.csv")
        assert name(".") == name("./") == reviews.parent.name
        assert name("train.csv") == "train"
        assert name("hf://datasets/org/name/my rows-*.parquet") == "my_rows"
        with pytest.raises(UsageError, match="becomes a folder's"):
            name("train.csv", name="a/b")

    def test_a_missing_file_and_an_unknown_ending(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="no file"):
            task_from_file(str(tmp_path / "nothing.csv"), "text", label_column="label")
        (tmp_path / "rows.xlsx").touch()
        with pytest.raises(DataError, match=r"must end in \.parquet, \.jsonl"):
            load_task(task_from_file(str(tmp_path / "rows.xlsx"), "text", label_column="label"))


class TestFolders:
    def write(self, folder: Path, *names: str) -> None:
        for name in names:
            (folder / name).write_text("".join(f'{{"t": "{name} {i}", "y": {i % 2}}}\n' for i in range(40)))

    def load(self, folder: Path) -> Any:
        return load_task(task_from_file(str(folder), "t", label_column="y"))

    def test_a_folder_of_splits(self, tmp_path: Path) -> None:
        self.write(tmp_path, "train.jsonl", "dev.jsonl", "test.jsonl")
        (tmp_path / "notes.txt").touch()
        loaded = self.load(tmp_path)
        assert loaded.splits == {"train": 40, "validation": 40, "test": 40}
        example = next(loaded.examples("validation"))
        assert (example.sample_id, example.text) == ("validation-0", "dev.jsonl 0")
        assert loaded.task.name == tmp_path.name
        assert loaded.source == str(tmp_path)

    def test_several_files_a_split_are_numbered_through(self, tmp_path: Path) -> None:
        self.write(tmp_path, "train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "validation.jsonl")
        loaded = self.load(tmp_path)
        assert [example.sample_id for example in loaded.examples("train")] == [f"train-{i}" for i in range(80)]

    @pytest.mark.parametrize("second", ["train.csv", "train-1.jsonl"])
    def test_two_files_that_claim_one_split(self, second: str, tmp_path: Path) -> None:
        self.write(tmp_path, "train.jsonl", second)
        with pytest.raises(DataError, match="more than one file for the train split"):
            self.load(tmp_path)

    def test_no_train_file(self, tmp_path: Path) -> None:
        self.write(tmp_path, "rows.jsonl")
        with pytest.raises(DataError, match=r"no train file; it has: rows\.jsonl"):
            self.load(tmp_path)


class TestFindTask:
    @pytest.mark.parametrize("written", ["sst2", "SST-2", "sst_2"])
    def test_by_name(self, written: str) -> None:
        assert find_task(written) is TASKS["sst2"]

    def test_all_names(self) -> None:
        assert [find_task(name).name for name in TASKS] == list(TASKS)
        assert set(TASKS) == {
            *("cola", "stsb", "mrpc", "rte", "sst2", "mnli", "qnli", "qqp"),
            *("cb", "copa", "boolq", "wic", "rotten_tomatoes"),
        }

    def test_a_near_miss_names_what_is_near(self) -> None:
        with pytest.raises(UsageError, match=r"no task 'mnil'; did you mean mnli.*Known tasks: cola, stsb"):
            find_task("mnil")
        with pytest.raises(UsageError, match=r"no task 'zzzzzz'\. Known tasks"):
            find_task("zzzzzz")

    def test_by_path(self, reviews: Path) -> None:
        assert find_task("reviews.csv", text_column="body", label_column="stars") == task_from_file(
            "reviews.csv", "body", label_column="stars"
        )
        with pytest.raises(UsageError, match="holds the text"):
            find_task("reviews.csv", label_column="stars")

    def test_a_known_name_wins_over_a_folder_unless_it_is_written_as_a_path(self, reviews: Path) -> None:
        folder = reviews.parent / "cola"
        folder.mkdir()
        (folder / "train.csv").write_text(reviews.read_text())
        assert find_task("cola") is TASKS["cola"]
        assert find_task("./cola", text_column="body", label_column="stars").name == "cola"
        with pytest.raises(UsageError, match=r"cola is a known task.*write \./cola"):
            find_task("cola", text_column="body")
