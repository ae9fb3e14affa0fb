"""The teachers that are compared: each a harvest that could be run, or a folder that is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harvest.asking.plan import Share
from harvest.choosing.config import CompareConfig
from harvest.config import HarvestConfig, make_harvest_config
from harvest.teachers.registry import choose_entry, find_teacher, name_teacher
from shared.errors import UsageError
from shared.options import flatten, list_options
from shared.shards import choose_teacher
from shared.yaml_files import read_mapping

_OWN = ("teacher", "limit", "split", "max_cost", "unsure_below")  # of the comparison, and no harvest's


@dataclass(frozen=True, slots=True)
class Candidate:
    """A teacher that is compared, by the name that its rows are kept under.

    `harvest` is all that it would be asked, as its user wrote it; None of a folder that is kept, `folder`.
    """

    name: str
    harvest: HarvestConfig | None
    folder: Path | None

    @property
    def has_cap(self) -> bool:
        """Whether what it may cost can be bounded."""
        if self.harvest is None:
            return False
        choice = self.harvest.teacher
        _, config = choose_entry(choice.teacher, choice.options).load()
        return any(one.name == "max_cost" for one in list_options(config))

    def sample(self, split: str, limit: int, left_usd: float | None) -> HarvestConfig:
        """The harvest of a few rows of one split, which may cost `left_usd` (None: as much as it takes)."""
        assert self.harvest is not None
        choice = self.harvest.teacher
        at_once = {name: value for name, value in choice.options.items() if name != "batch"}
        choice = replace(choice, options=at_once)  # who compares waits
        if left_usd is not None and self.has_cap:
            own = choice.options.get("max_cost")
            capped = left_usd if own is None else min(left_usd, float(own))
            choice = replace(choice, options={**choice.options, "max_cost": capped})
        return replace(
            self.harvest,
            teacher=choice,
            splits=(split,),
            limits={split: limit},
            asked=None,
            retry=(),
            share=Share(),
            draws=1,
            escalate=None,
            unsure_below=None,
            failure_limit=1.0,  # what fails is a column of the table
        )


def list_candidates(config: CompareConfig) -> list[Candidate]:
    """Make the candidates of a choice. Raises UsageError, naming the teacher, for what cannot be meant."""
    given = {name: value for name, value in flatten(config).items() if value is not None and name not in _OWN}
    found = [_make_candidate(one, given) for one in config.teachers]
    names = [one.name for one in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(
            f"two of the teachers would be kept under teacher={twice[0]}: give each its own `name` in its file"
        )
    tasks = {(one.harvest.task, one.harvest.out) for one in found if one.harvest is not None}
    if len(tasks) > 1:
        raise UsageError("the teachers' files name several tasks: they are compared on the same rows, so on one task")
    return found


def _make_candidate(one: str | Mapping[str, Any], given: Mapping[str, Any]) -> Candidate:
    if isinstance(one, Mapping):
        return _read_options(one, given, "a teacher")
    path = Path(one)
    if path.suffix in (".yaml", ".yml"):
        return _read_options(read_mapping(path, "file of a teacher's options"), given, one)
    if path.is_dir():
        folder = choose_teacher(path)
        return Candidate(folder.name.removeprefix("teacher="), None, folder)
    find_teacher(one)  # says so, where there is none
    return _read_options({"teacher": one}, given, f"the teacher {one}")


def _read_options(options: Mapping[str, Any], given: Mapping[str, Any], owner: str) -> Candidate:
    if "task" not in {**options, **given}:
        raise UsageError(f"{owner} would be asked about a task: name it with --task, or in the file")
    try:
        harvest = make_harvest_config({**options, **given}, owner)
    except UsageError as error:
        raise UsageError(str(error) if owner in str(error) else f"{owner}: {error}") from None
    return Candidate(name_teacher(harvest.teacher), harvest, None)
