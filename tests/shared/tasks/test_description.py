"""A task of the user's own, described in YAML."""

from pathlib import Path

import pytest

from shared.errors import UsageError
from shared.tasks import LoadedTask, find_task, load_task

ROWS = "\n".join(f"Film {i},body {i},{'01'[i % 2]},{i / 2}" for i in range(20))
BASE = "source: films.csv\ntext: '{title}: {body}'\n"
ASKED = "source: {file}\nprompt_column: body\ncompletion_column: title\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "films.csv").write_text(f"title,body,stars,score\n{ROWS}\n")
    return tmp_path


def load(folder: Path, content: str, **options: str) -> LoadedTask:
    (folder / "mine.yaml").write_text(content)
    return load_task(find_task(str(folder / "mine.yaml"), **options))  # type: ignore[arg-type]


def test_a_task_in_yaml_is_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    content = f"{BASE}label-column: stars\nlabel_words: [no, yes]\nquestion: Is it good?\nmetric: f1\n"
    task = load(folder, content).task
    assert (task.name, task.kind, task.metric, task.question) == ("mine", "classification", "f1", "Is it good?")
    assert (task.labels, task.label_words) == (("0", "1"), ("no", "yes"))  # as written, where YAML has false and true
    assert next(load(folder, content).examples("train")).text == "Film 0: body 0"


def test_files_by_split_and_columns_that_may_be_empty(folder: Path) -> None:
    (folder / "test.csv").write_text("title,body,stars\nLast,,0\nNext,b,1\n")
    sources = "sources: {train: films.csv, validation: films.csv, test: test.csv}\nname: films\n"
    loaded = load(folder, f"{sources}text: '{{title}}'\ntext_pair: '{{body}}'\noptional: [body]\nlabel_column: stars\n")
    assert (loaded.task.name, dict(loaded.splits)) == ("films", {"train": 20, "validation": 20, "test": 2})
    assert [one.text_pair for one in loaded.examples("test")] == [None, "b"]


def test_what_is_given_beside_it_stands_over_it(folder: Path) -> None:
    written = f"{ASKED.format(file='films.csv')}answer_rule: exact\nmetric: rouge_l\nmax_reply_tokens: 9\n"
    task = load(folder, written).task
    assert (task.answer_rule, task.metric, task.max_reply_tokens) == ("exact", "rouge_l", 9)
    assert load(folder, written, answer_rule="number").task.answer_rule == "number"
    (folder / "other.csv").write_text("title,body\na,b\nc,d\n")
    assert sum(load(folder, written, task_file=str(folder / "other.csv")).splits.values()) == 2
    with pytest.raises(UsageError, match="write those there"):
        load(folder, written, label_column="stars")


def test_targets_have_the_range_that_is_said(folder: Path) -> None:
    task = load(folder, f"{BASE}target_column: score\ntarget_range: [0, 10]\n").task
    assert (task.kind, task.target_range) == ("regression", (0.0, 10.0))


def test_a_task_file_is_read_where_the_source_is_gone(folder: Path) -> None:
    (folder / "other.csv").write_text((folder / "films.csv").read_text())
    (folder / "films.csv").unlink()
    assert load(folder, f"{BASE}label_column: stars\n", task_file=str(folder / "other.csv")).task.name == "mine"


def test_a_file_name_that_no_folder_may_bear(folder: Path) -> None:
    (folder / "my task.yaml").write_text(f"{BASE}label_column: stars\n")
    assert find_task(str(folder / "my task.yaml")).name == "my_task"


def test_no_column_of_a_text_is_guessed_to_be_something_else(folder: Path) -> None:
    (folder / "films.csv").write_text("text,label\na,b\nc,d\n")
    with pytest.raises(UsageError, match="name a label column"):
        load(folder, "source: films.csv\ntext: '{text}: {label}'\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{BASE}label_column: stars\nlabel-column: stars\n", "the key label_column stands there twice"),
        (f"{BASE}label_colum: stars\n", "the task has no option label_colum; did you mean label_column?"),
        ("text_column: body\nlabel_column: stars\n", "source is a file or folder, and sources a file for each split"),
        (f"{BASE}text_column: body\nlabel_column: stars\n", "text and text_column say the same"),
        ("source: films.csv\ntext: body\nlabel_column: stars\n", "text is 'body', which names no column"),
        (f"{BASE}optional: [stars]\nlabel_column: stars\n", "optional: 'stars' is no column of text"),
        (f"{BASE}label_column: stars\nmetric: pearson\n", "a classification can have accuracy, f1, matthews"),
        (f"{BASE}label_column: stars\ntarget_range: [0, 1]\n", "target_range belongs to a target_column"),
        (f"{BASE}target_column: score\ntarget_range: [1, 1]\n", "two numbers that differ"),
        (f"{ASKED.format(file='films.csv')}metric: accuracy\n", "which needs an answer_rule"),
        (f"{BASE}label_column: stars\nmax_reply_tokens: many\n", "the task: max_reply_tokens: .*not 'many'"),
        (f"{BASE}answer_rule: wrong\ntarget_text_column: title\n", "wrong"),
        (BASE, "name a label column, a target column"),
        ("- a\n", "it has no keys"),
        ("a: [\n", "not a YAML file that can be read"),
    ],
)
def test_what_cannot_be_is_refused_by_file_and_key(folder: Path, content: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        load(folder, content)
    assert str(raised.value).startswith(str(folder / "mine.yaml"))


def test_a_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        find_task(str(folder / "none.yaml"))
