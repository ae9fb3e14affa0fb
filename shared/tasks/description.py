"""A task of the user's own, described in YAML: where its rows lie, which columns hold what, what a teacher is asked.

source: reviews.csv
text: "{title}: {body}"
label_column: stars
label_words: [bad, good]
metric: f1
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, cast

import yaml

from shared.errors import UsageError
from shared.options import Option, check_options, make_config
from shared.tasks.files import METRICS, FileOptions, spell_name
from shared.tasks.frames import list_template_columns
from shared.tasks.options import TaskOptions
from shared.tasks.task import Source, Task

_SUFFIXES = (".yaml", ".yml")
_ALL_METRICS = tuple(dict.fromkeys(metric for metrics in METRICS.values() for metric in metrics))
_TEXTS = (("text", "text_column"), ("text_pair", "text_pair_column"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDescription(TaskOptions):
    """What a file in YAML says of a task. `source` is as task_from_file takes it; `sources` maps splits to files.

    `text`, `text_pair` and `optional` are as in Source, in the place of a text column and a second one.
    """

    source: Annotated[str | None, Option("A file or folder that holds the rows.")] = None
    sources: Annotated[Mapping[str, str], Option("A file for each split.")] = field(default_factory=dict)
    name: Annotated[str | None, Option("Names the folder of the answers; the file's name, unless given.")] = None
    text: Annotated[str | None, Option("The text made of several columns: '{title}: {body}'.")] = None
    text_pair: Annotated[str | None, Option("A second text made of several columns.")] = None
    optional: Annotated[tuple[str, ...], Option("Columns of the texts that may be empty.")] = ()
    metric: Annotated[str | None, Option(f"How students are compared: {', '.join(_ALL_METRICS)}.")] = None
    target_range: Annotated[tuple[float, float] | None, Option("The least and the greatest target.")] = None

    def __post_init__(self) -> None:
        check_options(self)
        if bool(self.source) == bool(self.sources):
            raise UsageError("source is a file or folder, and sources a file for each split: give one of them")
        for template, column in _TEXTS:
            value = getattr(self, template)
            if value is None:
                continue
            if getattr(self, column):
                raise UsageError(f"{template} and {column} say the same: give one of them")
            if not list_template_columns(value):
                raise UsageError(
                    f"{template} is {value!r}, which names no column: write columns in braces, as {{body}}"
                )
        if unknown := [name for name in self.optional if name not in self.columns]:
            raise UsageError(f"optional: {unknown[0]!r} is no column of text or text_pair")
        if self.target_range and not self.target_range[0] < self.target_range[1]:
            raise UsageError("target_range is [least, greatest], two numbers that differ")

    @property
    def columns(self) -> list[str]:
        """The columns of the texts that are made of several."""
        return [name for template in (self.text, self.text_pair) for name in list_template_columns(template or "")]

    def list_file_options(self) -> FileOptions:
        """What task_from_file takes of it; a text made of several columns is named by the first of them."""
        given = {name: getattr(self, name) for name in FileOptions.__annotations__}
        for template, column in _TEXTS:
            if (value := getattr(self, template)) is not None:
                given[column] = list_template_columns(value)[0]
        return cast(FileOptions, given)

    def complete(self, task: Task) -> Task:
        """The task of its files with all that files do not say: texts of several columns, metric, target range.

        Raises UsageError for what does not go with the kind of the task.
        """
        if self.metric is not None:
            if self.metric not in METRICS[task.kind]:
                raise UsageError(f"metric is {self.metric}; a {task.kind} can have {', '.join(METRICS[task.kind])}")
            if (self.metric, task.kind, task.answer_rule) == ("accuracy", "generation", None):
                raise UsageError("metric is accuracy, which needs an answer_rule: a rule says when a reply is right")
            task = replace(task, metric=self.metric)
        if self.target_range is not None:
            if task.kind != "regression":
                raise UsageError(f"target_range belongs to a target_column; this is a {task.kind}")
            task = replace(task, target_range=self.target_range)
        return replace(task, sources=tuple(map(self._complete_source, task.sources)))

    def _complete_source(self, source: Source) -> Source:
        text, pair = self.text or source.text, self.text_pair or source.text_pair
        return replace(source, text=text, text_pair=pair, optional=self.optional)


def is_description(path: str) -> bool:
    """Whether a path is, by its name's ending, a task in YAML."""
    return path.lower().endswith(_SUFFIXES)


def read_description(path: str, make: Callable[[TaskDescription], Task]) -> Task:
    """The task that `make` makes of what the YAML file at `path` says. Relative paths in it are from its folder.

    Raises UsageError that names the file and the key.
    """
    try:
        description = make_config(TaskDescription, _read_yaml(Path(path)), "the task")
        return make(_locate(description, Path(path)))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _read_yaml(path: Path) -> Mapping[str, Any]:
    """The keys of a file in YAML, scalars as they are written: a label `no` is that text, and not false."""
    try:
        content = yaml.load(path.expanduser().read_text(encoding="utf-8"), yaml.BaseLoader)
    except FileNotFoundError:
        raise UsageError("there is no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"this is not a YAML file that can be read: {error}") from None
    if not isinstance(content, Mapping):
        raise UsageError("this is not a task: it has no keys. A task has a source: reviews.csv, and columns")
    keys = [str(key).replace("-", "_") for key in content]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UsageError(f"the key {twice[0]} stands there twice, with '-' and with '_': keep one of them")
    return {key: value for key, value in zip(keys, content.values(), strict=True) if value != ""}


def _locate(description: TaskDescription, path: Path) -> TaskDescription:
    folder = path.expanduser().parent
    source = None if description.source is None else _join(folder, description.source)
    sources = {split: _join(folder, file) for split, file in description.sources.items()}
    return replace(description, source=source, sources=sources, name=description.name or spell_name(path.stem))


def _join(folder: Path, path: str) -> str:
    return path if "://" in path else str(folder / Path(path).expanduser())
