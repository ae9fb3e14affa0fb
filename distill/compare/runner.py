"""Trains the cells of a comparison in worker processes of one thread each. A finished cell is a folder, and stays."""

import multiprocessing
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from distill.compare.plan import Cell, Comparison
from distill.config import DataConfig, DistillConfig
from distill.runs.folder import read_metrics
from distill.runs.record import ROW_SCORES
from shared.console import say, silence, track
from shared.disk import explain_disk_errors
from shared.errors import Error, UsageError
from shared.options import flatten
from shared.shards.manifest import choose_teacher, hash_manifest
from shared.shards.read import check_readable
from shared.workers import end_with_parent

CELLS, FROZEN = "cells", "frozen"
STUDENT = "student"
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def run_cells(comparison: Comparison, folder: Path, overwrite: bool = False) -> list[Cell]:
    """Train what is not finished in `folder`/cells/, and return all cells.

    Killed at any moment, it loses the cells that are running and no other. Raises UsageError for finished cells of
    other settings or other shards, unless `overwrite`, and Error naming the cell that failed.
    """
    cells = comparison.list_cells()
    hashes = _hash_shards(cells)
    kept = folder / CELLS
    missing = []
    for cell in cells:
        difference = find_difference(kept / cell.name, cell, hashes, comparison.keep_students)
        if difference and not overwrite:
            raise UsageError(
                f"{kept / cell.name} cannot be used: {difference}. Give this comparison another name, or "
                "--overwrite to train such cells again"
            )
        if difference:
            shutil.rmtree(kept / cell.name)
        if not (kept / cell.name).exists():
            missing.append(cell)
    if len(missing) < len(cells):
        say(f"{folder}: {len(cells) - len(missing):,} of {len(cells):,} cells are finished already")
    if missing:
        with explain_disk_errors(kept):
            kept.mkdir(parents=True, exist_ok=True)
        workers = min(comparison.workers or count_cores(), len(missing))
        _train_all(missing, folder, workers, comparison.keep_students)
        shutil.rmtree(folder / FROZEN, ignore_errors=True)
    return cells


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _hash_shards(cells: Sequence[Cell]) -> dict[tuple[Path, str | None], str]:
    """Hash the manifest of each teacher that any cell needs, by its path and its name where the cell chooses one.

    Raises what choose_teacher and check_readable do: before anything is trained.
    """
    wanted = dict.fromkeys(each for cell in cells for each in _list_shards(cell))
    return {each: hash_manifest(check_readable(choose_teacher(*each))) for each in wanted}


def _list_shards(cell: Cell) -> list[tuple[Path, str | None]]:
    first, *further = cell.config.data.shards
    return [(first, cell.config.data.teacher), *((path, None) for path in further)]


def find_difference(
    folder: Path, cell: Cell, hashes: Mapping[tuple[Path, str | None], str], keep_student: bool
) -> str | None:
    """Say how a finished cell differs from what is wanted; None where it does not, or there is none.

    `hashes` are those of the shards' manifests as they are now.
    """
    if not folder.exists():
        return None
    try:
        metrics = read_metrics(folder)
    except UsageError as error:
        return str(error)
    if not (folder / ROW_SCORES).exists():
        return "an older version trained it, and it has no scores of single rows"
    wanted = flatten(cell.config)
    defaults = flatten(DistillConfig(data=DataConfig(shards=(Path(),))))
    found = {**defaults, **metrics["config"]}  # an option that is younger than the cell had its default
    for name, value in wanted.items():
        if value != found.get(name):
            return f"{name} was {found.get(name)!r} and is {value!r}"
    if {hashes[each] for each in _list_shards(cell)} != set(metrics["manifest_sha256"].values()):
        return "the shards have changed since"
    if keep_student and not (folder / STUDENT).exists():
        return "its student was not kept"
    return None


def _train_all(cells: Sequence[Cell], folder: Path, workers: int, keep_students: bool) -> None:
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # read when a worker loads its libraries
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker)
    running: dict[Future[None], Cell] = {}
    waiting = list(reversed(cells))
    try:
        with track(f"cells, {workers} at a time", len(cells)) as tracker:
            while waiting or running:
                while waiting and len(running) < workers:
                    cell = waiting.pop()
                    running[pool.submit(_train_cell, cell, folder, keep_students)] = cell
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = running.pop(future)
                    try:
                        future.result()
                    except BrokenProcessPool:
                        raise Error(
                            f"a worker process died, perhaps for want of memory, at the cell {cell.name} or one beside "
                            "it. Finished cells are kept: the same command goes on, with fewer --workers if need be"
                        ) from None
                    except Exception as error:  # a library's too: torch out of memory, say
                        reason = str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
                        raise Error(f"the cell {cell.name} failed: {reason}. Finished cells are kept") from error
                    tracker.advance(1, cell.name)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _start_worker() -> None:
    silence()
    end_with_parent()


def _train_cell(cell: Cell, folder: Path, keep_student: bool) -> None:
    import torch

    from distill.run import Keep, run_distillation

    torch.set_num_threads(1)
    run_distillation(cell.config, folder / CELLS, cell.name, keep=Keep(student=keep_student, frozen=folder / FROZEN))
