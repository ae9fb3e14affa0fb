"""Replicas in processes of this machine: each row once, whoever dies; and nothing that outlives the run."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harvest.config import HarvestConfig, PoolConfig, TeacherChoice
from harvest.job import plan_harvest, run_harvest
from shared.errors import RecipeMismatchError, TeacherError
from shared.schema import answer_schema
from shared.shards import verify_shards
from tests.harvest.children import list_children
from tests.harvest.teachers.pool.conftest import choose_task
from tests.harvest.teachers.pool.rows import read_rows

pytestmark = pytest.mark.real


def choose(
    folder: Path, texts: list[str], replicas: int | None, asked: Path | None = None, **options: Any
) -> HarvestConfig:
    """A harvest of `texts` by echo into `folder`/out."""
    noted = {} if asked is None else {"asked": str(asked)}
    teacher = TeacherChoice("echo", options={**options, **noted})
    return HarvestConfig(choose_task(folder, texts), teacher, PoolConfig(replicas), out=folder / "out")


def read_audio(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("out/teacher=echo/audio/*/*.wav")}


def name_texts(count: int) -> list[str]:
    return [f"film number {i}" for i in range(count)]


def read_asked(asked: Path) -> Counter[str]:
    return Counter(line for path in asked.glob("asked-*") for line in path.read_text().splitlines())


def test_replicas_answer_as_one_process_does_and_end(tmp_path: Path, asked: Path) -> None:
    before = list_children()
    texts = name_texts(300)
    alone, pooled = tmp_path / "alone", tmp_path / "pooled"
    alone.mkdir()
    pooled.mkdir()
    run_harvest(choose(alone, texts, None))
    report = run_harvest(choose(pooled, texts, 2, asked, gather=16, seconds=0.15))
    assert (report.asked, report.failed) == (300, 0)
    assert read_rows(pooled / "out/teacher=echo") == read_rows(alone / "out/teacher=echo")
    assert read_audio(pooled) == read_audio(alone)
    assert len(read_audio(pooled)) == 3
    assert (alone / "out/teacher=echo/manifest.json").exists()
    assert len(list(asked.glob("asked-*"))) == 2  # neither had all of them
    assert len(list(asked.glob("ended-*"))) == 3  # as teachers end; one is this process's own
    assert plan_harvest(choose(pooled, texts, 3)).to_ask == 0  # their number is no part of a key
    assert list_children() == before


def test_replicas_give_vectors_for_answers_that_another_run_kept(tmp_path: Path) -> None:
    out, task = tmp_path / "out", choose_task(tmp_path, name_texts(120))
    run_harvest(HarvestConfig(task, TeacherChoice("echo", name="kept"), out=out))
    both = HarvestConfig(task, TeacherChoice("echo", name="both"), PoolConfig(2), onto=out / "teacher=kept", out=out)
    report = run_harvest(both)
    assert (report.asked, report.failed) == (120, 0)
    kept, found = read_rows(out / "teacher=kept"), read_rows(out / "teacher=both")
    assert {name: (row["reply"], row["embedding"]) for name, row in found.items()} == {
        name: (row["reply"], row["embedding"]) for name, row in kept.items()
    }
    assert len(list(out.glob("teacher=both/audio/*/*.wav"))) == 1


def test_a_replica_that_dies_is_replaced_and_a_row_that_kills_fails(tmp_path: Path, asked: Path) -> None:
    texts = name_texts(200)
    texts[3] = texts[150] = "a deadly film"
    texts[150] += " again"
    texts[80] = "a forgotten film"
    report = run_harvest(choose(tmp_path, texts, 2, asked, gather=16, seconds=0.01))
    rows = read_rows(tmp_path / "out/teacher=echo")
    failed = {row["sample_id"]: row["error"] for row in rows.values() if row["status"] == "failed"}
    assert (report.asked, report.failed, len(rows), len(failed)) == (200, 3, 200, 3)
    assert all("replicas ended while they were asked this row" in error for error in failed.values())
    assert read_asked(asked)["a deadly film"] <= 6  # it is not asked for ever
    assert verify_shards(tmp_path / "out").ok


def test_replicas_that_cannot_begin_end_the_run_with_one_message(tmp_path: Path) -> None:
    with pytest.raises(TeacherError) as raised:
        run_harvest(choose(tmp_path, name_texts(50), 2, broken="there is no model of that name"))
    assert str(raised.value).count("there is no model of that name") == 1
    assert str(raised.value).startswith("none of 2 replicas can work; each said")
    before = list_children()
    with pytest.raises(TeacherError, match=r"ended with code -9 .*memory"):  # each row kills: as if it were the loading
        run_harvest(choose(tmp_path, [f"deadly {i}" for i in range(50)], 2))
    with pytest.raises(TeacherError, match=r"the teacher's answer to row \S+ cannot be kept .*_thread.lock"):
        run_harvest(choose(tmp_path, ["unsendable"] * 2, 1))
    assert list_children() == before


def test_a_replica_of_a_version_with_other_columns_answers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harvest.teachers.pool.make.answer_schema", lambda: answer_schema().remove(0))
    with pytest.raises(RecipeMismatchError, match="has another version of this package"):
        run_harvest(choose(tmp_path, name_texts(4), 1))


def test_a_replica_that_hangs_is_replaced_and_one_that_is_slow_is_not(
    tmp_path: Path, asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harvest.teachers.pool.teacher.LOOK_SECONDS", 0.5)
    monkeypatch.setattr("harvest.teachers.pool.teacher.SILENT_LOOKS", 10)
    stopped: list[int] = []

    def stop_one() -> None:
        wait_until(lambda: len(list(asked.glob("asked-*"))) == 2, "both replicas answer")
        stopped.append(min(find_replicas(os.getpid())))
        os.kill(stopped[0], signal.SIGSTOP)

    stopping = threading.Thread(target=stop_one)
    stopping.start()
    report = run_harvest(choose(tmp_path, name_texts(40), 2, asked, gather=8, seconds=7.0))
    stopping.join()
    assert (report.asked, report.failed) == (40, 0)
    assert not lives(stopped[0])
    said = capsys.readouterr().err
    assert said.count("hangs: nothing was heard of it for 5 s, and it was killed; another takes its place") == 1
    assert len(list(asked.glob("asked-*"))) == 3


COMMAND = """
import sys
from pathlib import Path
from tests.harvest.teachers.pool.test_processes import choose, name_texts
from harvest.asking.interrupt import SignalInterrupts
from harvest.job import run_harvest
folder, asked = map(Path, sys.argv[1:])
run_harvest(choose(folder, name_texts(400), 2, asked, gather=4, seconds=0.2), interrupt=SignalInterrupts())
"""


def find_replicas(parent: int) -> list[int]:
    """The processes of a run that answer."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line, status = (path / "cmdline").read_text(), (path / "stat").read_text()
        except OSError:
            continue
        if "harvest.teachers.pool.process" in line and int(status.rpartition(")")[2].split()[1]) == parent:
            found.append(int(path.name))
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize(("sent", "code"), [([signal.SIGINT], -2), ([signal.SIGINT] * 2, -2), ([signal.SIGKILL], -9)])
def test_however_a_run_ends_its_replicas_do_and_the_next_goes_on(
    tmp_path: Path, asked: Path, sent: list[signal.Signals], code: int
) -> None:
    run = subprocess.Popen([sys.executable, "-c", COMMAND, str(tmp_path), str(asked)], stderr=subprocess.PIPE)
    try:
        wait_until(lambda: len(list(asked.glob("asked-*"))) == 2, "both replicas answer")
        replicas = find_replicas(run.pid)
        assert len(replicas) == 2
        for number in sent:
            run.send_signal(number)
            time.sleep(0.3)
        _, said = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == code, said
    wait_until(lambda: not any(map(lives, replicas)), "no replica is left")
    before = read_asked(asked)
    report = run_harvest(choose(tmp_path, name_texts(400), 3, asked, gather=4))
    assert report.kept + report.asked == 400
    again = read_asked(asked) - before
    assert sum(again.values()) == report.asked
    assert len(read_rows(tmp_path / "out/teacher=echo")) == 400
    if len(sent) == 1 and sent[0] == signal.SIGINT:
        assert sum(before.values()) == report.kept  # what was in flight has arrived
