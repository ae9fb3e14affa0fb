"""The engine's promises, against real folders: durable, once, and honest about what went wrong."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harvest.asking.commit import GroupCommit
from harvest.asking.engine import INTERRUPTED, Engine, Outcome
from harvest.asking.inflight import InFlightLog, read_in_flight
from harvest.asking.interrupt import DRAIN_SECONDS, Interrupt, SignalInterrupts
from harvest.asking.manifest import make_manifest
from harvest.asking.plan import Scope, make_plan
from harvest.asking.reserve import DiskReserve
from harvest.teachers.base import Reply, Request, Teacher
from shared.console import track
from shared.errors import TeacherError, TooManyFailuresError
from shared.example import Example
from shared.schema import Answer, Row, Status, row_schema
from shared.shards import TeacherFolder, iterate_pieces, iterate_rows, load_manifest, verify_shards
from shared.signals import POLITE
from shared.tasks import LoadedTask, find_task, load_task
from tests.harvest.answered import make_answered
from tests.harvest.scripted_teacher import ScriptedTeacher


def make_task(folder: Path, texts: list[str]) -> LoadedTask:
    pl.DataFrame({"text": texts, "label": [i % 2 for i in range(len(texts))]}).write_parquet(folder / "train.parquet")
    pl.DataFrame({"text": ["dev a", "dev b"], "label": [0, 1]}).write_parquet(folder / "validation.parquet")
    return load_task(find_task(str(folder), text_column="text", label_column="label"))


def harvest(
    out: Path,
    loaded: LoadedTask,
    teacher: Teacher,
    failure_limit: float = 0.5,
    interrupt: Interrupt | None = None,
    drain: float = DRAIN_SECONDS,
    **scope: Any,
) -> Outcome:
    with TeacherFolder.open(out, make_manifest(loaded, teacher)) as folder:
        wanted = Scope(**{"splits": tuple(loaded.splits), "limits": {}} | scope)
        plan = make_plan(loaded, teacher, wanted, {split: folder.iterate_kept(split) for split in loaded.splits})
        folder.plan(plan.planned)
        with track("test", 1) as tracker:
            engine = Engine(loaded, teacher, plan, folder, tracker, failure_limit, interrupt, drain)
            return asyncio.run(engine.run())


def read_rows(out: Path, split: str = "train", teacher: str = "scripted") -> dict[str, Row]:
    folder = out / f"teacher={teacher}"
    rows = [
        row
        for piece in iterate_pieces(folder, load_manifest(folder), row_schema().names, split)
        for row in iterate_rows(piece.table.filter(piece.current))
    ]
    assert len({row.example.sample_id for row in rows}) == len(rows)
    return {row.example.text: row for row in rows}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data" / "t"


def test_every_row_is_asked_once_and_a_second_run_asks_nothing(tmp_path: Path, out: Path) -> None:
    loaded = make_task(tmp_path, [f"text {i}" for i in range(300)])
    teacher = ScriptedTeacher()
    first = harvest(out, loaded, teacher)
    assert (first.asked, first.failed, first.cost_usd) == (302, 0, 302 * 0.25)
    rows = read_rows(out)
    assert {text: row.answer.reply for text, row in rows.items()} == {f"text {i}": f"TEXT {i}" for i in range(300)}
    second = harvest(out, loaded, teacher)
    assert (second.asked, second.cost_usd) == (0, 0)
    assert len(teacher.asked) == 302
    assert verify_shards(out).ok


def test_equal_texts_are_paid_once_and_both_answered(tmp_path: Path, out: Path) -> None:
    pl.DataFrame({"text": ["same", "other", "same", "same"], "label": [0, 1, 1, 0]}).write_csv(tmp_path / "a.csv")
    loaded = load_task(find_task(str(tmp_path / "a.csv"), text_column="text", label_column="label"))
    loaded = replace(loaded, splits={name: rows for name, rows in loaded.splits.items() if rows})
    teacher = ScriptedTeacher()
    outcome = harvest(out, loaded, teacher)
    assert sorted(teacher.asked) == ["other", "same"]
    assert (outcome.copied, outcome.cost_usd) == (2, 0.5)
    folder = out / "teacher=scripted"
    rows = [
        row
        for split in loaded.splits
        for piece in iterate_pieces(folder, load_manifest(folder), row_schema().names, split)
        for row in iterate_rows(piece.table)
    ]
    assert Counter(row.answer.cost_usd for row in rows) == {0: 2, 0.25: 2}
    assert {row.answer.reply for row in rows if row.example.text == "same"} == {"SAME"}
    assert Counter(row.example.label for row in rows) == {0: 2, 1: 2}


def test_one_bad_row_is_a_row_and_retry_asks_only_that(tmp_path: Path, out: Path) -> None:
    loaded = make_task(tmp_path, ["good", "this fails", "unaskable", "fine"])
    teacher = ScriptedTeacher()
    assert harvest(out, loaded, teacher).failed == 2
    rows = read_rows(out)
    assert rows["this fails"].answer.error == "a fault of the test"
    assert rows["unaskable"].answer.status == Status.FAILED
    assert rows["unaskable"].answer.attempts == 0
    teacher.failing, teacher.asked = False, []
    again = harvest(out, loaded, teacher, retry=(Status.FAILED,))
    assert teacher.asked == ["this fails"]
    assert again.asked == 1
    assert read_rows(out)["this fails"].answer.status == Status.OK
    assert (
        load_manifest(out / "teacher=scripted").superseded.cost_usd == 0.25
    )  # what the failure cost stays in the books


def test_a_retried_answer_reaches_the_rows_that_say_the_same(tmp_path: Path, out: Path) -> None:
    loaded = make_task(tmp_path, ["this fails", "this fails ", "good", "this fails"])
    teacher = ScriptedTeacher()
    harvest(out, loaded, teacher)
    teacher.failing, teacher.asked = False, []
    outcome = harvest(out, loaded, teacher, retry=(Status.FAILED,))
    assert sorted(teacher.asked) == ["this fails", "this fails "]
    assert outcome.copied == 1
    folder = out / "teacher=scripted"
    rows = pl.read_parquet(folder / "split=train/*.parquet")
    assert rows["status"].to_list() == ["ok"] * 4


def test_a_row_that_was_only_carried_is_no_answer_to_copy(tmp_path: Path, out: Path) -> None:
    loaded = make_task(tmp_path, ["a", "dev a", "b", "dev a"])
    harvest(out, loaded, ScriptedTeacher(), splits=("validation",), asked=())
    harvest(out, loaded, ScriptedTeacher(), asked=("train",))
    rows = pl.read_parquet(out / "teacher=scripted/split=train/*.parquet")
    assert rows["status"].to_list() == ["ok"] * 4


def test_splits_that_only_score_are_carried_without_a_question(tmp_path: Path, out: Path) -> None:
    loaded = make_task(tmp_path, ["a", "b"])
    teacher = ScriptedTeacher()
    harvest(out, loaded, teacher, asked=("train",))
    assert teacher.asked == ["a", "b"]
    assert {row.answer.status for row in read_rows(out, "validation").values()} == {Status.UNASKED}
    harvest(out, loaded, teacher)
    assert teacher.asked == ["a", "b", "dev a", "dev b"]
    rows = read_rows(out, "validation")
    assert {row.answer.status for row in rows.values()} == {Status.OK}
    assert verify_shards(out).ok


def test_a_share_of_failures_over_the_limit_stops_the_run_and_keeps_all(tmp_path: Path, out: Path) -> None:
    loaded = make_task(tmp_path, [f"fails {i}" for i in range(100)])
    teacher = ScriptedTeacher()
    with pytest.raises(TooManyFailuresError, match=r"20 of the last 20 .*a fault of the test.*--retry failed"):
        harvest(out, loaded, teacher)
    assert len(teacher.asked) == 20
    assert len(read_rows(out)) == 20
    assert harvest(out, loaded, teacher, failure_limit=1.0).asked == 82


def test_a_teacher_that_breaks_off_loses_nothing(tmp_path: Path, out: Path) -> None:
    loaded = make_task(tmp_path, [f"text {i}" for i in range(50)])
    with pytest.raises(TeacherError, match="went home"):
        harvest(out, loaded, ScriptedTeacher(break_after=30))
    assert len(read_rows(out)) == 30
    teacher = ScriptedTeacher()
    assert harvest(out, loaded, teacher).asked == 22


class Interrupted(ScriptedTeacher):
    """Calls `interrupt` when it has taken ten requests, and answers those."""

    interrupt: Callable[[], None]

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        pulled: list[Request] = []
        async for request in requests:
            pulled.append(request)
            if len(pulled) == 10:
                self.interrupt()
                await asyncio.sleep(0.01)
        for request in pulled:
            self.asked.append(request.example.text)
            yield Reply(request, self._answer(request.example.text))


def send(told: signal.Signals) -> Callable[[], None]:
    return partial(os.kill, os.getpid(), told)


@pytest.mark.parametrize("told", POLITE)
def test_a_polite_signal_lets_what_is_in_flight_arrive(tmp_path: Path, out: Path, told: signal.Signals) -> None:
    loaded = make_task(tmp_path, [f"text {i}" for i in range(50)])
    teacher = Interrupted()
    teacher.interrupt = send(told)
    assert harvest(out, loaded, teacher, interrupt=SignalInterrupts()).stopped == INTERRUPTED
    assert len(read_rows(out)) == 10
    assert read_in_flight(out / "teacher=scripted") == set()
    assert harvest(out, loaded, ScriptedTeacher()).asked == 42


class Stuck(ScriptedTeacher):
    """Takes 25 requests, answers 21, sends itself signals, and answers no more."""

    told: Sequence[signal.Signals]

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        pulled: list[Request] = []
        async for request in requests:
            pulled.append(request)
            if len(pulled) == 25:
                for request in pulled[:21]:
                    yield Reply(request, self._answer(request.example.text))
                for told in self.told:
                    os.kill(os.getpid(), told)
                    await asyncio.sleep(0.01)
                await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("told", "drain"),
    [
        ([signal.SIGINT, signal.SIGINT], 60.0),
        ([signal.SIGTERM, signal.SIGINT], 60.0),
        ([signal.SIGTERM], 0.1),
        ([signal.SIGHUP, signal.SIGHUP], 0.1),
        ([signal.SIGINT, signal.SIGTERM], 0.1),
    ],
)
def test_what_an_end_leaves_behind_is_counted_and_said_and_nothing_else_is_lost(
    tmp_path: Path, out: Path, told: list[signal.Signals], drain: float, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = make_task(tmp_path, [f"text {i}" for i in range(50)])
    stuck = Stuck()
    stuck.told = told
    with pytest.raises(asyncio.CancelledError):
        harvest(out, loaded, stuck, interrupt=SignalInterrupts(), drain=drain)
    said = capsys.readouterr().err
    assert f"{told[0].name}: nothing more is asked; 4 requests in flight may arrive" in said
    assert "4 requests were left behind in flight: the next run asks them again" in said
    assert len(read_rows(out)) == 21
    assert read_in_flight(out / "teacher=scripted") == set()  # nobody bills them
    assert harvest(out, loaded, ScriptedTeacher()).asked == 31


def test_rows_that_are_being_written_outlast_a_cancel(tmp_path: Path, out: Path) -> None:
    loaded, teacher = make_task(tmp_path, ["a", "b"]), ScriptedTeacher()
    row = Row(Example("0", "a"), "0" * 64, 0, Answer(Status.OK, reply="yes"))
    with TeacherFolder.open(out, make_manifest(loaded, teacher)) as folder:
        commit, begun = folder.commit, threading.Event()

        def commit_slowly() -> None:
            begun.set()
            time.sleep(0.2)
            commit()

        folder.commit = commit_slowly  # type: ignore[method-assign]

        async def write() -> None:
            writer = GroupCommit(folder, DiskReserve(folder.path, folder.worker), lambda: None, lambda error: None)
            async with writer:
                await writer.put(make_answered(row))
                await asyncio.to_thread(begun.wait, 10)
                await writer.put(make_answered(replace(row, request_key="1" * 64, example=Example("1", "b"))))

        async def cancel_twice() -> None:
            writing = asyncio.create_task(write())
            await asyncio.to_thread(begun.wait, 10)
            for _ in range(2):
                await asyncio.sleep(0.05)
                writing.cancel()
            await writing

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cancel_twice())
        folder.seal()
    assert set(read_rows(out)) == {"a", "b"}


@pytest.mark.parametrize("steps", range(6))
def test_a_cancel_at_any_step_of_the_beginning_ends_the_run(steps: int, tmp_path: Path, out: Path) -> None:
    loaded, teacher = make_task(tmp_path, [f"text {i}" for i in range(50)]), ScriptedTeacher()

    async def cancel() -> None:
        running = asyncio.create_task(engine.run())
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait_for(running, 10)

    with TeacherFolder.open(out, make_manifest(loaded, teacher)) as folder, track("t", 50) as tracker:
        plan = make_plan(loaded, teacher, Scope(tuple(loaded.splits), {}), {})
        folder.plan(plan.planned)
        engine = Engine(loaded, teacher, plan, folder, tracker, 0.5)
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cancel())


def test_an_engine_in_another_thread_is_interrupted_from_here(tmp_path: Path, out: Path) -> None:
    loaded = make_task(tmp_path, [f"text {i}" for i in range(50)])
    interrupt = Interrupt()
    pulled, told = threading.Event(), threading.Event()

    def wait_to_be_interrupted() -> None:
        pulled.set()
        told.wait()

    teacher = Interrupted()
    teacher.interrupt = wait_to_be_interrupted
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(harvest, out, loaded, teacher, interrupt=interrupt)
        pulled.wait()
        interrupt.request()
        told.set()
        assert running.result().stopped == INTERRUPTED
    assert len(read_rows(out)) == 10


def test_an_interrupt_before_a_run_asks_nothing(tmp_path: Path, out: Path) -> None:
    loaded = make_task(tmp_path, ["a", "b"])
    interrupt = Interrupt()
    interrupt.request()
    teacher = ScriptedTeacher()
    assert harvest(out, loaded, teacher, interrupt=interrupt).stopped == INTERRUPTED
    assert teacher.asked == []


def test_what_was_in_flight_when_a_run_died_is_known(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    log = InFlightLog(tmp_path, "w0")
    log.add("ab" * 32)
    log.add("cd" * 32)
    log.close()
    with (tmp_path / "journal" / "w0.inflight").open("ab") as file:
        file.write(b"torn")
    assert read_in_flight(tmp_path) == {"ab" * 32, "cd" * 32}
    again = InFlightLog(tmp_path, "w0")
    again.clear()
    again.close()
    assert read_in_flight(tmp_path) == set()
