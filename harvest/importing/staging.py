"""A teacher folder that is there as a whole or not at all: it is filled out of sight, and moved to its place."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.disk import explain_disk_errors, fsync_path, hold_folder, make_folder


@contextmanager
def stage(target: Path) -> Iterator[Path]:
    """Give the block a hidden folder beside `target` to work in; whatever is left in it goes when the block ends.

    What a killed process left of the same name goes when the next one begins. Raises LockedError where a living process
    works in it, DiskError where it cannot be made.
    """
    name = target.name.removeprefix("teacher=")
    work = target.parent / f".import-{name}"
    missing = [folder for folder in target.parents if not folder.exists()]
    with explain_disk_errors(work):
        make_folder(work)
    with hold_folder(work, f"{target} is being imported", "give another --name"):
        _empty(work)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            with suppress(OSError):  # what was made for it, where nothing came of it
                for folder in missing:
                    folder.rmdir()


def publish(folder: Path, target: Path) -> None:
    """Move a finished teacher folder to `target`, where nothing is. It survives a power loss once this returns."""
    with explain_disk_errors(target):
        os.rename(folder, target)
        fsync_path(target.parent)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
