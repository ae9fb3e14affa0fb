"""Shows messages and progress on standard error, and results on standard output.

Where standard error is no terminal, progress is a plain line every few seconds, so that a log file stays readable.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, Protocol, TypeAlias

import typer
from rich.console import Console
from rich.markup import escape

from shared.errors import Error, StoppedError
from shared.signals import ENDING, catch_signals, interrupt

if TYPE_CHECKING:
    from rich.progress import Progress

Parameters = ParamSpec("Parameters")

AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")
]

PLAIN_LINE_SECONDS = 5.0

messages = Console(stderr=True, highlight=False)
results = Console(highlight=False)
_silent = False


class Tracker(Protocol):
    """A running progress display."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` more as done; `note` replaces the text beside the bar."""


@contextmanager
def track(description: str, total: int) -> Iterator[Tracker]:
    """Show the progress of `total` steps while the block runs; nothing of none."""
    if _silent or not total:
        yield _SilentTracker()
    elif messages.is_terminal:
        with _make_bar() as progress:
            yield _BarTracker(progress, description, total)
    else:
        tracker = _LineTracker(description, total)
        yield tracker
        tracker.finish()


def _make_bar() -> "Progress":
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
        console=messages,
    )


class _BarTracker:
    def __init__(self, progress: "Progress", description: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=steps, note=note)


class _SilentTracker:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass


class _LineTracker:
    def __init__(self, description: str, total: int) -> None:
        self._description, self._total = description, total
        self._done, self._note = 0, ""
        self._started = self._printed = time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        self._note = note
        if time.monotonic() - self._printed >= PLAIN_LINE_SECONDS:
            self._print()

    def finish(self) -> None:
        self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        seconds = self._printed - self._started
        line = f"{self._description}: {self._done:,}/{self._total:,} in {seconds:.0f} s"
        if 0 < self._done < self._total:
            line += f", {seconds / self._done * (self._total - self._done):.0f} s left"
        messages.print(f"{line}  {self._note}".rstrip(), markup=False, soft_wrap=True)


def silence() -> None:
    """Show nothing but errors from now on. Called in all but the first of several processes that do the same work."""
    global _silent
    _silent = True


def say(message: str) -> None:
    """Print one message for the person at the keyboard."""
    if not _silent:
        messages.print(message, markup=False, soft_wrap=True)


def show_cost(cost_usd: float | None) -> str:
    """US dollars for a person: "$0.1234", or "unknown dollars" where no price is known."""
    return "unknown dollars" if cost_usd is None else f"${cost_usd:,.4f}"


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output. With `--json` a command prints nothing else there."""
    if not _silent:
        sys.stdout.write(json.dumps(value, default=str) + "\n")


def fail(error: Error) -> typer.Exit:
    """Print an error's message; give what ends the command with its exit code, for the caller to raise."""
    messages.print("[bold red]error:[/]", escape(str(error)), soft_wrap=True)
    return typer.Exit(error.exit_code)


def command(function: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Wrap the body of a command: an Error ends it with its message and exit code, an interrupt with exit code 130.

    SIGTERM and SIGHUP are interrupts, too.
    """

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            with catch_signals(interrupt, ENDING):
                function(*args, **kwargs)
        except StoppedError as stop:
            say(str(stop))
            raise typer.Exit(stop.exit_code) from None
        except Error as error:
            raise fail(error) from None
        except KeyboardInterrupt:
            say("interrupted: what was kept stays kept, and the same command goes on from there")
            raise typer.Exit(130) from None

    return run
