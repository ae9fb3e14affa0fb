"""A recipe in YAML: one harvest, then variants of a distillation over some seeds. Checked before anything runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shared.errors import UsageError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HarvestStep(_Strict):
    """What to ask whom. `teacher_options` are those of the teacher (see harvest.teachers.registry)."""

    task: str
    teacher: str
    teacher_options: dict[str, Any] = Field(default_factory=dict)
    out: Path | None = None
    name: str | None = None
    ask: list[str] | None = None
    limits: dict[str, int] = Field(default_factory=dict)
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    target_column: str | None = None
    id_column: str | None = None


class DistillStep(_Strict):
    """Students to train. Each variant's options (see distill.config) stand over the common ones."""

    common: dict[str, Any] = Field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    runs: Path = Path("runs")

    @field_validator("seeds")
    @classmethod
    def _are_distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands there twice")
        return seeds


class Recipe(_Strict):
    """A whole recipe. `name` is that of its folder of runs."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    harvest: HarvestStep
    distill: DistillStep


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Raises UsageError that names the file and the offending key."""
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no recipe {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is not a YAML file that can be read: {error}") from error
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} is not a recipe: it has no keys")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{path}: {_name_problem(error)}") from None


def _name_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"there is no key {key!r}"
    if problem["type"] == "missing":
        return f"the key {key!r} is missing"
    return f"{key}: {problem['msg']}"
