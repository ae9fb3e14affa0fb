"""What a place where cells are trained owes to the pool, which hands them out."""

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from distill.compare.plan import Cell
from shared.errors import StoppedError

FROZEN = "frozen"  # in a comparison's folder: what the frozen layers of its students give
ENDED = (StoppedError, KeyboardInterrupt, BrokenProcessPool)  # what becomes of a cell that was told to stop


@dataclass(frozen=True, slots=True)
class Job:
    """A cell that is to be trained, the `folder` of its comparison, and whether its student is kept there."""

    cell: Cell
    folder: Path
    keep_student: bool


class Host(Protocol):
    """Trains cells, `count` at a time."""

    count: int

    def submit(self, job: Job) -> Future[None]:
        """Have a cell trained; the future has what was raised there. No more than `count` are under way."""

    def stop(self) -> None:
        """Have the cells under way keep their checkpoints, and end: with what is in ENDED."""

    def close(self) -> None:
        """Wait for the cells under way, and let go of all processes."""
