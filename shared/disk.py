"""File operations that survive a crash: files that are whole or not there, durable folders, locks."""

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.errors import CorruptShardError, DiskError, LockedError
from shared.failures import find_way_out

TEMPORARY = ".tmp"
LEAST_INFLATED = 256 << 20
_MOST_RATIO = 100

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
            f"{path} cannot be written ({error.strerror or error}). Everything that was kept before is safe; "
            f"{find_way_out(error)}, then run the same command again"
        ) from error


def fsync_path(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_readable_file(path: Path) -> None:
    """Raise CorruptShardError where `path`, links followed, is there and is no plain file: a pipe never ends."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise CorruptShardError(
            f"{path} is no plain file ({_KINDS.get(stat.S_IFMT(mode), 'something else')}), as all files of a shard "
            "folder are; it was not opened. Put a copy of the file itself in its place, or move it away"
        )


def check_own_path(path: Path) -> None:
    """Raise CorruptShardError where `path` is a link: what would be written or removed lies elsewhere."""
    if path.is_symlink():
        raise CorruptShardError(
            f"{path} is a link: it can be read so, and nothing is added to a folder that has any. Put the file or "
            "folder itself in its place, or go on in a copy (cp -rL)"
        )


_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
}


def bound_inflated(size: int) -> int:
    """The most bytes that an archive or a compressed file of `size` bytes may become.

    Text shrinks to a fiftieth at most, weights hardly: what becomes more was made to fill a disk or a memory.
    """
    return max(LEAST_INFLATED, _MOST_RATIO * size)


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
        with suppress(OSError):
            temporary.unlink()
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
    """Lock the file `path` without waiting, and return the descriptor whose closing unlocks it.

    The file is made if need be, and says which process holds it. The kernel frees the lock when the process dies.
    Raises LockedError where another process holds it; the message is made of `use`, what the lock is for
    ("data/films is being written"), and `way_out`, what to do besides waiting ("give another --name").
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock_at_once(descriptor, path):
            holder = os.pread(descriptor, 200, 0).decode(errors="replace")
            raise _make_refusal(use, f"process {holder or 'unknown'}", way_out)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def hold_folder(folder: Path, use: str, way_out: str) -> Iterator[None]:
    """Hold `folder` without waiting. The lock is the folder's own, so that it leaves no file.

    The kernel frees it when the process dies. Raises LockedError, made as take_lock does, where another process holds
    the folder, or held it and has just moved it away.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise _make_refusal(use, "another process", way_out) from None
    try:
        if not _lock_at_once(descriptor, folder):
            raise _make_refusal(use, "another process", way_out)
        yield
    finally:
        os.close(descriptor)


def _make_refusal(use: str, holder: str, way_out: str) -> LockedError:
    return LockedError(f"{use} by {holder}: wait for it to end, stop it, or {way_out}")


def _lock_at_once(descriptor: int, path: Path) -> bool:
    """Lock an open file; false where another process holds it, or held it and has just moved it away from `path`."""
    for attempt in range(_LOCK_ATTEMPTS):
        if attempt:
            time.sleep(_LOCK_PAUSE_S)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.stat(path), os.fstat(descriptor))
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
