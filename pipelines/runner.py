"""One experiment from its recipe to its table: what is not kept is harvested, what is not trained is trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill.compare.plan import Plan, make_comparison
from distill.compare.run import run_comparison
from distill.compare.table import print_comparison
from harvest.asking.interrupt import Interrupt
from harvest.config import HarvestConfig, make_harvest_config
from harvest.job import Report, run_harvest
from pipelines.recipe import COMPARE, HARVEST, Recipe
from shared.console import results, say, show_cost
from shared.errors import Error


@dataclass(frozen=True, slots=True)
class Experiment:
    """A recipe whose options were all checked. The shards of `comparison` are those of the harvest, once it is done."""

    harvest: HarvestConfig
    comparison: Plan


@dataclass(frozen=True, slots=True)
class Result:
    """What an experiment came to: `folder` holds the comparison, `comparison` is its comparison.json."""

    harvest: Report
    folder: Path
    comparison: Mapping[str, Any]


def make_experiment(recipe: Recipe, changes: Mapping[str, Any] | None = None) -> Experiment:
    """Check all of a recipe, with `changes` in place of keys of its comparison. Asks and trains nothing.

    Raises UsageError that names the file and the key.
    """
    harvest = make_harvest_config(recipe.harvest, f"{recipe.path}: {HARVEST}")
    comparison = make_comparison(
        {**recipe.compare, **(changes or {})},
        f"{recipe.path}: {COMPARE}",
        name=recipe.name,
        shards=harvest.out or Path("data"),
        teacher=harvest.teacher.name or harvest.teacher.teacher,
    )
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
    where the harvest was stopped before its end.
    """
    report = run_harvest(experiment.harvest, interrupt=interrupt)
    if report.stopped is not None:
        raise Error(
            f"the harvest was stopped: {report.stopped}. No student was trained. What was answered is kept; the same "
            "command goes on from there"
        )
    say(f"the teacher was asked {report.asked:,} times; {report.kept:,} rows were kept before")
    answers = Path(report.folder)
    comparison = replace(experiment.comparison, shards=answers.parent, teacher=report.teacher)
    folder, compared = run_comparison(comparison, out, images, overwrite)
    return Result(report, folder, compared)


def print_result(result: Result) -> None:
    """Print the comparison as `distill compare` does, and what the harvest took."""
    print_comparison(result.folder, result.comparison)
    asked, cost = result.harvest.asked, show_cost(result.harvest.cost_usd)
    results.print(f"the teacher was asked {asked:,} times in this run, {cost}", markup=False, highlight=False)


def describe_result(result: Result) -> dict[str, Any]:
    """Make the object that `--json` prints."""
    return {"harvest": asdict(result.harvest), "comparison": str(result.folder), **result.comparison}
