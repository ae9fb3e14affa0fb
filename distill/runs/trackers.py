"""Experiment trackers, by name: what an epoch gave goes to them as well as to log.jsonl."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import MissingExtraError, UsageError, require_extra
from shared.suggestions import suggest

if TYPE_CHECKING:
    from distill.training.progress import EpochRecord

TRACKERS = ("tensorboard", "wandb", "trackio")  # of those that accelerate knows; each is its package's name, too

Log = Callable[["EpochRecord", int], None]


def check_trackers(names: Sequence[str]) -> None:
    """Raise UsageError for a tracker that is not known, and MissingExtraError for one that is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"there is no tracker {name!r}; {suggest(name, TRACKERS, there='there are')}")
        require_extra("distill", "accelerate")
        if find_spec(name) is None:
            raise MissingExtraError(
                f"the tracker {name} needs its package, which is not installed; run: pip install {name}"
            )


@contextmanager
def open_trackers(names: Sequence[str], run: str, folder: Path, config: Mapping[str, Any]) -> Iterator[Log]:
    """Start trackers of a run called `run`, through accelerate; what they write to disk goes into `folder`.

    Gives a function that logs an epoch at a step count of the student: dev scores, losses and rows a second.
    """
    with ExitStack() as stack:
        trackers = [stack.enter_context(_start(name, run, folder, config)) for name in names]

        def log(record: "EpochRecord", step: int) -> None:
            values = describe_epoch(record)
            for tracker in trackers:
                tracker.log(values, step=step)

        yield log


def describe_epoch(record: "EpochRecord") -> dict[str, float]:
    """Give the values of an epoch, by name: its scores, the means of its terms, and rows a second."""
    return {**record.scores, **record.terms, "rows_per_second": record.rows / record.seconds}


@contextmanager
def _start(name: str, run: str, folder: Path, config: Mapping[str, Any]) -> Iterator[Any]:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    tracker = kind(run, folder) if kind.requires_logging_directory else kind(run)
    tracker.start()
    tracker.store_init_configuration(
        {key: value if isinstance(value, int | float) else str(value) for key, value in config.items()}
    )
    try:
        yield tracker
    finally:
        tracker.finish()
