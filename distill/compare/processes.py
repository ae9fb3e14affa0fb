"""Cells in worker processes of this machine, each in its place."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.queues import SimpleQueue
from threading import Event

from distill.compare.hosts import FROZEN, Job
from distill.compare.places import VISIBLE, Place
from distill.runs.names import CELLS
from shared.console import silence
from shared.signals import ENDING, catch_signals, interrupt
from shared.workers import end_with_parent

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # read when a worker loads its libraries


class ProcessHost:
    """Trains one cell at a time in each of the places. See Host."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.count = len(places)
        context = multiprocessing.get_context("spawn")
        waiting_places = context.SimpleQueue()
        for place in places:
            waiting_places.put(place)
        self._held = ExitStack()
        self._held.enter_context(_environment(dict.fromkeys(_THREADS, str(places[0].threads))))
        self._pool = ProcessPoolExecutor(len(places), context, start_worker, (waiting_places,))

    def submit(self, job: Job) -> Future[None]:
        """See Host."""
        return self._pool.submit(_train_cell, job)

    def stop(self) -> None:
        """Tell the workers, by SIGTERM, to keep the checkpoints of their cells and to end those."""
        for worker in multiprocessing.active_children():
            worker.terminate()

    def close(self) -> None:
        """See Host."""
        with self._held:
            self._pool.shutdown(wait=True, cancel_futures=True)


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
