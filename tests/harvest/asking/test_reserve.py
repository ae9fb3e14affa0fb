"""A disk that fills: asking stops, and nothing that was in flight is lost, or asked again."""

import asyncio
import errno
import os
import shutil
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harvest.asking.reserve import NEARLY_FULL, RESERVE_BYTES, DiskReserve
from harvest.teachers.base import Reply, Request
from shared.errors import DiskError
from shared.shards import verify_shards
from tests.harvest.asking.test_engine import harvest, make_task, read_rows
from tests.harvest.scripted_teacher import ScriptedTeacher

IN_FLIGHT = 30
FULL_AFTER, ROWS = 60, 200


class Windowed(ScriptedTeacher):
    """Has IN_FLIGHT requests in flight, and answers each when another is pulled.

    After FULL_AFTER requests it is slow: however long the disk takes to refuse a row, not all are asked meanwhile.
    """

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        held: deque[Request] = deque()
        async for request in requests:
            self.asked.append(request.example.text)
            held.append(request)
            if len(held) == IN_FLIGHT:
                await asyncio.sleep(0.0 if len(self.asked) <= FULL_AFTER else 0.1)
                yield self._reply(held.popleft())
        while held:
            yield self._reply(held.popleft())

    def _reply(self, request: Request) -> Reply:
        return Reply(request, self._answer(request.example.text))


class Usage(NamedTuple):
    """As shutil.disk_usage gives it."""

    total: int
    used: int
    free: int


def fill_after(asked: Sequence[str], reserve: Path) -> Callable[..., int]:
    """`os.pwrite` of a disk that is full once more than FULL_AFTER are `asked`, but for what the reserve gives up."""
    pwrite = os.pwrite

    def write(descriptor: int, content: bytes, offset: int) -> int:
        if len(asked) > FULL_AFTER and reserve.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, content, offset)

    return write


def shrink_after(asked: Sequence[str]) -> Callable[..., Usage]:
    """`shutil.disk_usage` of a disk on which nothing is free once more than FULL_AFTER are `asked`."""

    def measure(path: Path) -> Usage:
        return Usage(2**40, 0, 2**39 if len(asked) <= FULL_AFTER else 1000)

    return measure


@pytest.mark.parametrize("written", [True, False], ids=["it refuses a row", "little is free"])
def test_a_disk_that_fills_stops_the_asking_and_keeps_what_was_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    out = tmp_path / "data" / "t"
    folder = out / "teacher=scripted"
    loaded = make_task(tmp_path, [f"text {i}" for i in range(ROWS)])
    reserve = folder / "journal" / "w0.reserve"
    teacher = Windowed()
    with monkeypatch.context() as fault:
        if written:
            fault.setattr(os, "pwrite", fill_after(teacher.asked, reserve))
        else:
            fault.setattr(shutil, "disk_usage", shrink_after(teacher.asked))
        outcome = harvest(out, loaded, teacher)
    assert outcome.stopped == NEARLY_FULL
    assert IN_FLIGHT < outcome.asked == len(teacher.asked) < ROWS
    assert not reserve.exists()
    again = ScriptedTeacher()
    assert harvest(out, loaded, again).stopped is None
    assert sorted(teacher.asked + again.asked) == sorted([*(f"text {i}" for i in range(ROWS)), "dev a", "dev b"])
    assert len(read_rows(out)) == ROWS
    assert verify_shards(out).ok


def test_nothing_is_asked_where_there_is_no_room_for_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    loaded, teacher = make_task(tmp_path, ["a", "b"]), ScriptedTeacher()
    with pytest.raises(DiskError, match="free disk space"):
        harvest(tmp_path / "data" / "t", loaded, teacher)
    assert teacher.asked == []


def test_the_reserve_is_real_room_and_grows_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "journal").mkdir()
    reserve = DiskReserve(tmp_path, "w0")
    path = tmp_path / "journal" / "w0.reserve"
    assert path.stat().st_blocks * 512 >= RESERVE_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 0, 10**6))
    assert reserve.covers(100)
    reserve.note(10, 10**6)
    assert reserve.covers(5)
    assert not reserve.covers(6)
    assert reserve.spend()
    assert not path.exists()
    assert not reserve.spend()
