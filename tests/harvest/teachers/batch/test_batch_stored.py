"""Harvests by a batch route into an object store: a machine that is lost takes no job with it."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import harvest
from harvest.asking.interrupt import Interrupt
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import Report, plan_harvest, run_harvest
from harvest.looking.status import read_status
from harvest.teachers.batch.ledger import FOLDER, JOB, JobRow, JobWriter, Step, read_jobs
from harvest.teachers.batch.stored import StoredJobs
from shared.errors import LockedError, StoreError
from shared.shards import verify_shards
from shared.shards.publish import open_written_folder
from tests.harvest.batch_server import BatchServer
from tests.shared.store_server import Fault, StoreServer, move_elsewhere
from tests.shared.store_server import own_places as own_places
from tests.shared.store_server import store as store

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("own_places")]

ROWS = 12
ADDRESS = Path("s3://bucket/data/reviews")
TEACHER = "data/reviews/teacher=fault"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.jsonl"
    rows = [{"text": f"review number {i}", "label": ("negative", "positive")[i % 2]} for i in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_KEY", "a-key-of-these-tests")


def choose(server: BatchServer, texts: Path, **options: Any) -> HarvestConfig:
    known = {
        **{"endpoint": server.url, "model": "fault", "dialect": "openai", "batch": True, "job_rows": 6},
        **{"poll": 0.01, "price_in": 1.0, "price_out": 1.0, "scoring": "top_logprobs", "attempts": 3},
        "api_key_env": "BATCH_KEY",
    }
    words = ("negative", "positive")
    task = TaskChoice(str(texts), text_column="text", label_column="label", labels=words, label_words=words)
    return HarvestConfig(task, TeacherChoice("endpoint", options=known | options), out=ADDRESS)


def run(server: BatchServer, texts: Path, interrupt: Interrupt | None = None, **options: Any) -> Report:
    return run_harvest(choose(server, texts, **options), interrupt=interrupt)


def list_jobs(store: StoreServer) -> list[str]:
    return [key for key in store.list_keys() if key.startswith(f"{TEACHER}/jobs/")]


def lose_machine(server: BatchServer, interrupt: Interrupt) -> None:
    """Have a run end at once, as far as anybody else can tell, when the server falls silent."""
    server.on_silence = lambda: [interrupt.request() for _ in range(2)]  # type: ignore[assignment, func-returns-value]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])  # whose jobs are found again by file, and by size
def test_another_machine_takes_up_the_jobs_of_one_that_is_lost(
    store: StoreServer,
    texts: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dialect: str,
) -> None:
    options: dict[str, Any] = {"dialect": dialect, "scoring": "choice" if dialect == "anthropic" else "top_logprobs"}
    lost_at = jobs = 0
    while True:
        move_elsewhere(tmp_path_factory, monkeypatch)
        for key in store.list_keys():
            store.delete(key)
        with BatchServer(dialect) as server:
            interrupt = Interrupt()
            server.stop_at = lost_at
            lose_machine(server, interrupt)
            try:
                run(server, texts, interrupt, **options)
                break  # it had no call so late
            except KeyboardInterrupt:
                pass
            before = server.count.jobs
            move_elsewhere(tmp_path_factory, monkeypatch)
            server.revive()
            (teacher,) = read_status(ADDRESS)["teachers"]
            under_way = sum(job["requests"] for job in teacher["jobs"])
            assert under_way >= 6 * before
            capsys.readouterr()
            plan_harvest(choose(server, texts, **options))
            assert not before or f"{under_way:,} of these requests are in jobs" in capsys.readouterr().err
            report = run(server, texts, **options)
            assert (report.left, report.failed) == (0, 0), lost_at
            assert not server.count.doubled, (lost_at, before)
            assert server.count.jobs == 2
            jobs = max(jobs, before)
        assert not list_jobs(store)
        rows = [row.example.text for row in harvest.stream_rows(ADDRESS)]
        assert len(rows) == len(set(rows)) == ROWS
        assert verify_shards(ADDRESS).ok
        lost_at += 1
    assert jobs == 2
    assert lost_at >= 6


def test_a_job_that_another_machine_has_taken_up_is_not_made_here_too(
    store: StoreServer, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where this machine slept after it had noted the job, and before its request left."""
    state = Path.cwd() / "state"

    def upset(method: str, key: str) -> Fault | None:
        if method == "PUT" and key.endswith(JOB) and not taken:
            taken.append(key)
            store.put(key, b'{"step": "creating"}')
        return None

    taken: list[str] = []
    with BatchServer() as server:
        store.fail = upset
        with pytest.raises(LockedError, match=r"another machine has taken up the job s3://bucket/.*run the same"):
            run(server, texts)
        assert taken
        assert server.count.jobs <= 1  # the other one
        store.fail = lambda method, key: None
        store.delete(taken[0])
        assert run(server, texts).left == 0
        assert not server.count.doubled
    assert not [*state.rglob(f"jobs/*/{JOB}")]


def test_a_job_is_not_made_where_the_store_cannot_know_of_it(store: StoreServer, texts: Path) -> None:
    with BatchServer() as server:
        store.fail = lambda method, key: "403" if key.endswith(JOB) and method == "PUT" else None
        with pytest.raises(StoreError, match="refuses these credentials"):
            run(server, texts)
        assert not server.jobs
        store.fail = lambda method, key: None
        assert run(server, texts).left == 0
        assert server.count.jobs == 2


def test_no_job_is_made_by_a_machine_that_slept_where_another_one_writes(
    store: StoreServer, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0.0
    monkeypatch.setattr("shared.stores.lease.time", SimpleNamespace(time=lambda: time.time() + slept))
    lease = f"{TEACHER}/writer.json"

    def sleep(method: str, key: str) -> Fault | None:
        nonlocal slept
        if method == "PUT" and key.endswith(JOB) and not slept:  # of the first job, which is made
            slept = 3600.0
            store.put(lease, json.dumps({"owner": "another", "writer": "process 7 on another"}).encode())
        return None

    with BatchServer() as server:
        store.fail = sleep
        with pytest.raises(LockedError, match="had not renewed its lease"):
            run(server, texts, jobs=1)
        assert server.count.jobs == 1
        store.delete(lease)
        report = run(server, texts, jobs=1)
        assert (report.left, server.count.jobs) == (0, 2)
        assert not server.count.doubled
    rows = [row.example.text for row in harvest.stream_rows(ADDRESS)]
    assert len(rows) == len(set(rows)) == ROWS


def test_a_job_that_another_machine_has_found_at_the_provider_is_not_made_again(store: StoreServer) -> None:
    """As where this machine looked for it too early, took it for not made, and was lost before it made it again."""
    folder = open_written_folder(ADDRESS) / "teacher=fault"
    writer = JobWriter(folder / FOLDER)
    writer.add(JobRow("k", "k-0", 0, 1, 1, 1), b"{}", 1)
    job = writer.close()
    job.move(Step.CREATING)
    StoredJobs(folder).write(job)
    job.move(Step.WRITTEN)
    job.let_go()
    key = f"{TEACHER}/jobs/{job.name}/{JOB}"
    store.put(key, json.dumps({**json.loads(store.get(key)), "step": "created", "remote": "batch-1"}).encode())
    StoredJobs(folder).fetch()
    (found,) = read_jobs(folder)
    assert (found.state.step, found.state.remote) == (Step.CREATED, "batch-1")
    found.move(Step.CREATING, remote=None, excluded=["batch-1"])
    StoredJobs(folder).fetch()
    assert [one.state.remote for one in read_jobs(folder)] == [None], "it was seen to be another's"
