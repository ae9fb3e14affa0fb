"""A power loss at any change of a folder loses no acknowledged row; nor does any error of the system at any change."""

import errno
import os
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from tests.shared.shards import crashes
from tests.shared.shards.power_loss import CONTENTS, NAMES, Recorder
from tests.shared.shards.test_crash import FINAL, seal_and_read

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EMFILE, errno.EROFS)


@pytest.mark.real
def test_a_power_loss_at_any_change_loses_no_acknowledged_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path / "recorded")
    recorder.root.mkdir()
    with recorder.record():
        crashes.run_harvest(recorder.root, recorder.ack)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for number, moment in enumerate(recorder.moments):
        for names, contents in product(NAMES, CONTENTS):
            task_folder = tmp_path / f"{number:04d}-{names}-{contents}"
            task_folder.mkdir()
            moment.rebuild(task_folder, names, contents)
            found, _ = seal_and_read(task_folder)
            for split, row, version in moment.acked:
                assert found.get((split, row), 0) >= version, task_folder.name
    assert found == FINAL
    assert len(recorder.moments) > 60


@pytest.mark.real
@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
def test_each_error_of_the_system_at_every_change_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    at = errors = 0
    while errors or not at:
        task_folder = tmp_path / f"{at:04d}"
        task_folder.mkdir()
        with crashes.interfere(at, partial(crashes.refuse, number)):
            errors = crashes.run_stubborn_harvest(task_folder)
        found, _ = seal_and_read(task_folder)
        assert found == FINAL, at
        at += 1
    assert at > 60
