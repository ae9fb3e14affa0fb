"""A harvest in small, and the ways in which it is cut short: what runs in the child processes of test_crash.py."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.errors import DiskError
from shared.shards import TeacherFolder
from tests.shared.shards.shard_rows import make_manifest, make_row

CRASHED = 9

# Every call by which a folder changes, and the two by which a Parquet file grows.
CHANGES: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("replace", "unlink", "fsync", "pwrite", "ftruncate", "mkdir")),
    (pq.ParquetWriter, "write_table"),
    (pq.ParquetWriter, "close"),
)

Ack = Callable[[str, int, int], None]  # split, row, version


def append(folder: TeacherFolder, split: str, numbers: range, version: int) -> None:
    folder.append(split, [make_row(number, reply=str(version)) for number in numbers])


# The harvest: rows that arrive in several batches, are sealed, asked again, and superseded in part and in whole.
STEPS: tuple[tuple[str, range, int, str | None], ...] = (
    # split, rows, version, then seal this split ("" is all of them, None is none)
    ("train", range(0, 6), 1, None),
    ("dev", range(0, 3), 1, None),
    ("train", range(6, 9), 1, "train"),
    ("train", range(4, 7), 2, None),
    ("train", range(9, 12), 1, ""),
    ("dev", range(0, 3), 2, ""),
    ("train", range(12, 14), 1, None),
)


def run_harvest(task_folder: Path, ack: Ack) -> None:
    with TeacherFolder.open(task_folder, make_manifest()) as folder:
        for split, numbers, version, sealed in STEPS:
            append(folder, split, numbers, version)
            folder.commit()
            for number in numbers:
                ack(split, number, version)
            if sealed is not None:
                folder.seal(sealed or None)


def run_stubborn_harvest(task_folder: Path) -> int:
    """The same where each step is tried again until it works. How many errors there were."""
    errors = 0
    folder = None
    for split, numbers, version, sealed in STEPS:
        for _ in range(9):
            try:
                folder = folder or TeacherFolder.open(task_folder, make_manifest())
                append(folder, split, numbers, version)
                folder.commit()
                break
            except DiskError:
                errors += 1
                if folder is not None:
                    with suppress(DiskError):
                        folder.close()
                folder = None
        if sealed is not None:
            # No new try and no new folder: the rows stay in the journal, and the harvest goes on.
            assert folder is not None
            try:
                folder.seal(sealed or None)
            except DiskError:
                errors += 1
    if folder is not None:
        with suppress(DiskError):
            folder.close()
    return errors


class Acks:
    """Writes down each acknowledged row, by system call, so that a crash does not take it back."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, split: str, number: int, version: int) -> None:
        os.write(self.descriptor, f"{split} {number} {version}\n".encode())


@contextmanager
def interfere(
    at: int, act: Callable[[str, tuple[Any, ...]], None], changes: Sequence[tuple[Any, str]] = CHANGES
) -> Iterator[None]:
    """Call `act` in place of the `at`-th of the `changes`, counted from 0."""
    counter = count()
    originals = [(owner, name, getattr(owner, name)) for owner, name in changes]

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(counter) == at:
                act(name, args)
            # What a kill leaves is the kernel's view, with or without fsync; the hundreds of real ones take a minute.
            return None if name == "fsync" else original(*args, **kwargs)

        return call

    for owner, name, original in originals:
        setattr(owner, name, wrap(name, original))
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def crash(name: str, args: tuple[Any, ...]) -> None:
    """Die as by SIGKILL: no handler runs, no buffer is written. A write gets half-way first."""
    if name == "pwrite":
        descriptor, content, offset = args
        os.lseek(descriptor, offset, os.SEEK_SET)
        os.write(descriptor, content[: len(content) // 2])
    os._exit(CRASHED)


def fail(name: str, args: tuple[Any, ...]) -> None:
    raise OSError(errno.EIO if name == "fsync" else errno.ENOSPC, os.strerror(errno.ENOSPC))


def refuse(number: int, name: str, args: tuple[Any, ...]) -> None:
    """Fail as the system does, with the error of that number."""
    raise OSError(number, os.strerror(number))


def crash_everywhere(root: Path) -> None:
    """Run the harvest once for every change that it makes, each time dying at that change.

    One folder a crash, root/<at>/, with the file `acked`: one line a row that was acknowledged. The last one has no
    crash. Forks, so that a crash costs no start of an interpreter, after a first harvest has loaded all modules.
    """
    with TemporaryDirectory() as scratch:
        run_harvest(Path(scratch), lambda *_: None)
    for at in count():
        folder = root / f"{at:04d}"
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            with interfere(at, crash):
                run_harvest(folder, Acks(folder / "acked"))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != CRASHED:
            assert code == 0
            return


def fill_for_rewrite(task_folder: Path) -> None:
    with TeacherFolder.open(task_folder, make_manifest()) as folder:
        for numbers in (range(0, 5), range(5, 9)):
            append(folder, "train", numbers, 1)
            folder.seal()


def rewrite(task_folder: Path) -> None:
    """Give each row the reply 2, shard by shard."""

    def revise(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("reply")
        return table.set_column(at, table.schema.field(at), pa.array(["2"] * table.num_rows))

    with TeacherFolder.open(task_folder, make_manifest()) as folder:
        for shard in folder.manifest.shards:
            folder.rewrite(shard, revise)


def crash_rewrite_everywhere(root: Path) -> None:
    """As crash_everywhere, of `rewrite`."""
    with TemporaryDirectory() as scratch:
        filled = Path(scratch, "filled")
        fill_for_rewrite(filled)
        rewrite(Path(shutil.copytree(filled, Path(scratch, "first"))))
        for at in count():
            if not crash_rewrite(Path(shutil.copytree(filled, root / f"{at:04d}")), at):
                return


def crash_rewrite(folder: Path, at: int) -> bool:
    """Die at the change of this number; False where there are not so many."""
    pid = os.fork()
    if pid == 0:
        with interfere(at, crash):
            rewrite(folder)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, CRASHED)
    return code == CRASHED


def harvest_until_killed(task_folder: Path, first: int, connection: Any) -> None:
    """Write rows without end, telling each one that is acknowledged, sealing and asking again now and then."""
    with TeacherFolder.open(task_folder, make_manifest()) as folder:
        for number in count(first):
            append(folder, "train", range(number, number + 1), 1)
            if number % 5 == 0:
                append(folder, "train", range(max(0, number - 12), max(0, number - 10)), 2)
            folder.commit()
            connection.send(number)
            if number % 7 == 6:
                folder.seal("train")
