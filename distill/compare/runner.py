"""Finds the cells of a comparison that are not finished, and has them trained."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from distill.compare.hosts import FROZEN, Host, Job
from distill.compare.places import Place, choose_places, list_gpus
from distill.compare.placing import Placing
from distill.compare.plan import Cell, Comparison
from distill.compare.pool import train_cells
from distill.compare.processes import ProcessHost
from distill.compare.ray import RayHost, wait_for_killed
from distill.config import make_distill_config
from distill.runs.folder import read_metrics
from distill.runs.names import CELLS
from distill.runs.record import ROW_SCORES
from shared.console import say
from shared.cores import count_cores
from shared.disk import explain_disk_errors, take_lock
from shared.errors import UsageError
from shared.options import flatten
from shared.shards.manifest import choose_teacher, hash_manifest
from shared.shards.read import check_readable

STUDENT = "student"
LOCK = ".training.lock"  # in the folder of a comparison whose cells are trained now


def run_cells(comparison: Comparison, folder: Path, overwrite: bool = False) -> list[Cell]:
    """Train what is not finished in `folder`/cells/, and return all cells.

    Killed at any moment, it loses the cells that are running and no other. Raises UsageError for finished cells of
    other settings or other shards, unless `overwrite`, and Error naming the cell that failed.
    """
    cells = comparison.list_cells()
    train_jobs(list_jobs(comparison, folder, overwrite), comparison.placing)
    return cells


def list_jobs(comparison: Comparison, folder: Path, overwrite: bool = False) -> list[Job]:
    """List the cells that are not finished in `folder`/cells/; finished ones that cannot be used go if `overwrite`.

    Raises UsageError that names the first of those, unless `overwrite`; with it LockedError where another process
    trains cells of the comparison, and then nothing is removed.
    """
    cells, kept = comparison.list_cells(), folder / CELLS
    finished = find_finished(comparison, cells, folder)
    different = {name: difference for name, difference in finished.items() if difference is not None}
    for name, difference in different.items():
        if not overwrite:
            raise UsageError(
                f"{kept / name} cannot be used: {difference}. Give this comparison another name, or --overwrite to "
                "train such cells again"
            )
    if different:
        with hold_comparison(folder):
            for name in different:
                shutil.rmtree(kept / name)
    missing = [cell for cell in cells if cell.name not in finished or cell.name in different]
    if len(missing) < len(cells):
        say(f"{folder}: {len(cells) - len(missing):,} of {len(cells):,} cells are finished already")
    return [Job(cell, folder, comparison.keep_students) for cell in missing]


def train_jobs(
    jobs: Sequence[Job], placing: Placing = Placing(), on_finished: Callable[[Job], None] | None = None
) -> None:
    """Train cells, of one comparison or of several, where `placing` says.

    Raises LockedError where another process trains cells of one of them, on any machine that shares the disk.
    """
    if not jobs:
        return
    folders = dict.fromkeys(job.folder for job in jobs)
    for folder in folders:
        with explain_disk_errors(folder):
            (folder / CELLS).mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for folder in folders:
            held.enter_context(hold_comparison(folder))
        wait_for_killed(folders)
        train_cells(jobs, make_host(jobs, placing), on_finished)
        for folder in folders:
            shutil.rmtree(folder / FROZEN, ignore_errors=True)


@contextmanager
def hold_comparison(folder: Path) -> Iterator[None]:
    """Hold a comparison's folder without waiting. A file is locked, for network file systems lock no folder."""
    lock = folder / LOCK
    with explain_disk_errors(folder):
        descriptor = take_lock(lock, f"{folder} is being trained", "give this comparison another name")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def make_host(jobs: Sequence[Job], placing: Placing) -> Host:
    """Make the place where the jobs' cells are trained. Raises ClusterError, and MissingExtraError without Ray."""
    if placing.cluster is None:
        return ProcessHost(place_cells([job.cell for job in jobs], placing.workers))
    placing.check_cluster()
    return RayHost(jobs, placing)


def place_cells(cells: Sequence[Cell], workers: int | None = None) -> list[Place]:
    """Choose where the cells are trained on this machine."""
    gpus = list_gpus({cell.config.training.device for cell in cells})
    return choose_places(len(cells), gpus, count_cores(), workers)


def count_workers(cells: Sequence[Cell], placing: Placing) -> int | None:
    """Count the cells that are trained at a time; None where the cluster says that once it is joined."""
    if placing.cluster is None:
        return len(place_cells(cells, placing.workers))
    return None if placing.workers is None else min(placing.workers, len(cells))


def find_finished(comparison: Comparison, cells: Sequence[Cell], folder: Path) -> dict[str, str | None]:
    """Give the finished cells by name, each with how it differs from what is wanted; None where it can be used."""
    hashes = _hash_shards(cells)
    return {
        cell.name: find_difference(folder / CELLS / cell.name, cell, hashes, comparison.keep_students)
        for cell in cells
        if (folder / CELLS / cell.name).exists()
    }


def _hash_shards(cells: Sequence[Cell]) -> dict[tuple[Path, str | None], str]:
    """Hash the manifest of each teacher that any cell needs, by its path and its name where the cell chooses one.

    Raises what choose_teacher and check_readable do: before anything is trained.
    """
    wanted = dict.fromkeys(each for cell in cells for each in cell.shards)
    return {each: hash_manifest(check_readable(choose_teacher(*each))) for each in wanted}


def find_difference(
    folder: Path, cell: Cell, hashes: Mapping[tuple[Path, str | None], str], keep_student: bool
) -> str | None:
    """Say how a finished cell differs from what is wanted; None where it does not.

    `hashes` are those of the shards' manifests as they are now.
    """
    try:
        metrics = read_metrics(folder)
    except UsageError as error:
        return str(error)
    if not (folder / ROW_SCORES).exists():
        return "an older version trained it, and it has no scores of single rows"
    wanted = flatten(cell.config)
    # An option that is younger than the cell had its default, and ARMADA's was the default before there were presets.
    preset = metrics["config"].get("preset", "armada")
    found = {**flatten(make_distill_config(shards=Path(), preset=preset)), **metrics["config"]}
    for name, value in wanted.items():
        if value != found.get(name):
            return f"{name} was {found.get(name)!r} and is {value!r}"
    if {hashes[each] for each in cell.shards} != set(metrics["manifest_sha256"].values()):
        return "the shards have changed since"
    if keep_student and cell.config.method.traits.trains_student and not (folder / STUDENT).exists():
        return "its student was not kept"
    return None
