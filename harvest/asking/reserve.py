"""Room on the disk that is kept for what is in flight: a disk that fills loses nothing that was paid for."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from shared.disk import explain_disk_errors

RESERVE_BYTES = 8 * 2**20
LEAST_ROW_BYTES = 4096
LOOK_SECONDS = 0.05  # what a disk takes in that time is far below the reserve's room, and a half is left free besides
NEARLY_FULL = (
    "the disk is nearly full, and what was in flight is kept in the room that was left for it; free disk space"
)


class DiskReserve:
    """A file of `size` bytes beside a worker's journal, given up where the disk refuses a row; none where that is 0.

    Asking stops before that: `covers` tells whether there is room, beside the reserve, for what is in flight. Another
    writer, or a quota, may take that room all the same; then `spend` makes some. Raises DiskError where there is none
    for the reserve itself.
    """

    def __init__(self, folder: Path, worker: str, size: int = RESERVE_BYTES) -> None:
        self._folder = folder
        self._path = folder / "journal" / f"{worker}.reserve"
        self._row_bytes = float(LEAST_ROW_BYTES)  # the largest mean of a group of rows
        self._free, self._looked_at = 0.0, 0.0  # what the disk said last, and when
        self.is_spent = False
        if not size:
            return
        with explain_disk_errors(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError:
                self.close()
                raise
            finally:
                os.close(descriptor)

    def note(self, rows: int, size: int) -> None:
        """Learn from `rows` that took `size` bytes how many a row takes."""
        if rows:
            self._row_bytes = max(self._row_bytes, size / rows)

    def covers(self, rows: int) -> bool:
        """Tell whether so many rows find room beside the reserve.

        The disk is asked anew after LOOK_SECONDS, and at once where what it said would not do.
        """
        if self.is_spent:
            return False
        needed = 2 * rows * self._row_bytes
        if needed > self._free or time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = time.monotonic()
            try:
                self._free = shutil.disk_usage(self._folder).free
            except OSError:
                return True  # what cannot be measured shows when it is written
        return needed <= self._free

    def spend(self) -> bool:
        """Give the reserve up, so that its room can be written to; false where that was done before."""
        if self.is_spent:
            return False
        self.is_spent = True
        self.close()
        return True

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
