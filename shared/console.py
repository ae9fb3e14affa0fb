"""Shows messages and progress on standard error, and results on standard output.

Where standard error is no terminal, progress is a plain line every few seconds, so that a log file stays readable.
Whatever is printed passes here: what would steer a terminal (escape sequences of a reply or a file's name, say) is
spelled out. Keys are hidden in messages and errors; tables, progress and JSON show what they were given.
"""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from functools import partial, wraps
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, Protocol, TypeAlias

import typer
import typer.main
from rich.console import Console, ConsoleDimensions
from rich.markup import escape
from rich.segment import Segment

from shared.errors import Error, StoppedError, UsageError
from shared.events import JsonLines, emit, listened, mute, write_events
from shared.failures import TRACEBACK, explain
from shared.printable import make_printable
from shared.secrets import hide_secrets
from shared.signals import ENDING, catch_signals, interrupt
from shared.stores.places import spell_mirrors

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.progress import Progress
    from rich.text import Text

Parameters = ParamSpec("Parameters")

AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")
]


def _print_version(asked: bool) -> None:
    if asked:
        results.print(f"harvest-distill {version('harvest-distill')}")
        raise typer.Exit


class _Shown(IntEnum):
    """What this process prints: errors alone, for another one says the rest; results too; notices and progress too."""

    ERRORS = 0
    RESULTS = 1
    ALL = 2


def _be_quiet(asked: bool) -> None:
    global _shown
    _shown = _Shown.RESULTS if asked else _Shown.ALL


Quiet: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Show neither progress nor notices: errors and the result only.", callback=_be_quiet
    ),
]


def _choose_events(target: str | None) -> None:
    global _events
    _events = target


LogJson: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--log-json",
        metavar="FILE",
        help="Append what happens to FILE, a JSON object a line; with - to standard error, and nothing else there.",
        callback=_choose_events,
    ),
]
ShowVersion: TypeAlias = Annotated[
    bool, typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True)
]

PLAIN_LINE_SECONDS = 5.0
PACE_LINES = 12  # whose pace says how long the rest takes

PIPED_WIDTH = 1000  # columns: nothing is cut to a width that nobody has


class SafeConsole(Console):
    """A console that prints nothing unprintable, and whose end does not end what is being asked or trained.

    A pipe that nobody reads, a log on a disk that is full, a terminal that is gone: no more is printed then.
    """

    broken: OSError | None = None  # why nothing is printed any more

    def render(self, renderable: "RenderableType", options: "ConsoleOptions | None" = None) -> Iterator[Segment]:
        """Make segments of what is printed, each with printable text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=make_printable(segment.text))

    def render_str(self, text: str, **options: Any) -> "Text":
        """Make a text, printable before its width is measured."""
        return super().render_str(make_printable(text), **options)

    @property
    def size(self) -> ConsoleDimensions:
        """The size of the terminal; wide where there is none, unless COLUMNS says otherwise."""
        size = super().size
        if self._width is None and not self.is_terminal and not self._environ.get("COLUMNS", "").isdigit():
            return ConsoleDimensions(PIPED_WIDTH, size.height)
        return size

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def on_broken_pipe(self) -> None:
        """Print no more: what is being asked or trained goes on."""
        self._end(BrokenPipeError())

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:  # rich itself catches a broken pipe alone
            self._end(error)

    def _end(self, error: OSError) -> None:
        self.quiet, self.broken = True, error


messages = SafeConsole(stderr=True, highlight=False)
results = SafeConsole(highlight=False)
_shown = _Shown.ALL
_events: str | None = None  # where events go as lines of JSON


class Tracker(Protocol):
    """A running progress display."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` more as done; `note` replaces the text beside the bar."""

    def observe(self, measure: Callable[[], Mapping[str, Any]]) -> None:
        """Have the events of this progress say what `measure` gives, too."""


class _Display(Protocol):
    def advance(self, steps: int = 1, note: str = "") -> None: ...


@contextmanager
def track(description: str, total: int) -> Iterator[Tracker]:
    """Show the progress of `total` steps while the block runs, and tell it as events; nothing of none."""
    if not total:
        yield _ToldTracker(_SilentTracker(), description, total)
    else:
        with _display(description, total) as display:
            tracker = _ToldTracker(display, description, total)
            yield tracker
            tracker.tell()


@contextmanager
def _display(description: str, total: int) -> Iterator[_Display]:
    if _shown < _Shown.ALL or messages.quiet:
        yield _SilentTracker()
    elif messages.is_terminal:
        with _make_bar() as progress:
            yield _BarTracker(progress, description, total)
    else:
        tracker = _LineTracker(description, total)
        yield tracker
        tracker.finish()


class _ToldTracker:
    """A display, and beside it an event every PLAIN_LINE_SECONDS."""

    def __init__(self, display: _Display, description: str, total: int) -> None:
        self._display, self._description, self._total = display, description, total
        self._done, self._note = 0, ""
        self._measure: Callable[[], Mapping[str, Any]] = dict
        self._started = self._told = time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._display.advance(steps, note)
        self._done, self._note = self._done + steps, note
        if time.monotonic() - self._told >= PLAIN_LINE_SECONDS:
            self.tell()

    def observe(self, measure: Callable[[], Mapping[str, Any]]) -> None:
        self._measure = measure

    def tell(self) -> None:
        self._told = time.monotonic()
        seconds = round(self._told - self._started, 3)
        known = {"what": self._description, "done": self._done, "total": self._total, "seconds": seconds}
        emit("progress", **known, **self._measure(), note=self._note)


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
        self._shown: deque[tuple[float, int]] = deque(maxlen=PACE_LINES)  # when a line was printed, and what was done

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
        # By the last lines: what came before the first, such as the loading of a model, does not come again.
        then, done = self._shown[0] if self._shown else (self._printed, self._done)
        if done < self._done < self._total:
            line += f", {(self._printed - then) / (self._done - done) * (self._total - self._done):.0f} s left"
        self._shown.append((self._printed, self._done))
        messages.print(f"{line}  {self._note}".rstrip(), markup=False, soft_wrap=True)


def silence(*, tells: bool = False) -> None:
    """Show nothing but errors from now on, and tell no events unless it `tells` them.

    Called in all but the first of several processes that do the same work.
    """
    global _shown
    _shown = _Shown.ERRORS
    if not tells:
        mute()


@contextmanager
def hush() -> Iterator[None]:
    """Show neither progress nor notices while the block runs: it does again what was told before."""
    global _shown
    before, _shown = _shown, min(_shown, _Shown.RESULTS)
    try:
        yield
    finally:
        _shown = before


def say(message: str) -> None:
    """Print one notice for the person at the keyboard, without any key."""
    emit("notice", text=message)
    _tell(message, _Shown.ALL)


def _tell(message: str, to: _Shown) -> None:
    """Print a message to those who are shown as much as `to`."""
    if _shown >= to:
        messages.print(hide_secrets(spell_mirrors(message)), markup=False, soft_wrap=True)


def print_result(*lines: str) -> None:
    """Print what a command came to, a line each, on standard output, without any key."""
    for line in lines if _shown >= _Shown.RESULTS else ():
        results.print(hide_secrets(spell_mirrors(line)), markup=False, soft_wrap=True)


def show_cost(cost_usd: float | None) -> str:
    """US dollars for a person: "$0.1234"; "unknown dollars" where no price is known, "no cost" where there is none."""
    if not cost_usd:
        return "unknown dollars" if cost_usd is None else "no cost"
    return f"${cost_usd:,.4f}" if cost_usd >= 0.0001 else "less than $0.0001"


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output. With `--json` a command prints nothing else there."""
    if _shown >= _Shown.RESULTS:
        sys.stdout.write(json.dumps(value, default=str) + "\n")
        sys.stdout.flush()


def fail(error: Error) -> typer.Exit:
    """Print an error's message; give what ends the command with its exit code, for the caller to raise."""
    emit("error", text=str(error), kind=type(error).__name__, exit_code=error.exit_code)
    messages.print("[bold red]error:[/]", escape(hide_secrets(spell_mirrors(str(error)))), soft_wrap=True)
    return typer.Exit(error.exit_code)


def command(function: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Wrap the body of a command: whatever ends it is a message and an exit code; an interrupt's is 130.

    SIGTERM and SIGHUP are interrupts, too.
    """

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            with _told_to_machines():
                _run_told(partial(function, *args, **kwargs))
        except Error as error:  # the events have no place
            raise fail(error) from None

    return run


def _run_told(function: Callable[[], None]) -> None:
    try:
        with catch_signals(interrupt, ENDING):
            function()
        if results.broken is not None:
            raise results.broken
    except StoppedError as stop:
        raise _stop(str(stop), stop.exit_code) from None
    except KeyboardInterrupt:
        kept = "interrupted: what was kept stays kept, and the same command goes on from there"
        raise _stop(kept, 130) from None
    except Exception as error:
        raise _end(error) from None


@contextmanager
def _told_to_machines() -> Iterator[None]:
    """Tell the events of the block where --log-json says; on standard error then nothing else."""
    global _events
    target, _events = _events, None
    if target is None:
        yield
    elif target == "-":
        quiet, messages.quiet = messages.quiet, True
        try:
            with listened(JsonLines(sys.stderr, say)):
                yield
        finally:
            messages.quiet = quiet
    else:
        with write_events(Path(target), say):
            yield


def _stop(why: str, code: int) -> typer.Exit:
    emit("stopped", text=why, exit_code=code)
    _tell(why, _Shown.RESULTS)
    return typer.Exit(code)


def run_app(app: typer.Typer, prepare: Callable[[Any], None] | None = None) -> None:
    """Run a command line to its end, and the process with it: every exception becomes a message and an exit code.

    `prepare` is called with click's command first.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal of another encoding shows escapes and stops nothing
            stream.reconfigure(errors="backslashreplace")
    code = 0
    try:
        made = typer.main.get_command(app)
        if prepare is not None:
            prepare(made)
        code = made(standalone_mode=False) or 0
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        code = _show_usage_error(error) if _is_usage_error(error) else _end(error).exit_code
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # else Python says so, at its very end
            code = code or 1
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _end(error: Exception) -> typer.Exit:
    """Print what an exception means; give what ends the command. What is click's to handle is given, or raised, on."""
    if isinstance(error, typer.Exit):
        return error
    shows = bool(os.environ.get(TRACEBACK)) and not isinstance(error, Error)
    if shows or isinstance(error, typer.Abort) or _is_usage_error(error):
        raise error
    return fail(explain(error))


def _is_usage_error(error: Exception) -> bool:
    """Tell whether click raised it for the command line. Typer may have a click of its own, so not by its class."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _show_usage_error(error: Any) -> int:
    from shared.usage import describe_usage_error

    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        fail(UsageError(describe_usage_error(error)))
    return int(error.exit_code)
