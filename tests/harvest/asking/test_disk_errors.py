"""Each error of the system, at each call by which a whole run changes its folder: a named error, and nothing lost."""

import errno
import os
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from shared.errors import DiskError
from shared.shards import verify_shards
from tests.harvest.asking.test_engine import harvest, make_task, read_rows
from tests.harvest.scripted_teacher import ScriptedTeacher
from tests.shared.shards.crashes import CHANGES, interfere, refuse

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EMFILE, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT)  # of which the reserve saves what was paid for
RUN_CHANGES = (*CHANGES, *((os, name) for name in ("open", "write", "posix_fallocate")))


@pytest.mark.real
@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
def test_each_error_of_the_system_at_every_change_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    loaded = make_task(tmp_path, [f"text {i}" for i in range(20)])
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    at = changes = 0
    while at <= changes:
        out = tmp_path / f"{at:04d}"
        first, second, made = ScriptedTeacher(), ScriptedTeacher(), Counter[str]()
        with interfere(at, partial(_refuse, number, made), RUN_CHANGES), suppress(DiskError):
            harvest(out, loaded, first)
        changes += made.total()
        harvest(out, loaded, second)
        assert len(read_rows(out)) == 20
        assert set(first.asked) | set(second.asked) == {*(f"text {i}" for i in range(20)), "dev a", "dev b"}
        if number in FULL and made["pwrite"]:
            assert not set(first.asked) & set(second.asked), at
        assert verify_shards(out).ok, at
        at += 1
    assert at > 40


def _refuse(number: int, made: Counter[str], name: str, args: tuple[object, ...]) -> None:
    made[name] += 1
    refuse(number, name, args)
