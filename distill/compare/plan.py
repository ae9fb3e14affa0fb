"""What is compared: variants over seeds and numbers of labels, from a YAML file or from the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from distill.config import DistillConfig, make_distill_config
from shared.errors import UsageError
from shared.options import make_config
from shared.shards.manifest import check_name

CHOICES = "choices"
OWN = ("seed", "labels")  # options that the plan itself sets, for each cell
DEFAULT_CONTROLS = ("label-smoothing", "self-training", "shuffled-teacher", "random-vectors", "constant-target")


@dataclass(frozen=True, slots=True)
class Cell:
    """One training of a comparison. `choice` numbers the candidate among those of its variant and number of labels."""

    variant: str
    labels: int | None
    choice: int
    config: DistillConfig

    @property
    def name(self) -> str:
        """The name of its folder."""
        return name_cell(self.variant, self.labels, self.choice, self.config.training.seed)


def name_cell(variant: str, labels: int | None, choice: int, seed: int) -> str:
    """Name the folder of a cell."""
    return f"{variant}-n{'all' if labels is None else labels}-c{choice}-s{seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Variants, each a mapping of options (see distill.config) over `common`, for each seed and number of labels.

    `choices` maps options to values: every combination is a candidate of each variant, and the validation split
    chooses among them. A variant may have `choices` of its own, of as many candidates. `labels` None means all. The
    defaults of `variants` are plain fine-tuning, the common options, and every control that goes with them. One seed
    makes a table and no verdict. `keep_students` keeps the trained models, which need much more room than their scores.
    """

    name: str
    shards: Path
    teacher: str | None = None
    common: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    labels: Sequence[int | None] = (None,)
    workers: int | None = None
    keep_students: bool = False

    def __post_init__(self) -> None:
        check_name("the comparison's name", self.name)
        for what, values in (("seed", self.seeds), ("number of labels", self.labels)):
            if len(set(values)) < len(values):
                raise UsageError(f"{self.name}: a {what} stands there twice")
        if not self.seeds:
            raise UsageError(f"{self.name}: give at least one seed")
        if not self.labels:
            raise UsageError(f"{self.name}: give at least one number of labels, or leave labels out")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"{self.name}: workers is {self.workers}; it must be at least 1")

    def list_variants(self) -> dict[str, Mapping[str, Any]]:
        """The variants, those by default where none were given."""
        return dict(self.variants) or default_variants(self.common)

    def list_candidates(self, variant: str) -> list[dict[str, Any]]:
        """What is tried for a variant: one mapping of options a candidate."""
        choices: Mapping[str, Sequence[Any]] = self.list_variants()[variant].get(CHOICES, self.choices)
        return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]

    def list_cells(self) -> list[Cell]:
        """All trainings, a seed at a time, so that a comparison that was stopped has whole seeds.

        Raises UsageError for a plan that could not be compared fairly, or not at all.
        """
        variants = self.list_variants()
        counts = {name: len(self.list_candidates(name)) for name in variants}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise UsageError(f"{self.name}: every variant must have as many candidates, for fairness: {listed}")
        cells = [
            Cell(name, labels, index, self._configure(name, options, candidate, labels, seed))
            for seed in self.seeds
            for labels in self.labels
            for name, options in variants.items()
            for index, candidate in enumerate(self.list_candidates(name))
        ]
        roles = [cell.config.method.role for cell in cells]
        for role, what in (("undistilled", "plain fine-tuning"), ("teacher", "a variant with the teacher")):
            if role not in roles:
                raise UsageError(
                    f"{self.name}: no variant is {role} ({what}), and nothing could be said of the teacher"
                )
        return cells

    def _configure(
        self, name: str, options: Mapping[str, Any], candidate: Mapping[str, Any], labels: int | None, seed: int
    ) -> DistillConfig:
        check_name("a variant", name)
        own = {key: value for key, value in options.items() if key != CHOICES}
        chosen = {**self.common, **own, **candidate}
        if taken := [key for key in (*OWN, "shards", "teacher") if key in chosen]:
            raise UsageError(f"{self.name}: {taken[0]} stands beside the variants, and not among their options")
        fixed = {"shards": self.shards, "teacher": self.teacher, "labels": labels, "seed": seed}
        return make_distill_config(owner=f"{self.name}: variants.{name}", **{**chosen, **fixed})


def default_variants(common: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Plain fine-tuning, its heads alone, the teacher by the common options, and every control that goes with them."""
    teacher = make_distill_config(owner="the common options", **{**common, "shards": Path()})
    variants: dict[str, Mapping[str, Any]] = {
        "undistilled": {"loss": "none", "alpha": 0.0, "gamma": 0.0},
        "heads-only": {"loss": "none", "alpha": 0.0},
        teacher.variant: {},
    }
    if not teacher.method.gamma:
        del variants["heads-only"]
    for control in (*DEFAULT_CONTROLS, "frozen-aligner"):
        try:
            replace(teacher.method, control=control)  # type: ignore[arg-type]
        except UsageError:
            continue
        variants[control] = {"control": control}
    return variants


def make_comparison(options: Mapping[str, Any], owner: str, *, name: str, shards: Path, teacher: str | None) -> Plan:
    """Make a comparison of the keys of a plan but for `name`, `shards` and `teacher`, and check all of its cells.

    Raises UsageError that names `owner` and the key.
    """
    for key in ("name", "shards", "teacher"):
        if key in options:
            raise UsageError(f"{owner} has no option {key}: it follows from the rest")
    for key in ("common", "choices", "variants"):
        if not isinstance(options.get(key, {}), Mapping):
            raise UsageError(f"{owner}: {key} is not a mapping")
    plan = make_config(Plan, {**options, "name": name, "shards": shards, "teacher": teacher}, owner)
    plan.list_cells()
    return plan


def make_plan(path: Path | None, options: Sequence[str], choices: Sequence[str], changes: Mapping[str, Any]) -> Plan:
    """The plan in a YAML file, or of its own, with `changes` in place of its keys.

    `options` are NAME=VALUE and go over `common`; `choices` are NAME=V1,V2,... Values are read as YAML reads them.
    Raises UsageError that names the file and the key.
    """
    content = {} if path is None else read_plan(path)
    owner = "the comparison" if path is None else str(path)
    common = {**content.get("common", {}), **dict(_read_assignment(text) for text in options)}
    tried = {key: list(value) for key, value in content.get("choices", {}).items()}
    for text in choices:
        key, value = _read_assignment(text)
        tried[key] = [_read_value(part) for part in str(value).split(",")]
    name = "comparison" if path is None else path.stem
    return make_config(Plan, {"name": name, **content, "common": common, "choices": tried, **changes}, owner)


def read_plan(path: Path) -> dict[str, Any]:
    """The keys of a plan in a YAML file. Raises UsageError."""
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no plan {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is not a YAML file that can be read: {error}") from error
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} is not a plan: it has no keys")
    for key in ("common", "choices", "variants"):
        if not isinstance(content.get(key, {}), Mapping):
            raise UsageError(f"{path}: {key} is not a mapping")
    return dict(content)


def _read_assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{text!r} is not NAME=VALUE")
    key = key.replace("-", "_")
    return key, value if "," in value else _read_value(value)


def _read_value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
