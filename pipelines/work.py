"""What the `pipeline` command carries out: one experiment, or a table of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from harvest.asking.interrupt import Interrupt
from pipelines.recipe import Recipe
from pipelines.runner import Experiment, describe_result, make_experiment, print_experiment, run_experiment
from pipelines.table import Table, make_table
from pipelines.table_run import describe_table, make_experiments, print_whole_table, run_table


@dataclass(frozen=True, slots=True)
class Done:
    """What was carried out: `describe` gives the object that `--json` prints, `show` prints it for a person."""

    describe: Callable[[], Mapping[str, Any]]
    show: Callable[[], None]


class Work(Protocol):
    """A recipe that was checked."""

    @property
    def experiments(self) -> Sequence[Experiment]:
        """Its experiments; those that share a harvest stand side by side."""

    def locate(self, out: Path) -> Path:
        """Give the folder that the comparisons' folders are in, where runs are kept in `out`."""

    def run(self, out: Path, images: Path | None, overwrite: bool, interrupt: Interrupt | None) -> Done:
        """Ask what is not kept, train what is not finished: see run_experiment and run_table."""


@dataclass(frozen=True, slots=True)
class OneExperiment:
    """An ordinary recipe. See Work."""

    experiment: Experiment

    @property
    def experiments(self) -> Sequence[Experiment]:
        """See Work."""
        return (self.experiment,)

    def locate(self, out: Path) -> Path:
        """See Work."""
        return out

    def run(self, out: Path, images: Path | None, overwrite: bool, interrupt: Interrupt | None) -> Done:
        """See Work."""
        result = run_experiment(self.experiment, out, images, overwrite, interrupt=interrupt)
        return Done(partial(describe_result, result), partial(print_experiment, result))


@dataclass(frozen=True, slots=True)
class WholeTable:
    """A table recipe. See Work."""

    table: Table
    experiments: Sequence[Experiment]

    def locate(self, out: Path) -> Path:
        """See Work."""
        return out / self.table.name

    def run(self, out: Path, images: Path | None, overwrite: bool, interrupt: Interrupt | None) -> Done:
        """See Work."""
        result = run_table(self.table, self.experiments, out, images, overwrite, interrupt=interrupt)
        return Done(partial(describe_table, result, self.table), partial(print_whole_table, result, self.table))


def make_work(
    recipe: Recipe,
    assignments: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    tasks: Sequence[str] = (),
    students: Sequence[str] = (),
) -> Work:
    """Check all of a recipe. `tasks` and `students` choose of a table; the rest is as in make_experiment.

    Raises UsageError that names the file and the key, and where an ordinary recipe is to be chosen of.
    """
    if recipe.table is None and not tasks and not students:
        return OneExperiment(make_experiment(recipe, assignments, changes))
    table = make_table(recipe, tasks, students)
    return WholeTable(table, make_experiments(table, assignments, changes))
