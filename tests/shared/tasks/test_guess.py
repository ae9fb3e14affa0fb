"""Columns of a user's file that are not named."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.errors import UsageError
from shared.tasks import find_task, load_task

MESSAGES = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}]


def write(folder: Path, row: Mapping[str, Any]) -> str:
    """A file of rows that have the keys and the types of `row`."""
    path = folder / "rows.jsonl"
    rows = [{key: f"{value} {i}" if isinstance(value, str) else value for key, value in row.items()} for i in range(9)]
    for i, one in enumerate(rows):
        one |= {key: ("good", "bad")[i % 2] for key in ("label", "stars") if key in one}
        one |= {"score": i / 2} if "score" in one else {}
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


@pytest.mark.parametrize(
    ("row", "options", "guessed"),
    [
        ({"review": "a", "stars": "b"}, {"label_column": "stars"}, {"text_column": "review"}),
        ({"id": 1, "review": "a"}, {"labels": ["good", "bad"]}, {"text_column": "review"}),
        ({"review": "a"}, {"question": "Who made it?"}, {"text_column": "review"}),
        ({"text": "a", "title": "b", "label": "c"}, {}, {"text_column": "text", "label_column": "label"}),
        ({"review": "a", "label": "c"}, {}, {"text_column": "review", "label_column": "label"}),
        ({"review": "a", "label": "c"}, {"text_column": "review"}, {"label_column": "label"}),
        ({"review": "a", "score": 0.5}, {"target_column": "score"}, {"text_column": "review"}),
        ({"prompt": "a", "completion": "b"}, {}, {"prompt_column": "prompt", "completion_column": "completion"}),
        ({"messages": MESSAGES, "source": "x"}, {}, {"messages_column": "messages"}),
        ({"prompt": "a", "completion": "b"}, {"prompt_column": "prompt"}, {"completion_column": "completion"}),
        ({"prompt": "a", "completion": "b"}, {"completion_column": "completion"}, {"prompt_column": "prompt"}),
        ({"messages": MESSAGES, "text": "a"}, {"labels": ["good", "bad"]}, {"text_column": "text"}),
        ({"messages": MESSAGES, "text": "a"}, {"question": "Who made it?"}, {"text_column": "text"}),
        (
            {"messages": MESSAGES, "text": "a", "options": ["x", "y"], "label": "c"},
            {"choices_column": "options", "labels": ["good", "bad"]},
            {"text_column": "text", "label_column": "label"},
        ),
        (
            {"prompt": "p", "completion": "c", "text": "a", "title": "b", "label": "c"},
            {"text_pair_column": "title"},
            {"text_column": "text", "label_column": "label"},
        ),
    ],
)
def test_what_leaves_one_choice_is_guessed_and_said(
    tmp_path: Path, row: Mapping[str, Any], options: dict[str, Any], guessed: dict[str, Any]
) -> None:
    path = write(tmp_path, row)
    loaded, named = load_task(find_task(path, **options)), load_task(find_task(path, **options, **guessed))
    assert (loaded.task.kind, loaded.task.labels) == (named.task.kind, named.task.labels)
    assert list(loaded.examples("train")) == list(named.examples("train"))
    said = ", ".join(f"{option.replace('_', ' ')} {column!r}" for option, column in guessed.items())
    assert loaded.notes == (f"guessed: {said}; name others if that is wrong", *named.notes)


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"review": "a", "stars": "b"}, {}, "holds the text; it has: review, stars"),
        ({"review": "a", "title": "b"}, {"labels": ["x", "y"]}, "holds the text; it has: review, title"),
        ({"review": "a", "stars": "b"}, {"text_column": "review"}, "Beside the text .* has: stars"),
        ({"review": "a"}, {}, "Beside the text .* has: no other column"),
    ],
)
def test_what_leaves_several_is_refused_with_the_columns(
    tmp_path: Path, row: Mapping[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        find_task(write(tmp_path, row), **options)


def test_labels_to_ask_for_leave_a_column_of_that_name_alone(tmp_path: Path) -> None:
    path = write(tmp_path, {"review": "a", "label": "b"})
    task = find_task(path, text_column="review", labels=["fine", "poor"])
    assert (task.sources[0].label, task.labels) == (None, ("fine", "poor"))
