"""Carries out a recipe: harvest, then every variant over every seed, then one table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from harvest.asking.interrupt import KeyboardInterrupts
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import Report, run_harvest
from pipelines.recipe import Recipe
from shared.console import say
from shared.options import make_config

if TYPE_CHECKING:
    from distill.config import DistillConfig


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One variant over its seeds: scores by the task's metric, in the order of the recipe's seeds.

    `dev` chose the best epoch of each run; `test`, None where the task has no labelled test split, chose nothing.
    """

    variant: str
    dev: Sequence[float]
    test: Sequence[float] | None
    student_steps: int
    seconds: float

    @property
    def scores(self) -> Sequence[float]:
        """What is compared: test where there is one."""
        return self.dev if self.test is None else self.test


@dataclass(frozen=True, slots=True)
class Result:
    """What a recipe came to."""

    harvest: Report
    metric: str
    seeds: Sequence[int]
    variants: Sequence[VariantResult]


def run_recipe(recipe: Recipe, seeds: Sequence[int] | None = None) -> Result:
    """Harvest what is not kept, then train every variant. `seeds` stand in for the recipe's own."""
    seeds = seeds or recipe.distill.seeds
    harvest = make_harvest_config(recipe)
    variants = recipe.distill.variants.items()
    plans = {variant: make_run_configs(recipe, variant, options, seeds) for variant, options in variants}
    from distill.run import run_distillation

    report = run_harvest(harvest, interrupt=KeyboardInterrupts())
    say(f"the teacher was asked {report.asked:,} times; {report.kept:,} rows had been answered before")
    results = []
    metric = ""
    for variant, configs in plans.items():
        runs = []
        for config in configs:
            name = f"{recipe.name}-{variant}-s{config.seed}"
            _, metrics = run_distillation(config, recipe.distill.runs, name, overwrite=True)
            runs.append(metrics)
        metric = runs[0]["metric"]
        tests = [run["test"] for run in runs]
        results.append(
            VariantResult(
                variant,
                [run["dev_best"] for run in runs],
                None if None in tests else tests,
                runs[0]["student_steps"],
                mean(run["seconds"] for run in runs),
            )
        )
    return Result(report, metric, seeds, results)


def make_harvest_config(recipe: Recipe) -> HarvestConfig:
    """The harvest that a recipe asks for."""
    step = recipe.harvest
    return HarvestConfig(
        task=TaskChoice(
            step.task,
            text_column=step.text_column,
            text_pair_column=step.text_pair_column,
            label_column=step.label_column,
            target_column=step.target_column,
            id_column=step.id_column,
        ),
        teacher=TeacherChoice(step.teacher, step.name, step.teacher_options),
        out=step.out,
        asked=None if step.ask is None else tuple(step.ask),
        limits=step.limits,
    )


def make_run_configs(
    recipe: Recipe, variant: str, options: Mapping[str, Any], seeds: Sequence[int]
) -> "list[DistillConfig]":
    """One training run a seed. Raises UsageError that names the offending key."""
    from distill.config import DistillConfig

    chosen = {
        "shards": recipe.harvest.out or Path("data") / recipe.harvest.task,
        "teacher": recipe.harvest.name or recipe.harvest.teacher,
        **recipe.distill.common,
        **options,
    }
    return [make_config(DistillConfig, {**chosen, "seed": seed}, f"distill.variants.{variant}") for seed in seeds]


def print_result(result: Result) -> None:
    """Print the table of a result."""
    from rich.table import Table

    from shared.console import results

    first = result.variants[0]
    where = "dev" if first.test is None else "test"
    seeds = f"{len(result.seeds)} seed{'s' if len(result.seeds) > 1 else ''}"
    table = Table(
        "variant",
        f"{where} {result.metric}",
        f"against {first.variant}",
        "dev",
        "student steps",
        "seconds",
        title=f"{result.harvest.task}, teacher {result.harvest.teacher}, {seeds}",
    )
    for variant in result.variants:
        difference = mean(variant.scores) - mean(first.scores)
        table.add_row(
            variant.variant,
            _format_scores(variant.scores),
            "" if variant is first else f"{difference:+.3f}",
            _format_scores(variant.dev),
            f"{variant.student_steps:,}",
            f"{variant.seconds:.0f}",
        )
    results.print(table)
    results.print(f"the teacher was asked {result.harvest.asked:,} times in this run", highlight=False)


def describe_result(result: Result) -> dict[str, Any]:
    """A result as the object that `--json` prints."""
    return asdict(result)


def _format_scores(scores: Sequence[float]) -> str:
    """The mean, with the standard deviation over seeds where there are several."""
    return f"{mean(scores):.3f}" + (f" ± {stdev(scores):.3f}" if len(scores) > 1 else "")
