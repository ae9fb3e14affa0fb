"""shared.tasks.files: a user's own files as tasks, and the lookup by name or path."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shared.errors import DataError, SourceError, UsageError
from shared.example import Example, Message
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
        assert name("hf://datasets/org/name/my rows-*.parquet", splits={}) == "my_rows"
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

    @pytest.mark.parametrize("name", TASKS)
    def test_every_known_name(self, name: str) -> None:
        assert find_task(name.upper().replace("_", "-")) is TASKS[name]

    def test_a_near_miss_names_what_is_near(self) -> None:
        with pytest.raises(UsageError, match=r"no task 'mnil'; did you mean mnli.* `harvest tasks` lists"):
            find_task("mnil")
        with pytest.raises(UsageError, match=r"no task 'zzzzzz'; `harvest tasks`"):
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


class TestWritten:
    """Files whose answers are written: choices, prompts and completions, conversations."""

    def write(self, folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
        path = folder / name
        if path.suffix == ".parquet":
            pl.DataFrame(rows).write_parquet(path)
        elif path.suffix == ".csv":
            spelled = [
                {key: json.dumps(value) if key == "nested" else value for key, value in row.items()} for row in rows
            ]
            pl.DataFrame(spelled).write_csv(path)
        elif path.suffix == ".json":
            path.write_text(json.dumps(rows))
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def read(self, path: str, **options: Any) -> dict[str, Example]:
        loaded = load_task(task_from_file(path, **options))
        return {one.sample_id.partition("-")[2]: one for split in loaded.splits for one in loaded.examples(split)}

    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet", "rows.csv"])
    def test_choices_of_any_number(self, name: str, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [
            {"q": "How?", "nested": ["a", "b"], "y": "1"},
            {"q": "Who?", "nested": ["c", "d", "e"], "y": "2"},
            {"q": "Why?", "nested": ["f", "g"], "y": None},
        ]
        path = self.write(tmp_path, name, rows)
        task = task_from_file(path, "q", choices_column="nested", label_column="y")
        assert (task.kind, task.metric, task.answer_rule, task.labels) == ("choice", "accuracy", "choice", ())
        assert task.question.startswith("Which choice is right?")
        found = self.read(path, text_column="q", choices_column="nested", label_column="y")
        assert [(found[i].choices, found[i].label) for i in "012"] == [
            (("a", "b"), 1),
            (("c", "d", "e"), 2),
            (("f", "g"), None),
        ]

    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
    def test_choices_with_names(self, name: str, tmp_path: Path) -> None:
        rows = [
            {"q": "How?", "nested": {"text": ["a", "b"], "label": ["A", "B"]}, "y": "B"},
            {"q": "Who?", "nested": {"text": ["c", "d", "e"], "label": ["1", "2", "3"]}, "y": "1"},
        ]
        path = self.write(tmp_path, name, rows)
        found = self.read(path, text_column="q", choices_column="nested", label_column="y")
        assert [found[i].label for i in "01"] == [1, 0]

    def test_labels_say_what_stands_for_each_choice(self, tmp_path: Path) -> None:
        rows = [{"q": "How?", "c": ["a", "b"], "y": "B"}, {"q": "Who?", "c": ["c", "d"], "y": "A"}]
        path = self.write(tmp_path, "rows.jsonl", rows)
        found = self.read(path, text_column="q", choices_column="c", label_column="y", labels=["A", "B"])
        assert [found[i].label for i in "01"] == [1, 0]
        with pytest.raises(DataError, match=r"row 0: the label names none of the row's choices: 'B'"):
            self.read(path, text_column="q", choices_column="c", label_column="y")

    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet", "rows.csv"])
    def test_conversations(self, name: str, tmp_path: Path) -> None:
        def say(*turns: str) -> list[dict[str, str]]:
            return [{"role": turn.split(": ")[0], "content": turn.split(": ")[1]} for turn in turns]

        rows = [
            {"nested": say("user: Hi", "assistant: Ho")},
            {"nested": say("system: Be brief", "user: Hi", "assistant: What", "user: Go", "assistant: No")},
            {"nested": say("user: Well")},
        ]
        path = self.write(tmp_path, name, rows)
        task = task_from_file(path, messages_column="nested")
        assert (task.kind, task.question, task.metric) == ("generation", "", "rouge_l")
        found = self.read(path, messages_column="nested")
        assert found["0"] == Example("rows-0", "Hi", target_text="Ho", messages=(Message("user", "Hi"),))
        assert found["1"].text == "System: Be brief\n\nUser: Hi\n\nAssistant: What\n\nUser: Go"
        assert (found["1"].target_text, len(found["1"].messages or ())) == ("No", 4)
        assert (found["2"].text, found["2"].target_text) == ("Well", None)

    @pytest.mark.parametrize(
        ("messages", "message"),
        [
            ([{"role": "tool", "content": "a"}], r"row 1: a role is not one of system, user, assistant"),
            ([{"role": "user", "content": None}], "row 1: a message has no content"),
            ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2, None),
            ([{"role": "user", "content": "a"}] + [{"role": "assistant", "content": "b"}] * 2, "answers itself"),
            ([{"role": "assistant", "content": "b"}], "row 1: the text is empty"),
            ([], "row 1: the text is empty"),
            ("Hi", "row 1: 'Hi' in the column 'talk' is not a list of messages"),
            ([{"role": "user", "content": [{"type": "image"}]}], "is not a list of messages"),
        ],
    )
    def test_conversations_that_cannot_be_used(self, messages: Any, message: str | None, tmp_path: Path) -> None:
        good = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        path = self.write(tmp_path, "rows.jsonl", [{"talk": good}, {"talk": messages}])
        if message is None:
            assert len(self.read(path, messages_column="talk")) == 2
        else:
            with pytest.raises(DataError, match=message) as raised:
                self.read(path, messages_column="talk")
            assert path in str(raised.value)

    def test_prompts_and_completions(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "rows.jsonl", [{"prompt": "1 + 1 =", "completion": " 2"}])
        task = task_from_file(path, prompt_column="prompt", completion_column="completion")
        assert (task.kind, task.question, task.metric, task.answer_rule) == ("generation", "", "rouge_l", None)
        found = self.read(path, prompt_column="prompt", completion_column="completion")
        assert found["0"] == Example("rows-0", "1 + 1 =", target_text=" 2")
        judged = find_task(path, prompt_column="prompt", completion_column="completion", answer_rule="number")
        assert (judged.answer_rule, judged.metric) == ("number", "accuracy")

    def test_a_prompt_that_is_a_conversation(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "rows.parquet", [{"prompt": [{"role": "user", "content": "a"}]}])
        with pytest.raises(DataError, match=r"the column 'prompt' holds .* not texts; conversations are named"):
            self.read(path, prompt_column="prompt")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"text_column": "a", "prompt_column": "b"}, "one of them"),
            ({"prompt_column": "a", "messages_column": "b"}, "one of them"),
            ({"text_column": "a", "completion_column": "b"}, "goes with a prompt column"),
            ({"prompt_column": "a", "text_pair_column": "b"}, "goes with a text column"),
            ({"prompt_column": "a", "question": "b"}, "asked as they stand"),
            ({"messages_column": "a", "label_column": "b"}, "asked as they stand"),
            ({"text_column": "a", "choices_column": "b", "target_column": "c"}, "not the column 'c' too"),
            ({"text_column": "a", "choices_column": "b", "label_words": ["c", "d"]}, "each row's choices"),
            ({"label_column": "a"}, "holds the text"),
        ],
    )
    def test_options_that_contradict(self, options: dict[str, Any], message: str, reviews: Path) -> None:
        with pytest.raises(UsageError, match=message):
            task_from_file("reviews.csv", **options)

    def test_an_answer_rule_is_for_written_replies(self, reviews: Path) -> None:
        with pytest.raises(UsageError, match="an answer rule judges written replies; mnli is a classification"):
            find_task("mnli", answer_rule="number")
        with pytest.raises(UsageError, match="no answer rule 'numbers'"):
            find_task("gsm8k", answer_rule="numbers")
