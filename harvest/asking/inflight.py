"""Which requests were handed to a remote teacher and not journalled: what a crash may have left to be billed twice.

A log of 32-byte request keys beside the journal, written before a request leaves. It needs no fsync: what a killed
process wrote is the kernel's to keep, and after a power loss the count is a lower bound.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.disk import explain_disk_errors
from shared.errors import TeacherError, UsageError

KEY_BYTES = 32


class InFlightLog:
    """The log of one worker. `read_in_flight` reads all of a folder's."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._path = folder / "journal" / f"{worker}.inflight"
        with explain_disk_errors(self._path):
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, *keys: str) -> None:
        """Note that requests of `keys` are about to leave. Raises DiskError: they must not leave then."""
        try:
            os.write(self._descriptor, bytes.fromhex("".join(keys)))
        except OSError as error:
            with explain_disk_errors(self._path):  # entered for each row it would cost more than the row's note
                raise error

    def clear(self) -> None:
        """Forget all: every request that left has been answered and journalled, or is known not to have been sent."""
        with explain_disk_errors(self._path):
            os.ftruncate(self._descriptor, 0)

    @contextmanager
    def passing(self) -> Iterator[Callable[[str], None]]:
        """What notes requests whose replies are all in, and kept if they are to be, when the block ends.

        They are forgotten then, also where the teacher or the user's words were at fault; whatever else breaks the
        block off may have left them in flight.
        """
        before = os.fstat(self._descriptor).st_size
        try:
            yield self.add
        except (TeacherError, UsageError):
            os.ftruncate(self._descriptor, before)
            raise
        os.ftruncate(self._descriptor, before)

    def close(self) -> None:
        """Close the log; what it holds stays."""
        os.close(self._descriptor)


def read_in_flight(folder: Path) -> set[str]:
    """Keys of the requests that left in runs that did not end cleanly; some of them may have been journalled."""
    keys = set()
    for path in folder.glob("journal/*.inflight"):
        data = path.read_bytes()
        keys |= {data[i : i + KEY_BYTES].hex() for i in range(0, len(data) - len(data) % KEY_BYTES, KEY_BYTES)}
    return keys
