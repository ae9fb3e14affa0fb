"""File operations that survive a crash: atomic replacement, durable folders, locks."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.errors import LockedError, ShardError

TEMPORARY = ".tmp"

# is_locked holds a lock for an instant to look at it: that must not keep a worker from starting.
_LOCK_ATTEMPTS = 5
_LOCK_PAUSE_S = 0.02


@contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a ShardError that says what it means for `path`."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"{path} cannot be written ({error}). Everything acknowledged before is safe; free disk space or "
            "mend the folder's permissions, then run the same command again"
        ) from error


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power loss."""
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


def temporary_path(target: Path) -> Path:
    """Where `target` is written before it is renamed; hidden, so that nobody takes it for data."""
    return target.with_name(f".{target.name}{TEMPORARY}")


def replace_file(target: Path, content: bytes) -> None:
    """Replace `target` by `content`: after a crash at any point it has its old bytes or the new ones.

    Several processes may do so at once: it then has the bytes of one of them.
    """
    temporary = temporary_path(target.with_name(f"{target.name}.{os.getpid()}"))
    temporary.write_bytes(content)
    fsync_path(temporary)
    os.replace(temporary, target)
    fsync_path(target.parent)


def remove_file(path: Path) -> None:
    """Remove `path` for good; one that is gone already is fine."""
    path.unlink(missing_ok=True)
    fsync_path(path.parent)


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold `path` exclusively, waiting for it. The kernel frees it when the process dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def take_lock(path: Path) -> int:
    """Lock `path` without waiting and write this process's id into it; closing the descriptor unlocks it.

    Raises LockedError, naming the process that holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock_at_once(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "unknown"
        os.close(descriptor)
        raise LockedError(
            f"{path.parent.parent} is being written by process {holder}; wait for it to end, stop it, or "
            "give this run another worker name"
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock_at_once(descriptor: int) -> None:
    for _ in range(_LOCK_ATTEMPTS - 1):
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(_LOCK_PAUSE_S)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock `path`. Writes nothing."""
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
