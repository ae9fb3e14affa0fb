"""Table recipes: the same experiment for each of several tasks and students, beside published scores.

    name: armada-understanding
    harvest: {teacher: diffusion, ask: [train]}            # of every task
    compare: {seeds: [0, 1, 2], variants: {...}}           # of every task and student
    table:
      tasks:                                               # what a task changes of the two, its name first
        cola: {compare: {common: {batch_size: 32}}}
        mine: {harvest: {task: reviews.csv, text_column: text}}
      students:                                            # options of `distill run`
        BERT-6L: {student: bert-base-uncased, student_layers: 6}
      published:
        source: where the scores are from
        scores: {BERT-6L: {undistilled: {cola: 42.8}}}     # by student, variant and task, in hundredths of the metric

Each task and student is an ordinary recipe, whose comparison is <task>-<student>.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.recipe import COMPARE, HARVEST, TABLE, Recipe, check_keys, check_mapping
from shared.errors import UsageError
from shared.shards.manifest import check_name
from shared.suggestions import suggest

TASKS, STUDENTS, PUBLISHED = TABLE_KEYS = ("tasks", "students", "published")
SOURCE, SCORES = PUBLISHED_KEYS = ("source", "scores")
ONE_TASK = ("task", "out")  # options of a harvest that no two tasks can share
_MERGED = ("common", "choices", "variants")  # keys of a comparison that a task changes name by name


@dataclass(frozen=True, slots=True)
class Published:
    """Scores that others reported, by student, variant and task, in hundredths of the metric; and their source."""

    source: str
    scores: Mapping[tuple[str, str, str], float]


@dataclass(frozen=True, slots=True)
class Entry:
    """One task and one student of a table, and their recipe."""

    task: str
    student: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Table:
    """A table recipe: `entries` are task by task, all students of a task one after the other."""

    name: str
    entries: tuple[Entry, ...]
    published: Published | None


def make_table(recipe: Recipe, tasks: Sequence[str] = (), students: Sequence[str] = ()) -> Table:
    """Make a table of a recipe that has one; of `tasks` and `students` only, where any are named.

    Raises UsageError that names the file and the key. The recipes of the entries are checked when they are used.
    """
    if recipe.table is None:
        raise UsageError(f"{recipe.place} has no {TABLE}, whose tasks and students could be chosen among")
    owner = f"{recipe.place}: {TABLE}"
    check_name(f"{recipe.place}: the table's name", recipe.name)
    check_keys(owner, recipe.table, TABLE_KEYS, (TASKS, STUDENTS))
    for option in ONE_TASK:
        if option in recipe.harvest:
            raise UsageError(
                f"{recipe.place}: {HARVEST} has no option {option} beside a {TABLE}: give it at {TABLE}.{TASKS}"
            )
    all_tasks, all_students = (_check_parts(f"{owner}.{key}", recipe.table[key]) for key in (TASKS, STUDENTS))
    for name, changes in all_tasks.items():
        check_keys(f"{owner}.{TASKS}.{name}", changes, (HARVEST, COMPARE))
    published = _read_published(owner, recipe.table.get(PUBLISHED), recipe, all_tasks, all_students)
    entries = tuple(
        Entry(task, student, _make_recipe(recipe, task, all_tasks[task], student, all_students[student]))
        for task in _choose(owner, TASKS, all_tasks, tasks)
        for student in _choose(owner, STUDENTS, all_students, students)
    )
    return Table(recipe.name, entries, published)


def _check_parts(owner: str, value: Any) -> Mapping[str, Mapping[str, Any]]:
    """Give back what must be a mapping of names to mappings; a name without a value has an empty one."""
    parts = check_mapping(owner, value)
    if not parts:
        raise UsageError(f"{owner} is empty; give one or more by name")
    if strange := [name for name in parts if not isinstance(name, str)]:
        raise UsageError(f"{owner}: the name {strange[0]!r} is no text; put it in quotes")
    return {name: {} if part is None else check_mapping(f"{owner}.{name}", part) for name, part in parts.items()}


def _choose(owner: str, key: str, known: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    for name in wanted:
        if name not in known:
            raise UsageError(f"{owner}.{key} has no {name}; {suggest(name, known)}")
    return [name for name in known if not wanted or name in wanted]


def _make_recipe(
    recipe: Recipe, task: str, changes: Mapping[str, Any], student: str, options: Mapping[str, Any]
) -> Recipe:
    owner = f"{recipe.place}: {TABLE}.{TASKS}.{task}"
    harvest = check_mapping(f"{owner}.{HARVEST}", changes.get(HARVEST, {}))
    compare = check_mapping(f"{owner}.{COMPARE}", changes.get(COMPARE, {}))
    return Recipe(
        place=f"{recipe.place}: {task}, {student}",
        name=f"{task}-{student}",
        harvest={**recipe.harvest, "task": task, **harvest},
        compare=_merge(_merge(recipe.compare, compare), {"common": options}),
    )


def _merge(compare: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Put the keys of a comparison that change it over its own; of some, name by name, where a null takes one out."""
    merged = {**compare, **changes}
    for key in _MERGED:
        parts = [content[key] for content in (compare, changes) if key in content]
        if wrong := [part for part in parts if not isinstance(part, Mapping)]:
            merged[key] = wrong[0]  # make_comparison refuses it
        elif len(parts) == 2:
            both = {**parts[0], **parts[1]}
            merged[key] = {name: value for name, value in both.items() if value is not None or name not in parts[1]}
    return merged


def _read_published(
    owner: str,
    content: Any,
    recipe: Recipe,
    tasks: Mapping[str, Any],
    students: Mapping[str, Any],
) -> Published | None:
    """Read published scores; a student, variant or task that the table does not have would never be shown."""
    if content is None:
        return None
    owner = f"{owner}.{PUBLISHED}"
    content = check_mapping(owner, content)
    check_keys(owner, content, PUBLISHED_KEYS, PUBLISHED_KEYS)
    variants = recipe.compare.get("variants") or {}
    scores = {}
    by_student = _check_parts(f"{owner}.{SCORES}", content[SCORES])
    check_keys(f"{owner}.{SCORES}", by_student, list(students))
    for student, by_variant in by_student.items():
        check_keys(f"{owner}.{SCORES}.{student}", by_variant, list(variants))
        for variant, by_task in by_variant.items():
            place = f"{owner}.{SCORES}.{student}.{variant}"
            check_keys(place, check_mapping(place, by_task), list(tasks))
            for task, score in by_task.items():
                if isinstance(score, bool) or not isinstance(score, int | float):
                    raise UsageError(f"{place}.{task} is {score!r}; it must be a number")
                scores[student, variant, task] = float(score)
    return Published(str(content[SOURCE]), scores)
