"""The log file of a run: what it said, when. Text, a line each, keys hidden; it may be read while the run goes on.

It is for people: progress comes once a minute and the steps of a training not at all. A disk that is full or a place
that cannot be written costs the log, and never the run.
"""

import os
import stat
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from shared.console import say
from shared.errors import Error
from shared.events import listened, read_clock
from shared.printable import make_printable
from shared.secrets import hide_secrets

PROGRESS_SECONDS = 60.0
HELD_LINES = 1000  # of what is said before the file has a place
_LEFT_OUT = frozenset({"step"})


class LogFile:
    """Hears events and writes them to a file, which `open` gives a place; what came before is held until then."""

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._held: deque[str] = deque(maxlen=HELD_LINES)
        self._shown: dict[str, float] = {}  # when the progress of what was last written

    def open(self, path: Path, *, anew: bool = False) -> None:
        """Go on at the end of the file `path`, or `anew`. Says so where that cannot be, and holds nothing more."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_TRUNC if anew else 0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, flags, 0o644)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError("it is no plain file")
            self._file = os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
            python = sys.version.split()[0]
            known = f"harvest-distill {version('harvest-distill')}, Python {python}, process {os.getpid()}"
            self._write(f"{read_clock()}  begins    {known}")
            for line in self._held:
                self._write(line)
        except OSError as error:
            self._end(f"the log {path} cannot be written ({error.strerror or error}); the run goes on without it")
        self._held.clear()

    def hear(self, moment: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write an event as a line, or hold it."""
        if event in _LEFT_OUT or (event == "progress" and not self._is_due(fields)):
            return
        line = f"{moment}  {event:<8}  {describe_event(fields)}"
        if self._file is None:
            self._held.append(line)
        else:
            self._write(line)

    def lose(self, error: Exception) -> None:
        """Say that the file is written no more."""
        self._end(f"the log cannot be written any more ({error}); the run goes on without it")

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            with suppress(OSError):  # it may find only now that the disk is full
                self._file.close()
            self._file = None

    def _write(self, line: str) -> None:
        assert self._file is not None, "it is open"
        self._file.write(make_printable(line).replace("\n", "\n    ") + "\n")

    def _is_due(self, fields: Mapping[str, Any]) -> bool:
        now, what = time.monotonic(), str(fields.get("what"))
        soon = what in self._shown and now - self._shown[what] < PROGRESS_SECONDS
        if soon and fields.get("done") != fields.get("total"):
            return False
        self._shown[what] = now
        return True

    def _end(self, why: str) -> None:
        self.close()
        say(why)


@contextmanager
def keep_log() -> Iterator[LogFile]:
    """Have a log file hear all that is said in the block, and why it ended, where it ended badly.

    The block opens the file once it knows where. Where it does not, nothing is written.
    """
    log = LogFile()
    with listened(log):
        try:
            yield log
        except BaseException as error:
            _note_end(error, log)
            raise
        finally:
            log.close()


def _note_end(error: BaseException, log: LogFile) -> None:
    """Write why a run ended badly, a defect with its traceback. Others hear of it when it is printed."""
    if isinstance(error, Error):
        text = f"{type(error).__name__}: {error}"
    elif isinstance(error, KeyboardInterrupt):
        text = f"interrupted ({error})" if str(error) else "interrupted"
    else:
        text = "".join(traceback.format_exception(error)).rstrip()
    with suppress(OSError, ValueError):
        log.hear(read_clock(), "error", {"text": hide_secrets(text)})


def describe_event(fields: Mapping[str, Any]) -> str:
    """Write an event's fields for a person: its text, or each name with its value, those of groups among them."""
    if "text" in fields:
        return str(fields["text"])
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return ", ".join(f"{name} {_show(value)}" for name, value in flat.items() if value not in (None, "", False))


def _show(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
