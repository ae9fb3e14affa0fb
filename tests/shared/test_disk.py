"""Files that are whole or not there, and locks that say who holds them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.disk import explain_disk_errors, hold_folder, is_locked, lock_file, replace_file, take_lock, write_whole
from shared.errors import DiskError, LockedError

LATER = "give another --name"


def write_half(target: Path) -> None:
    """Fail amid the new content, the old one being in place."""
    with write_whole(target) as temporary:
        temporary.write_bytes(b"half")
        assert target.read_bytes() == b"old"
        raise ZeroDivisionError


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    replace_file(target, b"old")
    with pytest.raises(ZeroDivisionError):
        write_half(target)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"
    with write_whole(target) as temporary:
        temporary.write_bytes(b"new")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"new"


def test_a_file_of_a_killed_writer_is_hidden(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from shared.disk import write_whole\n"
        "with write_whole(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.txt")], check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.txt.")
    assert left.name.endswith(".tmp")


def test_a_disk_error_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a"
    with (
        pytest.raises(DiskError, match=r"file/a cannot be written .*check the path: a part of it is a file"),
        explain_disk_errors(path),
    ):
        replace_file(path, b"")


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    held = take_lock(path, "the cache is being filled", LATER)
    assert is_locked(path)
    with pytest.raises(LockedError, match=rf"the cache is being filled by process {os.getpid()} on .*{LATER}"):
        take_lock(path, "the cache is being filled", LATER)
    os.close(held)
    assert not is_locked(path)
    with lock_file(path):
        assert is_locked(path)


def test_a_held_folder_refuses_another_and_stays_as_it_is(tmp_path: Path) -> None:
    with (
        hold_folder(tmp_path, "the run is being trained", LATER),
        pytest.raises(LockedError, match="the run is being trained by another process"),
        hold_folder(tmp_path, "the run is being trained", LATER),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    with hold_folder(tmp_path, "the run is being trained", LATER):
        pass


def test_a_folder_that_was_just_moved_away_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockedError, match="by another process"), hold_folder(tmp_path / "gone", "it is moved", LATER):
        pass
    assert not (tmp_path / "gone").exists()
