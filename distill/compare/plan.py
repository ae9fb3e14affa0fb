"""What is compared: variants over seeds and numbers of labels, from a mapping, a YAML file, or the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from distill.compare.placing import Placing
from distill.config import TEXT_KINDS, UNDISTILLED, DistillConfig, Shards, TeacherName, make_distill_config
from distill.controls import CONTROLS, Control
from shared.errors import ShardError, UsageError
from shared.options import Option, check_options, make_config, parse_assignment, parse_value
from shared.yaml_files import read_mapping

CHOICES = "choices"
OWN = ("seed", "labels")  # options that the comparison itself sets, for each cell
DEFAULT_CONTROLS: tuple[Control, ...] = (
    *("linear-probe", "label-smoothing", "self-training", "shuffled-teacher", "random-vectors", "constant-target"),
    *("frozen-aligner", "pseudo-labels", "probe-distilled"),
)


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

    @property
    def shards(self) -> list[tuple[Path, str | None]]:
        """Its shards, each a path or an address, and the teacher that is chosen there, where one is."""
        first, *further = self.config.data.shards
        return [(first, self.config.data.teacher), *((path, None) for path in further)]


def name_cell(variant: str, labels: int | None, choice: int, seed: int) -> str:
    """Name the folder of a cell."""
    return f"{variant}-n{'all' if labels is None else labels}-c{choice}-s{seed}"


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE texts as options of a run. Raises ValueError."""
    return {name.replace("-", "_"): value for name, value in map(_parse_option, texts)}


def parse_choices(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read NAME=V1,V2 texts as values to choose among. Raises ValueError."""
    choices = {}
    for text in texts:
        name, _ = parse_assignment(text)
        choices[name.replace("-", "_")] = [parse_value(part) for part in text.partition("=")[2].split(",")]
    return choices


def _parse_option(text: str) -> tuple[str, Any]:
    name, value = parse_assignment(text)
    return name, text.partition("=")[2] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Variants, each a mapping of options (see distill.config) over `common`, for each seed and number of labels.

    `choices` maps options to values: every combination is a candidate of each variant, and the validation split
    chooses among them. A variant may have `choices` of its own, of as many candidates. `labels` None means all. The
    defaults of `variants` are plain fine-tuning, the common options, and every control that goes with them. One seed
    gives a table, and no test.
    """

    shards: Shards
    teacher: TeacherName = None
    name: Annotated[str, Option("The comparison's name; the file's, unless given.")] = "comparison"
    common: Annotated[
        Mapping[str, Any],
        Option(
            "An option of all runs, as `distill run` has it; may be repeated.",
            flag="--set",
            metavar="NAME=VALUE",
            parse=parse_options,
            repeated=True,
        ),
    ] = field(default_factory=dict)
    variants: Annotated[Mapping[str, Mapping[str, Any]], Option("Options by variant.")] = field(default_factory=dict)
    choices: Annotated[
        Mapping[str, Sequence[Any]],
        Option(
            "Values that the validation split chooses among; may be repeated.",
            flag="--choose",
            metavar="NAME=V1,V2",
            parse=parse_choices,
            repeated=True,
        ),
    ] = field(default_factory=dict)
    seeds: Annotated[tuple[int, ...], Option("A seed of the runs; may be repeated.", flag="--seed", at_least=0)] = (
        0,
        1,
        2,
        3,
        4,
    )
    labels: Annotated[tuple[int | None, ...], Option("Keep this many labels; may be repeated. All, unless given.")] = (
        None,
    )
    placing: Placing = Placing()
    keep_students: Annotated[bool, Option("Keep the trained student of each cell, in its folder.")] = False

    def __post_init__(self) -> None:
        check_options(self)
        _check_name("the comparison's name", self.name)
        for option, what, values in (("seeds", "seed", self.seeds), ("labels", "number of labels", self.labels)):
            if not values:
                raise UsageError(f"{self.name}: give at least one {what}, or leave {option} out")
            if doubled := [value for value in values if list(values).count(value) > 1]:
                raise UsageError(f"{self.name}: the {what} {doubled[0]} is given twice")

    def list_variants(self) -> dict[str, Mapping[str, Any]]:
        """List the variants, those by default where none were given: they go with the kind of the task.

        Shards that are still to be harvested are taken to be of a classification.
        """
        return dict(self.variants) or default_variants(self.common, find_kind(self.shards[0], self.teacher))

    def list_candidates(self, variant: str) -> list[dict[str, Any]]:
        """List what is tried for a variant: one mapping of options a candidate. Raises UsageError."""
        choices: Mapping[str, Sequence[Any]] = self.variants.get(variant, {}).get(CHOICES, self.choices)
        if not isinstance(choices, Mapping):
            raise UsageError(f"{self.name}: {CHOICES} of {variant} is {choices!r}; give a list for each option")
        for option, values in choices.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise UsageError(f"{self.name}: {CHOICES}: {option} is {values!r}; give a list of one value or more")
        return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]

    def list_cells(self) -> list[Cell]:
        """List all trainings, a seed at a time, so that a comparison that was stopped has whole seeds.

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
        roles = [cell.config.role for cell in cells]
        for role, what in (("undistilled", "plain fine-tuning"), ("teacher", "a variant with the teacher")):
            if role not in roles:
                raise UsageError(
                    f"{self.name}: no variant is {role} ({what}), and nothing could be said of the teacher"
                )
        return cells

    def _configure(
        self, name: str, options: Mapping[str, Any], candidate: Mapping[str, Any], labels: int | None, seed: int
    ) -> DistillConfig:
        _check_name("a variant", name)
        own = {key: value for key, value in options.items() if key != CHOICES}
        chosen = {**self.common, **own, **candidate}
        if taken := [key for key in (*OWN, "shards", "teacher") if key in chosen]:
            raise UsageError(f"{self.name}: {taken[0]} stands beside the variants, and not among their options")
        fixed = {"shards": self.shards, "teacher": self.teacher, "labels": labels, "seed": seed}
        return make_distill_config(owner=f"{self.name}: variants.{name}", **{**chosen, **fixed})


def _check_name(what: str, name: str) -> None:
    from shared.shards.manifest import check_name  # imports pyarrow, which --help does without

    check_name(what, name)


def find_kind(shards: Path, teacher: str | None) -> str:
    """Find the kind of the task that shards are of; "classification" where there are none yet."""
    from shared.shards.manifest import choose_teacher, load_manifest  # imports pyarrow: see _check_name

    try:
        return load_manifest(choose_teacher(shards, teacher)).kind
    except ShardError:
        return "classification"


def default_variants(common: Mapping[str, Any], kind: str = "classification") -> dict[str, Mapping[str, Any]]:
    """Make the variants that are compared unless others are given, on a task of a kind.

    They are plain fine-tuning, its heads alone, the teacher by the common options, and every control and baseline that
    goes with it. Of a student that writes they are the reference alone, the teacher, the teacher shuffled, and no
    training.
    """
    teacher = make_distill_config(owner="the common options", **{**common, "shards": Path()})
    name = teacher.name_variant(kind)
    if kind in TEXT_KINDS:
        controls: tuple[Control, ...] = ("shuffled-teacher", "untrained")
        own: dict[str, Mapping[str, Any]] = {control: {"control": control} for control in controls}
        return {"undistilled": {"learn": ["reference"]}, name: {}, **own}
    variants: dict[str, Mapping[str, Any]] = {
        "undistilled": dict(UNDISTILLED),
        "heads-only": {option: value for option, value in UNDISTILLED.items() if option != "gamma"},
        name: {},
    }
    if not teacher.method.gamma:
        del variants["heads-only"]
    for control in DEFAULT_CONTROLS:
        if kind == "regression" and CONTROLS[control].needs_classes:
            continue
        try:
            replace(teacher.method, control=control)
        except UsageError:
            continue
        variants[control] = {"control": control}
    return variants


def make_comparison(content: Mapping[str, Any], owner: str, **changes: Any) -> Comparison:
    """Make a checked comparison of the keys of a plan; `changes` override them; `owner` is whose keys they are.

    The `common` options and `choices` of the changes override those of the content, one by one. Cells are checked
    too, so that a wrong option is refused here. Raises UsageError that names the key or the option.
    """
    if strange := [key for key in content if not isinstance(key, str)]:
        raise UsageError(f"{owner} has no option {strange[0]!r}")
    for key in ("common", "choices", "variants"):
        if not isinstance(content.get(key, {}), Mapping):
            raise UsageError(f"{owner}: {key} is not a mapping")
    merged = {**content, **changes}
    for key, parse in (("common", parse_options), ("choices", parse_choices)):
        given = changes.get(key, {})
        try:
            merged[key] = {**content.get(key, {}), **(given if isinstance(given, Mapping) else parse(given))}
        except ValueError as error:
            raise UsageError(f"{' '.join(given)}: {error}") from None
    comparison = make_config(Comparison, merged, owner)
    comparison.list_cells()
    return comparison


def read_plan(path: Path) -> dict[str, Any]:
    """Read the keys of a plan in a YAML file, its name that of the file unless it has one. Raises UsageError."""
    return {"name": path.stem, **read_mapping(path, "plan")}
