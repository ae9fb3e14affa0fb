"""Tells what a command says and does, event by event, to who listens: a run's log file, lines of JSON for machines.

An event is a name and plain fields, keys hidden. A listener that fails hears no more, and what is being asked or
trained goes on. docs/runs.md lists the events.
"""

import json
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

from shared.errors import UsageError
from shared.secrets import hide_secrets

_listeners: list["Listener"] = []
_lock = threading.RLock()
_muted = False


class Listener(Protocol):
    """Whoever hears events, in any thread, one at a time."""

    def hear(self, moment: str, event: str, fields: Mapping[str, Any]) -> None:
        """Take an event and its moment, in UTC as ISO 8601 writes it. May raise OSError or ValueError."""

    def lose(self, error: Exception) -> None:
        """Learn that it hears no more, for `hear` raised that."""


def emit(event: str, **fields: Any) -> None:
    """Tell an event to all who listen. Costs nothing where nobody does."""
    if not _listeners or _muted:
        return
    moment = read_clock()
    clean = {name: _clean(value) for name, value in fields.items()}
    lost: list[tuple[Listener, Exception]] = []
    with _lock:
        for listener in list(_listeners):
            try:
                listener.hear(moment, event, clean)
            except (OSError, ValueError) as error:  # a disk that is full, a stream that is closed
                _listeners.remove(listener)
                lost.append((listener, error))
    for listener, why in lost:
        listener.lose(why)


def mute() -> None:
    """Tell nothing from now on. Called in all but the first of several processes that do the same work."""
    global _muted
    _muted = True


def read_clock() -> str:
    """Give the moment, in UTC, as ISO 8601 writes it: 2026-11-26T12:00:00.000Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def listened(listener: Listener) -> Iterator[None]:
    """Have `listener` hear all events of the block; Python's warnings are events, too."""
    show = warnings.showwarning
    with _lock:
        _listeners.append(listener)
    if len(_listeners) == 1:
        warnings.showwarning = _WarningTeller(show)
    try:
        yield
    finally:
        with _lock:
            if listener in _listeners:
                _listeners.remove(listener)
        if not _listeners:
            warnings.showwarning = show


class JsonLines:
    """Writes each event as one JSON object a line. `complain` is called once, with what is wrong, where that fails."""

    def __init__(self, stream: TextIO, complain: Callable[[str], None]) -> None:
        self._stream, self._complain = stream, complain

    def hear(self, moment: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a line, at once."""
        self._stream.write(json.dumps({"time": moment, "event": event, **fields}) + "\n")
        self._stream.flush()

    def lose(self, error: Exception) -> None:
        """Complain."""
        self._complain(f"events cannot be written any more ({error}); what is being done goes on without them")


@contextmanager
def write_events(path: Path, complain: Callable[[str], None]) -> Iterator[None]:
    """Append the events of the block to a file as JsonLines does. Raises UsageError where it cannot be opened."""
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--log-json {path} cannot be written ({error.strerror}); give another file") from None
    try:
        with listened(JsonLines(file, complain)):
            yield
    finally:
        with suppress(OSError):  # it finds once more that a disk is full
            file.close()


def _clean(value: Any) -> Any:
    """Make plain JSON of a value: numbers that are none are null, keys are hidden."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return {hide_secrets(str(name)): _clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return hide_secrets(str(value))


class _WarningTeller:
    def __init__(self, show: Callable[..., None]) -> None:
        self._show = show

    def __call__(self, message: Warning | str, category: type[Warning], *more: Any, **named: Any) -> None:
        emit("warning", text=f"{category.__name__}: {message}")
        self._show(message, category, *more, **named)
