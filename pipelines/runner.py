"""One experiment from its recipe to its table: what is not kept is harvested, what is not trained is trained."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill.compare.plan import Comparison, make_comparison
from distill.compare.run import run_comparison
from distill.compare.table import print_comparison
from harvest.asking.interrupt import Interrupt
from harvest.config import HarvestConfig, make_harvest_config
from harvest.job import Report, run_harvest
from harvest.teachers.registry import name_teacher
from pipelines.recipe import COMPARE, HARVEST, Recipe, split_assignments
from shared.console import print_result, say, show_cost
from shared.errors import Error, UsageError

FOLLOWING = ("name", "shards", "teacher")  # keys of a comparison that a recipe says elsewhere


@dataclass(frozen=True, slots=True)
class Experiment:
    """A recipe whose options were all checked. The shards of `comparison` are those of the harvest, once it is done."""

    harvest: HarvestConfig
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Result:
    """What an experiment came to: `folder` holds the comparison, `comparison` is its comparison.json.

    `seconds` are those that the comparison took.
    """

    harvest: Report
    folder: Path
    comparison: Mapping[str, Any]
    seconds: float


def make_experiment(
    recipe: Recipe, assignments: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> Experiment:
    """Check all of a recipe. Asks nothing, and trains nothing.

    `assignments` are as in split_assignments, and `changes` override keys of the comparison. Raises UsageError
    that names the file and the key, and TeacherError where this machine cannot run the teacher.
    """
    students, asked = split_assignments(assignments)
    try:
        harvest = make_harvest_config({**recipe.harvest, **asked}, HARVEST)
        for key in FOLLOWING:
            if key in recipe.compare:
                raise UsageError(f"{COMPARE} has no option {key}: it follows from the rest of the recipe")
        comparison = make_comparison(
            recipe.compare,
            COMPARE,
            **{**(changes or {}), "common": students},
            name=recipe.name,
            shards=harvest.out or Path("data"),
            teacher=name_teacher(harvest.teacher),
        )
    except UsageError as error:
        raise UsageError(f"{recipe.place}: {error}") from None
    return Experiment(harvest, comparison)


def run_experiment(
    experiment: Experiment,
    out: Path = Path("runs"),
    images: Path | None = None,
    overwrite: bool = False,
    *,
    interrupt: Interrupt | None = None,
) -> Result:
    """Ask what is not kept yet, then train what is not finished of the comparison, in out/<name>/.

    `images` and `overwrite` are as in run_comparison, `interrupt` as in run_harvest, and so is what is raised; Error
    where the harvest was stopped before its end, and before it what Placing.check_cluster raises.
    """
    experiment.comparison.placing.check_cluster()  # before anything is paid for
    report = harvest_all(experiment.harvest, interrupt)
    started = time.perf_counter()
    folder, compared = run_comparison(follow_harvest(experiment.comparison, report), out, images, overwrite)
    return Result(report, folder, compared, time.perf_counter() - started)


def harvest_all(config: HarvestConfig, interrupt: Interrupt | None = None) -> Report:
    """Ask what is not kept yet. Raises what run_harvest does, and Error where it was stopped before its end."""
    report = run_harvest(config, interrupt=interrupt)
    if report.stopped is not None:
        raise Error(
            f"the harvest of {report.task} was stopped: {report.stopped}. No student was trained. What was answered is "
            "kept; the same command goes on from there"
        )
    say(f"the teacher was asked {report.asked:,} times")
    return report


def follow_harvest(comparison: Comparison, report: Report) -> Comparison:
    """Give the comparison of the answers that a harvest, or a plan of one, is about."""
    return replace(comparison, shards=(Path(report.folder).parent,), teacher=report.teacher)


def print_experiment(result: Result) -> None:
    """Print the comparison as `distill compare` does, and what the harvest took."""
    print_comparison(result.folder, result.comparison)
    asked, cost = result.harvest.asked, show_cost(result.harvest.cost_usd)
    print_result(
        f"the teacher was asked {asked:,} times in this run, {cost}",
        f"the harvest took {result.harvest.seconds:.0f} s, the students {result.seconds:.0f} s",
    )


def describe_result(result: Result) -> dict[str, Any]:
    """Make the object that `--json` prints."""
    own = {"harvest": asdict(result.harvest), "comparison": str(result.folder), "seconds": result.seconds}
    return {**own, **result.comparison}
