"""Runs a table recipe: harvests every task, trains all that is not finished, side by side, and writes one table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.compare.hosts import Job
from distill.compare.plan import Comparison
from distill.compare.run import run_comparison
from distill.compare.runner import list_jobs, train_jobs
from harvest.asking.interrupt import Interrupt
from harvest.job import Report
from pipelines.figures import CSV, JSON, MARKDOWN, Line, describe_lines, make_lines, print_figures, write_figures
from pipelines.plan import make_plan, summarise_plan
from pipelines.runner import Experiment, follow_harvest, harvest_all, make_experiment
from pipelines.table import Table
from shared.console import print_result, say, show_cost
from shared.schema import sum_costs


@dataclass(frozen=True, slots=True)
class TableResult:
    """What a table came to: its `folder` holds the table's files, and a comparison's folder for each entry.

    `asked` and `cost_usd` (None where a price is not known) are this run's, of all tasks.
    """

    folder: Path
    lines: tuple[Line, ...]
    asked: int
    cost_usd: float | None


def make_experiments(
    table: Table, assignments: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> list[Experiment]:
    """Check the recipes of all entries, as make_experiment does."""
    return [make_experiment(entry.recipe, assignments, changes) for entry in table.entries]


def run_table(
    table: Table,
    experiments: Sequence[Experiment],
    out: Path = Path("runs"),
    images: Path | None = None,
    overwrite: bool = False,
    *,
    interrupt: Interrupt | None = None,
) -> TableResult:
    """Harvest all tasks, train all cells that are not finished, in out/<table>/<task>-<student>/, and write the table.

    All cells share the workers, so that none waits for the last cell of a comparison. A comparison's own report is
    written when its last cell is finished, and the table at the end. What is raised is what run_experiment raises.
    """
    folder = out / table.name
    experiments[0].comparison.placing.check_cluster()  # before anything is paid for
    for line in summarise_plan(make_plan(experiments, folder, interrupt=interrupt)):  # refuses what cannot be read
        say(line)
    harvested = harvest_tasks(experiments, interrupt)
    comparisons = [follow_harvest(experiment.comparison, report) for experiment, report in harvested]
    jobs = [job for each in comparisons for job in list_jobs(each, folder / each.name, overwrite)]
    reporter = Reporter(folder, images, {folder / each.name: each for each in comparisons})
    reporter.expect(jobs)
    train_jobs(jobs, comparisons[0].placing, reporter.note)
    lines = make_lines(table, [reporter.report(folder / each.name) for each in comparisons])
    write_figures(folder, table, lines)
    reports = {report.folder: report for _, report in harvested}.values()
    cost = sum_costs(report.cost_usd for report in reports)
    return TableResult(folder, tuple(lines), sum(report.asked for report in reports), cost)


def harvest_tasks(experiments: Sequence[Experiment], interrupt: Interrupt | None) -> list[tuple[Experiment, Report]]:
    """Harvest for each experiment; those beside each other that share a harvest share its report."""
    harvested: list[tuple[Experiment, Report]] = []
    for experiment in experiments:
        if harvested and harvested[-1][0].harvest == experiment.harvest:
            harvested.append((experiment, harvested[-1][1]))
        else:
            harvested.append((experiment, harvest_all(experiment.harvest, interrupt)))
    return harvested


@dataclass(frozen=True, slots=True)
class Reporter:
    """Writes the report of each comparison, by its folder, once none of its cells is left."""

    out: Path
    images: Path | None
    comparisons: Mapping[Path, Comparison]
    left: Counter[Path] = field(default_factory=Counter)
    results: dict[Path, Mapping[str, Any]] = field(default_factory=dict)

    def expect(self, jobs: Sequence[Job]) -> None:
        """Count the cells that will be noted."""
        self.left.update(job.folder for job in jobs)

    def note(self, job: Job) -> None:
        """Note that a cell is finished."""
        self.left[job.folder] -= 1
        if not self.left[job.folder]:
            self.report(job.folder)

    def report(self, folder: Path) -> Mapping[str, Any]:
        """Write the report of a comparison whose cells are all finished, unless it is written, and give its result."""
        if folder not in self.results:
            _, self.results[folder] = run_comparison(self.comparisons[folder], self.out, self.images)
        return self.results[folder]


def print_whole_table(result: TableResult, table: Table) -> None:
    """Print the table, where its files are, and what the harvest took."""
    print_figures(table, result.lines)
    taken = f"the teacher was asked {result.asked:,} times in this run, {show_cost(result.cost_usd)}"
    print_result(f"table: {result.folder / MARKDOWN}, {CSV} and {JSON} beside it", taken)


def describe_table(result: TableResult, table: Table) -> dict[str, Any]:
    """Make the object that `--json` prints."""
    spent = {"asked": result.asked, "cost_usd": result.cost_usd}
    return {"harvest": spent, "folder": str(result.folder), **describe_lines(table, result.lines)}
