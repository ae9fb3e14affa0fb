"""Trains cells in worker processes, each in its place. A finished cell is a folder, and stays."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from distill.compare.places import VISIBLE, Place
from distill.compare.plan import Cell
from distill.runs.folder import name_working_folder
from distill.runs.record import describe_progress
from shared.console import Tracker, silence, track
from shared.errors import Error
from shared.workers import end_with_parent

CELLS, FROZEN = "cells", "frozen"
LOOK_SECONDS = 2.0  # between looks at how far the cells are that are being trained
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # read when a worker loads its libraries


@dataclass(frozen=True, slots=True)
class Job:
    """A cell that is to be trained, the `folder` of its comparison, and whether its student is kept there."""

    cell: Cell
    folder: Path
    keep_student: bool


def train_cells(jobs: Sequence[Job], places: Sequence[Place], on_finished: Callable[[Job], None] | None = None) -> None:
    """Train cells, one at a time in each of the places; `on_finished` is called here after each.

    Killed at any moment, it loses the cells that are running and no other. Raises Error naming the cell that failed.
    """
    context = multiprocessing.get_context("spawn")
    waiting_places = context.SimpleQueue()
    for place in places:
        waiting_places.put(place)
    with _environment(dict.fromkeys(_THREADS, str(places[0].threads))):
        pool = ProcessPoolExecutor(len(places), context, start_worker, (waiting_places,))
        try:
            with track(f"cells, {len(places)} at a time", len(jobs)) as tracker:
                _work_off(jobs, len(places), pool, tracker, on_finished)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _work_off(
    jobs: Sequence[Job],
    workers: int,
    pool: ProcessPoolExecutor,
    tracker: Tracker,
    on_finished: Callable[[Job], None] | None,
) -> None:
    running: dict[Future[None], Job] = {}
    waiting = list(reversed(jobs))
    while waiting or running:
        while waiting and len(running) < workers:
            job = waiting.pop()
            running[pool.submit(_train_cell, job)] = job
        done, _ = wait(running, LOOK_SECONDS, FIRST_COMPLETED)
        if not done:
            tracker.advance(0, "; ".join(filter(None, map(describe_job, running.values()))))
        for future in done:
            job = running.pop(future)
            _check_trained(future, job.cell)
            tracker.advance(1, job.cell.name)
            if on_finished is not None:
                on_finished(job)


def describe_job(job: Job) -> str:
    """Say how far a cell is that is being trained; "" before its first epoch has ended."""
    progress = describe_progress(name_working_folder(job.folder / CELLS / job.cell.name))
    return f"{job.cell.name}: {progress}" if progress else ""


def _check_trained(future: Future[None], cell: Cell) -> None:
    try:
        future.result()
    except BrokenProcessPool:
        raise Error(
            f"a worker process died, perhaps for want of memory, at the cell {cell.name} or one beside it. Finished "
            "cells are kept: the same command goes on, with fewer --workers if need be"
        ) from None
    except Exception as error:  # a library's too: torch out of memory, say
        reason = str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
        raise Error(f"the cell {cell.name} failed: {reason}. Finished cells are kept") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def start_worker(places: "SimpleQueue[Place]") -> None:
    """Take the next of the places, in a worker process of its own: it sees one GPU alone, and ends with its parent."""
    silence()
    end_with_parent()
    place = places.get()
    if place.gpu is not None:
        os.environ[VISIBLE] = place.gpu  # CUDA has not looked yet: it does when it is first used
    import torch

    torch.set_num_threads(place.threads)


def _train_cell(job: Job) -> None:
    from distill.run import Keep, run_distillation

    keep = Keep(student=job.keep_student, frozen=job.folder / FROZEN)
    run_distillation(job.cell.config, job.folder / CELLS, job.cell.name, keep=keep)
