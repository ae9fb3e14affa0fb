"""What a recipe will take, before anything is asked or trained: rows, pictures, dollars, cells, steps and hours."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.compare.forecast import TrainingForecast, forecast_training
from distill.compare.runner import count_workers
from harvest.asking.interrupt import Interrupt
from harvest.config import HarvestConfig
from harvest.job import Report, plan_harvest
from harvest.teachers.registry import choose_entry
from pipelines.runner import Experiment, follow_harvest
from shared.console import print_result, show_cost
from shared.printed_tables import print_rows
from shared.schema import sum_costs


@dataclass(frozen=True, slots=True)
class HarvestPlan:
    """What is left to ask of one harvest: `report` is that of `harvest plan`; `pictures` are made for its rows."""

    config: HarvestConfig
    report: Report
    pictures: int

    @property
    def cost_usd(self) -> float | None:
        """What the rows that are to be asked cost in US dollars; None where no price is known."""
        cost = None if self.report.forecast is None else self.report.forecast.cost_usd
        return None if cost is None else cost.likely

    @property
    def minutes(self) -> float | None:
        """How many minutes asking takes; None where the pace is not known."""
        return None if self.report.forecast is None else self.report.forecast.minutes


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What is left to train of one comparison, in `folder`."""

    folder: Path
    forecast: TrainingForecast


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe will take: harvests that several comparisons share stand here once.

    `workers` cells are trained at a time; None where that is as many as a cluster has room for.
    """

    harvests: tuple[HarvestPlan, ...]
    trainings: tuple[TrainingPlan, ...]
    workers: int | None

    @property
    def to_ask(self) -> int:
        """How many rows are to be asked."""
        return sum(each.report.to_ask for each in self.harvests)

    @property
    def pictures(self) -> int:
        """How many pictures are to be made for them."""
        return sum(each.pictures for each in self.harvests)

    @property
    def cost_usd(self) -> float | None:
        """What the rows that are to be asked cost in US dollars; None where no price is known."""
        return sum_costs(each.cost_usd for each in self.harvests)

    @property
    def minutes(self) -> float | None:
        """How many minutes asking takes; None where the pace is not known of one of the harvests."""
        known = [each.minutes for each in self.harvests if each.minutes is not None]
        return sum(known) if len(known) == len(self.harvests) else None

    @property
    def seconds(self) -> float:
        """What the cells that are left take, one after the other, of comparisons of which one is finished."""
        return sum(each.forecast.seconds or 0.0 for each in self.trainings)

    @property
    def unmeasured(self) -> int:
        """How many comparisons have no finished cell that would tell what theirs take."""
        return sum(each.forecast.seconds is None for each in self.trainings)


def make_plan(experiments: Sequence[Experiment], out: Path, *, interrupt: Interrupt | None = None) -> Plan:
    """Plan experiments whose comparisons are in `out`; those of one harvest stand side by side.

    Asks nothing and trains nothing; texts are read, and downloaded where they are not here. Raises what plan_harvest
    does.
    """
    harvests: list[HarvestPlan] = []
    trainings = []
    for experiment in experiments:
        if not harvests or harvests[-1].config != experiment.harvest:
            harvests.append(_plan_harvest(experiment.harvest, interrupt))
        report = harvests[-1].report
        comparison = follow_harvest(experiment.comparison, report)
        folder = out / comparison.name
        forecast = forecast_training(comparison, folder, report.splits.get("train", 0))
        trainings.append(TrainingPlan(folder, forecast))
    left = [cell for each in trainings for cell in each.forecast.left]
    workers = count_workers(left, experiments[0].comparison.placing)
    return Plan(tuple(harvests), tuple(trainings), workers)


def _plan_harvest(config: HarvestConfig, interrupt: Interrupt | None) -> HarvestPlan:
    report = plan_harvest(config, interrupt=interrupt)
    makes_pictures = "image" in choose_entry(config.teacher.teacher, config.teacher.options).gives
    return HarvestPlan(config, report, report.to_ask if makes_pictures else 0)


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Make the object that `--json` prints; `hours` is null where no finished cell tells what is left."""
    return {
        "rows_to_ask": plan.to_ask,
        "pictures": plan.pictures,
        "cost_usd": plan.cost_usd,
        "harvest_minutes": plan.minutes,
        "cells": sum(each.forecast.cells for each in plan.trainings),
        "finished": sum(each.forecast.finished for each in plan.trainings),
        "student_steps": sum(each.forecast.student_steps for each in plan.trainings),
        "hours": None if plan.unmeasured else plan.seconds / 3600,
        "workers": plan.workers,
        "harvests": [asdict(each.report) for each in plan.harvests],
        "trainings": [_describe_training(each) for each in plan.trainings],
    }


def _describe_training(training: TrainingPlan) -> dict[str, Any]:
    forecast = training.forecast
    return {
        "comparison": str(training.folder),
        "cells": forecast.cells,
        "finished": forecast.finished,
        "unusable": dict(forecast.unusable),
        "student_steps": forecast.student_steps,
        "seconds": forecast.seconds,
    }


def print_plan(plan: Plan) -> None:
    """Print a plan for a person, on standard output."""
    harvests = [
        (
            *(each.report.task, each.report.teacher, f"{each.report.rows:,}", f"{each.report.kept:,}"),
            *(f"{each.report.to_ask:,}", f"{each.pictures:,}", show_cost(each.cost_usd)),
        )
        for each in plan.harvests
    ]
    print_rows(("task", "teacher", "rows", "kept", "to ask", "pictures", "cost"), harvests, texts=2)
    trainings = [
        (str(each.folder), *(f"{number:,}" for number in _count(each.forecast)), _show_hours(each.forecast.seconds))
        for each in plan.trainings
    ]
    print_rows(("comparison", "cells", "finished", "student steps left", "hours left"), trainings)
    print_result(*summarise_plan(plan), *_say_unusable(plan))


def summarise_plan(plan: Plan) -> tuple[str, str]:
    """Say in two lines what is to be asked, and what is to be trained."""
    return _say_harvest(plan), _say_training(plan)


def _count(forecast: TrainingForecast) -> tuple[int, int, int]:
    return forecast.cells, forecast.finished, forecast.student_steps


def _show_hours(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds / 3600:,.2f}"


def _say_harvest(plan: Plan) -> str:
    minutes = "unknown before some are kept" if plan.minutes is None else f"about {plan.minutes:,.1f}"
    return (
        f"harvest: {plan.to_ask:,} rows to ask, {plan.pictures:,} pictures to make, {show_cost(plan.cost_usd)}; "
        f"minutes: {minutes}"
    )


def _say_training(plan: Plan) -> str:
    cells, finished, steps = (
        sum(column) for column in zip(*(_count(each.forecast) for each in plan.trainings), strict=True)
    )
    line = f"training: {finished:,} of {cells:,} cells are finished; at most {steps:,} student steps are left, "
    if plan.unmeasured == len(plan.trainings):
        return f"{line}and hours are unknown until one cell has run"
    side_by_side = "as many as the cluster has room for" if plan.workers is None else f"{plan.workers:,}"
    hours = f"{plan.seconds / 3600:,.2f} hours one after the other, {side_by_side} at a time"
    if not plan.unmeasured:
        return f"{line}about {hours}"
    return f"{line}at least {hours}: of {plan.unmeasured:,} comparisons no cell has run yet"


def _say_unusable(plan: Plan) -> list[str]:
    """Say which comparisons have finished cells that a run would refuse, each by its first."""
    lines = []
    for each in plan.trainings:
        for name, difference in list(each.forecast.unusable.items())[:1]:
            lines.append(
                f"{each.folder}: {len(each.forecast.unusable):,} finished cells cannot be used; {name}, for one: "
                f"{difference}. --overwrite trains them again"
            )
    return lines
