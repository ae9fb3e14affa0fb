"""Recipes: one experiment in YAML, from the questions to the teacher to the students that are compared.

    name: demo
    harvest: {task: rotten_tomatoes, teacher: reader}
    compare: {seeds: [0, 1, 2], common: {epochs: 1}}

`harvest` holds the options of `harvest run`, the teacher's own among them. `compare` holds the keys of a plan of
`distill compare`, but for its name, shards and teacher, which follow from the rest. The classes behind those commands
check both. A third key, `table`, makes of it an experiment for each of several tasks and students (pipelines.table).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import UsageError
from shared.options import parse_assignment
from shared.suggestions import suggest
from shared.yaml_files import read_mapping

NAME, HARVEST, COMPARE, TABLE = KEYS = ("name", "harvest", "compare", "table")
NEEDED = (NAME, HARVEST, COMPARE)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe as it is written. `place` says where, for messages; the stages check the mappings."""

    place: str
    name: str
    harvest: Mapping[str, Any]
    compare: Mapping[str, Any]
    table: Mapping[str, Any] | None = None


def split_assignments(texts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Split NAME=VALUE texts into options of every student, as texts, and options of the harvest, by name.

    harvest.NAME=VALUE is one of the harvest, its value as YAML reads it. Raises UsageError.
    """
    students, harvest = [], {}
    for text in texts:
        try:
            name, value = parse_assignment(text)
        except ValueError as error:
            raise UsageError(f"--set {text}: {error}") from None
        part, dot, own = name.partition(".")
        if not dot:
            students.append(text)
        elif part == HARVEST and own:
            harvest[own.replace("-", "_")] = value
        else:
            raise UsageError(f"--set {text}: give NAME=VALUE for the students, or harvest.NAME=VALUE for the harvest")
    return students, harvest


def read_recipe(path: Path) -> Recipe:
    """Read the recipe in a YAML file. Raises UsageError that names the file and the key."""
    content = read_mapping(path, "recipe")
    if "distill" in content:
        raise UsageError(
            f"{path} has the key distill, of an older version: it is {COMPARE} now, where labels stands beside seeds "
            "and not in common (see docs/compare.md)"
        )
    check_keys(str(path), content, KEYS, NEEDED)
    if not isinstance(content[NAME], str):
        raise UsageError(f"{path}: name is {content[NAME]!r}; give a word, which names the folder of the comparison")
    parts = {key: check_mapping(f"{path}: {key}", content[key]) for key in (HARVEST, COMPARE, TABLE) if key in content}
    return Recipe(str(path), content[NAME], **parts)


def check_keys(owner: str, content: Mapping[Any, Any], known: Sequence[str], needed: Sequence[str] = ()) -> None:
    """Raise UsageError, naming the key, unless a mapping has keys of `known` only, and all that are `needed`."""
    for key in content:
        if key not in known:
            raise UsageError(f"{owner} has no key {key}; {suggest(str(key), known)}")
    if missing := [key for key in needed if key not in content]:
        raise UsageError(f"{owner} needs the {'key' if len(missing) == 1 else 'keys'} {', '.join(missing)}")


def check_mapping(label: str, value: Any) -> Mapping[str, Any]:
    """Give the value back where it is a mapping of options to values. Raises UsageError that begins with `label`."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{label} is {value!r}; it must be a mapping of options to values")
    return value
