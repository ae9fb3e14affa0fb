"""Trains cells in worker processes, each in its place. A finished cell is a folder, and stays."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from threading import Event

from distill.compare.places import VISIBLE, Place
from distill.compare.plan import Cell
from distill.runs.folder import name_working_folder
from distill.runs.names import CELLS
from distill.runs.record import describe_progress
from shared.console import Tracker, silence, track
from shared.errors import Error, StoppedError
from shared.signals import ENDING, Stop, catch_signals, interrupt
from shared.workers import end_with_parent

FROZEN = "frozen"
LOOK_SECONDS = 1.0  # between looks at how far the cells are that are being trained
ENDED = (StoppedError, KeyboardInterrupt, BrokenProcessPool)  # what becomes of a cell that was told to stop
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # read when a worker loads its libraries


@dataclass(frozen=True, slots=True)
class Job:
    """A cell that is to be trained, the `folder` of its comparison, and whether its student is kept there."""

    cell: Cell
    folder: Path
    keep_student: bool


def train_cells(jobs: Sequence[Job], places: Sequence[Place], on_finished: Callable[[Job], None] | None = None) -> None:
    """Train cells, one at a time in each of the places; `on_finished` is called here after each.

    Killed at any moment, it loses the cells that are running and no other. A polite signal (shared.signals) has those
    keep their checkpoints, and then raises StoppedError. Raises Error naming the cell that failed.
    """
    context = multiprocessing.get_context("spawn")
    waiting_places = context.SimpleQueue()
    for place in places:
        waiting_places.put(place)
    with _environment(dict.fromkeys(_THREADS, str(places[0].threads))):
        pool = ProcessPoolExecutor(len(places), context, start_worker, (waiting_places,))
        try:
            stop = Stop()
            with stop.heard(), track(f"cells, {len(places)} at a time", len(jobs)) as tracker:
                _work_off(jobs, len(places), pool, tracker, on_finished, stop)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _work_off(
    jobs: Sequence[Job],
    workers: int,
    pool: ProcessPoolExecutor,
    tracker: Tracker,
    on_finished: Callable[[Job], None] | None,
    stop: Stop,
) -> None:
    running: dict[Future[None], Job] = {}
    waiting = list(reversed(jobs))
    finished = 0
    passed_on = False
    while running or (waiting and stop.told is None):
        while waiting and len(running) < workers and stop.told is None:
            job = waiting.pop()
            running[pool.submit(_train_cell, job)] = job
        done, _ = wait(running, LOOK_SECONDS, FIRST_COMPLETED)
        if stop.told is not None and not passed_on:
            passed_on = True
            _stop_workers()
        if not done:
            tracker.advance(0, "; ".join(filter(None, map(describe_job, running.values()))))
        for future in done:
            job = running.pop(future)
            if passed_on and isinstance(future.exception(), ENDED):
                continue
            _check_trained(future, job.cell)
            finished += 1
            tracker.advance(1, job.cell.name)
            if on_finished is not None:
                on_finished(job)
    if stop.told is not None and finished < len(jobs):
        raise StoppedError(
            f"{stop.told.name} stopped the comparison. Finished cells are kept, and so are the checkpoints of those "
            "that were being trained: the same command goes on from there"
        )


def _stop_workers() -> None:
    """Tell the workers, by SIGTERM, to keep the checkpoints of their cells and to end those."""
    for worker in multiprocessing.active_children():
        worker.terminate()


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
    """Take the next of the places, in a worker process of its own: it sees one GPU alone, and ends with its parent.

    What the keyboard or a terminal that is closed says is the parent's to act on: the worker ignores it, while it
    trains too (shared.signals hears no signal that is ignored). By SIGTERM the parent says that the cell is to stop.
    """
    silence(tells=True)  # a cell has a log of its own
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _note_told)
    place = places.get()
    if place.gpu is not None:
        os.environ[VISIBLE] = place.gpu  # CUDA has not looked yet: it does when it is first used
    import torch

    torch.set_num_threads(place.threads)


_told = Event()  # set in a worker that was told to stop between two cells


def _note_told(*_: object) -> None:
    _told.set()


def _train_cell(job: Job) -> None:
    from distill.run import Keep, run_distillation

    keep = Keep(student=job.keep_student, frozen=job.folder / FROZEN)
    with catch_signals(interrupt, ENDING):
        if _told.is_set():
            interrupt(signal.SIGTERM)
        run_distillation(job.cell.config, job.folder / CELLS, job.cell.name, keep=keep)
