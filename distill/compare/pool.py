"""Has cells trained, as many at a time as their host takes. A finished cell is a folder, and stays."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool

from distill.compare.hosts import ENDED, Host, Job
from distill.compare.plan import Cell
from distill.runs.folder import name_working_folder
from distill.runs.names import CELLS
from distill.runs.record import describe_progress
from shared.console import Tracker, track
from shared.errors import Error, StoppedError
from shared.signals import Stop

LOOK_SECONDS = 1.0  # between looks at how far the cells are that are being trained


def train_cells(jobs: Sequence[Job], host: Host, on_finished: Callable[[Job], None] | None = None) -> None:
    """Train cells; `on_finished` is called here after each. The host is closed at the end.

    Killed at any moment, it loses the cells that are running and no other. A polite signal (shared.signals) has those
    keep their checkpoints, and then raises StoppedError. Raises Error naming the cell that failed.
    """
    try:
        stop = Stop()
        with stop.heard(), track(f"cells, {host.count} at a time", len(jobs)) as tracker:
            _work_off(jobs, host, tracker, on_finished, stop)
    finally:
        host.close()


def _work_off(
    jobs: Sequence[Job], host: Host, tracker: Tracker, on_finished: Callable[[Job], None] | None, stop: Stop
) -> None:
    running: dict[Future[None], Job] = {}
    waiting = list(reversed(jobs))
    finished = 0
    passed_on = False
    while running or (waiting and stop.told is None):
        while waiting and len(running) < host.count and stop.told is None:
            job = waiting.pop()
            running[host.submit(job)] = job
        done, _ = wait(running, LOOK_SECONDS, FIRST_COMPLETED)
        if stop.told is not None and not passed_on:
            passed_on = True
            host.stop()
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
