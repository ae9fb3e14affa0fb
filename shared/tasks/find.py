"""The lookup of a task by the name or path given on a command line."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

from shared.answers import find_rule
from shared.errors import UsageError
from shared.suggestions import hint
from shared.tasks.catalogue import TASKS
from shared.tasks.description import TaskDescription, is_description, read_description
from shared.tasks.files import FileOptions, task_from_file
from shared.tasks.guess import guess_columns
from shared.tasks.splits import find_splits
from shared.tasks.tables import is_table
from shared.tasks.task import Task


def find_task(
    name_or_path: str,
    *,
    task_file: str | None = None,
    answer_rule: str | None = None,
    max_reply_tokens: int | None = None,
    **options: Unpack[FileOptions],
) -> Task:
    """The task of that name, or one made of the file or folder of that path, with the options of task_from_file.

    A path that ends in .yaml is a task of the user's own, described there.

    A known name wins over a folder of the same name; `./name` is always a path. Case, `-` and `_` make no
    difference. Columns of a file that are not named are guessed where it leaves one choice. `task_file` is a file or
    folder that a known task is read from instead of its own sources. `answer_rule` and `max_reply_tokens` are as in
    Task, in the place of the task's own. Raises UsageError for a name that is not known, and for options given with a
    known name.
    """
    simple = name_or_path.lower().replace("-", "").replace("_", "")
    known = {key.replace("_", ""): task for key, task in TASKS.items()}
    if simple in known:
        if any(value not in (None, False) for value in options.values()):
            raise UsageError(
                f"{known[simple].name} is a known task, with its own columns, labels and question: "
                f"those options are for a file or folder (write ./{name_or_path} for one of that name)"
            )
        task = known[simple] if task_file is None else _read_from(known[simple], task_file)
    elif is_description(name_or_path):
        if any(value not in (None, False) for value in options.values()):
            raise UsageError(f"{name_or_path} is a task with its own columns, labels and question: write those there")
        task = read_description(name_or_path, partial(_make_described, task_file=task_file))
    elif task_file is not None:
        raise UsageError(f"a task file is one that a known task is read from; {name_or_path} is none")
    elif "/" in name_or_path or is_table(Path(name_or_path)) or Path(name_or_path).exists():
        task = _make_task(name_or_path, options)
    else:
        meant = hint(simple, known, lambda key: known[key].name, most=3)
        raise UsageError(
            f"there is no task {name_or_path!r}; {meant}`harvest tasks` lists those there are. A file or folder of "
            "your own is a task too: give its path"
        )
    return _set_replies(task, answer_rule, max_reply_tokens)


def _make_described(description: TaskDescription, task_file: str | None) -> Task:
    """The task of the files that a description names, or of `task_file`, and of what it says of them."""
    if task_file is not None:  # before those it names are opened: they may be gone
        description = replace(description, source=task_file, sources={})
    path = description.source or next(iter(description.sources.values()))
    task = _make_task(path, description.list_file_options(), description.sources, description.columns)
    return description.complete(_set_replies(task, description.answer_rule, description.max_reply_tokens))


def _make_task(
    path: str, options: FileOptions, splits: Mapping[str, str] | None = None, used: Collection[str] = ()
) -> Task:
    """The task of a file or folder, with the columns that are not named where the file leaves one choice."""
    splits = splits or find_splits(path)
    guess = guess_columns(path, splits, options, used)
    chosen: FileOptions = {**options, **guess.columns}
    task = task_from_file(path, **chosen, splits=splits)
    return replace(task, sources=tuple(replace(source, note=guess.note) for source in task.sources))


def _read_from(task: Task, path: str) -> Task:
    """The task with a file or folder of the user's as its only source.

    Its columns are those of the source that lies on no hub, where there is one, else of the task's first.
    """
    first = next((source for source in task.sources if source.own_file), task.sources[0])
    is_one = first.own_file and not Path(path).expanduser().is_dir()
    splits = dict.fromkeys(first.splits, path) if is_one else find_splits(path)
    return replace(task, sources=(replace(first, splits=splits, rows=first.rows if first.own_file else {}),))


def _set_replies(task: Task, answer_rule: str | None, max_reply_tokens: int | None) -> Task:
    """The task with the rule by which replies are judged, and their length, where the user gave them."""
    if answer_rule is not None:
        if task.kind not in ("choice", "generation"):
            raise UsageError(f"an answer rule judges written replies; {task.name} is a {task.kind}")
        task = replace(task, answer_rule=find_rule(answer_rule).name, metric="accuracy")
    return task if max_reply_tokens is None else replace(task, max_reply_tokens=max_reply_tokens)
