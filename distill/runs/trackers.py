"""Experiment trackers, by name: the curves of a training go to them while it trains, as well as to log.jsonl.

What a run that goes on from a checkpoint tells again is logged once: it is the same, for each step depends on its
number alone. TensorBoard's files and those of W&B offline lie in the run's folder and are written anew; W&B and trackio
continue the run that they hold.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.console import messages, say
from shared.errors import Error, MissingExtraError, UsageError
from shared.secrets import hide_secrets
from shared.suggestions import suggest

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from distill.training.progress import CurvePoint

TRACKERS = ("tensorboard", "wandb", "trackio")  # each is its package's name, too
PROJECT = "WANDB_PROJECT"  # the environment variable that names a project of W&B; of trackio, too
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")  # what a project's name may not hold


def check_trackers(names: Sequence[str]) -> None:
    """Raise UsageError for a tracker that is not known, and MissingExtraError for one that is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"there is no tracker {name!r}; {suggest(name, TRACKERS, there='there are')}")
        if find_spec(name) is None:
            raise MissingExtraError(
                f"the tracker {name} needs its package, which is not installed; run: pip install {name}"
            )


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What trackers know a run by: its name, the task as their project, an id of its own, and its options.

    `folder` is for what they write to disk; `goes_on` is whether a process before this one has tracked it.
    """

    name: str
    task: str
    run_id: str
    goes_on: bool
    folder: Path
    config: Mapping[str, Any]

    @property
    def project(self) -> str:
        """The project: the task's name, unless PROJECT says another."""
        return os.environ.get(PROJECT) or _FOREIGN.sub("-", self.task).strip("-") or "distill"


@dataclass(slots=True)
class _Started:
    """A tracker that has started, and what it logs values and ends with; it has all steps before `next_step`."""

    name: str
    log: Callable[..., object]
    finish: Callable[[], object]
    next_step: int


class Curves:
    """Logs points to trackers that have started. One that fails is named once, and the run goes on without it."""

    def __init__(self) -> None:
        self._started: list[_Started] = []
        self._step = 0

    def start(self, name: str, run: TrackedRun) -> None:
        """Start a tracker. Raises Error that says why it does not start."""
        try:
            with redirect_stdout(messages.file):  # what a tracker prints is no result
                self._started.append(_STARTS[name](run))
        except Exception as error:  # whatever the package raises
            raise Error(
                f"the tracker {name} did not start ({describe_failure(error)}), and nothing was trained yet. Mend it, "
                f"or leave out --tracker {name}: the run's folder has a log of its own"
            ) from error

    def log_point(self, point: "CurvePoint") -> None:
        """Log a point of the last phase's curve."""
        self._log(describe_values(point), point.step)
        self._step = max(self._step, point.step)

    def log_result(self, metrics: Mapping[str, Any]) -> None:
        """Log what a run came to, as metrics.json has it, one step behind its curve."""
        names = ("dev_best", "dev_last", "test", "best_epoch", "examples_per_second", "seconds")
        values = {f"final/{name}": float(metrics[name]) for name in names if metrics.get(name) is not None}
        self._log(values, self._step + 1)

    def finish(self) -> None:
        """Have each tracker write what it holds."""
        for one in self._started:
            self._guard(one, one.finish)
        self._started.clear()

    def _log(self, values: Mapping[str, float], step: int) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for one in list(self._started):
            if step >= one.next_step and self._guard(one, one.log, finite, step=step):
                one.next_step = step + 1

    def _guard(self, one: _Started, act: Callable[..., object], *values: Any, **named: Any) -> bool:
        try:
            with redirect_stdout(messages.file):
                act(*values, **named)
        except Exception as error:  # whatever a tracker raises: the training matters more
            if one in self._started:
                self._started.remove(one)
            say(f"the tracker {one.name} failed ({describe_failure(error)}); the run goes on without it")
            return False
        return True


@contextmanager
def open_trackers(names: Sequence[str], run: TrackedRun) -> Iterator[Curves]:
    """Start trackers; they finish with the block. Raises Error for one that does not start."""
    curves = Curves()
    try:
        for name in names:
            curves.start(name, run)
        yield curves
    finally:
        curves.finish()


def describe_values(point: "CurvePoint") -> dict[str, float]:
    """Give the values of a point, by name: its scores, its terms, the learning rates, and rows a second."""
    rates = {f"{name.removesuffix('_optimizer')}/learning_rate": rate for name, rate in point.rates.items()}
    pace = {"rows_per_second": point.rows / point.seconds} if point.seconds > 0 else {}
    return {**point.scores, **point.terms, **rates, **pace, "epoch": float(point.epoch)}


def describe_failure(error: Exception) -> str:
    """Say in a line why a tracker failed, without any key."""
    reason = hide_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
    return reason if len(reason) <= 300 else f"{reason[:299]}…"


def _start_tensorboard(run: TrackedRun) -> _Started:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    writer = SummaryWriter(str(run.folder / run.name))
    events: Any = writer.file_writer
    for summary in hparams(_describe_config(run), {}):
        events.add_summary(summary)
    return _Started("tensorboard", partial(_write_scalars, writer), writer.close, 0)


def _write_scalars(writer: "SummaryWriter", values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, step)
    writer.flush()


def _start_wandb(run: TrackedRun) -> _Started:
    """Start W&B. It knows how far a run is that goes on, but offline: then its files here are all of the run."""
    import wandb

    run.folder.mkdir(parents=True, exist_ok=True)
    started = wandb.init(
        project=run.project,
        name=run.name,
        id=run.run_id,
        dir=str(run.folder),
        config=_describe_config(run),
        resume="allow" if run.goes_on else None,
        settings=wandb.Settings(console="off"),  # what is printed stays here
    )
    return _Started("wandb", started.log, started.finish, started.step)


def _start_trackio(run: TrackedRun) -> _Started:
    """Start trackio, which knows a run that goes on by its name."""
    import trackio

    resume = "allow" if run.goes_on else "never"
    started = trackio.init(run.project, run.name, config=_describe_config(run), resume=resume, embed=False)
    next_step = getattr(started, "_next_step", 0) if run.goes_on else 0  # it has no public name for it
    return _Started("trackio", started.log, trackio.finish, next_step)


_STARTS = {"tensorboard": _start_tensorboard, "wandb": _start_wandb, "trackio": _start_trackio}


def _describe_config(run: TrackedRun) -> dict[str, int | float | str]:
    return {
        key: value if isinstance(value, int | float) else hide_secrets(str(value)) for key, value in run.config.items()
    }
