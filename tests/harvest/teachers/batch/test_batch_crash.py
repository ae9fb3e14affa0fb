"""The batch teacher killed at each step of its way: nothing is lost, and nothing is submitted twice."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from harvest.teachers.base import Reply
from harvest.teachers.batch.teacher import BatchTeacher
from tests.harvest.batch_server import BatchServer
from tests.harvest.teachers.batch.batch_runs import PRICE_IN, PRICE_OUT, ask_into, make_requests, make_teacher

ROWS = 3
COST = ROWS * (40 * PRICE_IN + PRICE_OUT) / 1e6 / 2
CHANGES = ("replace", "unlink", "rmdir", "mkdir", "write")  # the calls by which the ledger changes its folder


class Killed(BaseException):
    """Stands for the end of a process: no handler of the teacher catches it."""


class Death:
    """The end of a process, at its `at`-th change of a file (None: at none), or when it is told to `come`.

    Once it has come no file changes any more, and the server answers nothing.
    """

    def __init__(self, server: BatchServer, at: int | None) -> None:
        self.has_come = False
        self._server, self._at, self._changes = server, at, count()
        self._asking: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None

    def come(self) -> None:
        self.has_come = True
        self._server.silence()
        if self._asking is not None:
            loop, task = self._asking
            loop.call_soon_threadsafe(task.cancel)

    def wrap(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.has_come and next(self._changes) == self._at:
                self.come()
            if self.has_come:
                raise Killed
            return change(*args, **kwargs)

        return call

    @contextmanager
    def among_changes(self) -> Iterator[None]:
        originals = {name: getattr(os, name) for name in (*CHANGES, "fsync")}
        for name in CHANGES:
            setattr(os, name, self.wrap(originals[name]))
        # What a kill leaves is the kernel's view, with or without fsync.
        setattr(os, "fsync", lambda descriptor: None)  # noqa: B010
        try:
            yield
        finally:
            for name, original in originals.items():
                setattr(os, name, original)

    async def live(self, kept: dict[str, Reply], teacher: BatchTeacher) -> None:
        """Ask until it comes, or until all is answered."""
        asking = asyncio.ensure_future(ask_into(kept, teacher, make_requests(teacher, ROWS)))
        self._asking = asyncio.get_running_loop(), asking
        with suppress(asyncio.CancelledError, Killed):
            await asking


@pytest.mark.parametrize(("dialect", "kind"), [("openai", "file"), ("openai", "answer"), ("anthropic", "answer")])
def test_killed_at_each_step_nothing_is_lost_or_submitted_twice(
    tmp_path: Path, dialect: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each change of a file, and after each call of the provider was carried out, before its answer comes."""
    monkeypatch.setenv("BATCH_KEY", "a-key-of-the-tests")
    options = {
        "api_key_env": "BATCH_KEY",
        "dialect": dialect,
        "scoring": "votes" if dialect == "anthropic" else "top_logprobs",
        "votes": 1,
    }
    for at in count():
        folder = tmp_path / f"{at}"
        folder.mkdir()
        with BatchServer(dialect, looks=1) as server:
            death = Death(server, at if kind == "file" else None)
            if kind == "answer":
                server.stop_at, server.on_silence = at, death.come
            kept: dict[str, Reply] = {}
            with death.among_changes():
                asyncio.run(death.live(kept, make_teacher(server, folder, **options)))
            if not death.has_come:
                break
            server.revive()
            teacher = make_teacher(server, folder, **options)
            requests = make_requests(teacher, ROWS)
            asyncio.run(ask_into(kept, teacher, requests))
            assert kept.keys() == {request.key for request in requests}, at
            assert not server.count.doubled, at
            assert sum(server.count.answered.values()) == ROWS
            assert sum(reply.answer.cost_usd or 0.0 for reply in kept.values()) == pytest.approx(COST)
    assert at >= 3
