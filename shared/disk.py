"""File operations that survive a crash: files that are whole or not there, durable folders, locks."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.errors import DiskError, LockedError

TEMPORARY = ".tmp"

# is_locked takes a lock for an instant to test it: that must not keep a worker from starting.
_LOCK_ATTEMPTS = 5
_LOCK_PAUSE_S = 0.02


@contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a DiskError that says what it means for `path`."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written ({error}). Everything that was kept before is safe; free disk space or "
            "mend the folder's permissions, then run the same command again"
        ) from error


def fsync_path(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create `path` and its parents, each durable in the folder above it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    fsync_path(path.parent)


@contextmanager
def write_whole(target: Path) -> Iterator[Path]:
    """Give the block a path beside `target` to write to, and rename it to `target` when the block ends well.

    After a crash at any point `target` has its old bytes or the new ones, and the new ones survive a power loss once
    this returns. A block that fails leaves nothing; a process that is killed leaves a hidden file that ends in
    TEMPORARY. Several processes may write at once: `target` then has the bytes of one of them.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        fsync_path(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(target.parent)


def replace_file(target: Path, content: bytes) -> None:
    """Replace `target` by `content`, as write_whole does."""
    with write_whole(target) as temporary:
        temporary.write_bytes(content)


def remove_file(path: Path) -> None:
    """Remove the file `path`, if it is there, and make that survive a power loss."""
    path.unlink(missing_ok=True)
    fsync_path(path.parent)


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Wait until no other process holds the file `path`, then hold it. The kernel frees it when the process dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def take_lock(path: Path, use: str, way_out: str) -> int:
    """Lock `path` without waiting, and return the descriptor whose closing unlocks it.

    `path` is a folder, or a file, which is made if need be and says which process holds it. The kernel frees the lock
    when the process dies. Raises LockedError where another process holds it; the message is made of `use`, what the
    lock is for ("data/films is being written"), and `way_out`, what to do besides waiting ("give another --name").
    """
    is_folder = path.is_dir()
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock_at_once(descriptor, path):
            holder = b"" if is_folder else os.pread(descriptor, 200, 0)
            by = f"process {holder.decode(errors='replace')}" if holder else "another process"
            raise LockedError(f"{use} by {by}: wait for it to end, stop it, or {way_out}")
        if not is_folder:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock_at_once(descriptor: int, path: Path) -> bool:
    """Lock an open file; false where another process holds it, or held it and has just moved it away from `path`."""
    for attempt in range(_LOCK_ATTEMPTS):
        if attempt:
            time.sleep(_LOCK_PAUSE_S)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino
    return False


def is_locked(path: Path) -> bool:
    """Tell whether a living process holds the lock `path`. Writes nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
