"""`harvest run --out s3://...` from the shell: killed, gone on with from another machine, and read again."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

import harvest
import harvest.cli
from harvest.asking.commit import GroupCommit
from harvest.asking.reserve import DiskReserve
from harvest.looking.reparse import reparse
from shared.disk import lock_file
from shared.shards import TeacherFolder, choose_teacher, count_unsealed, load_manifest, verify_shards
from shared.shards.publish import open_written_folder
from shared.shards.read import FOLDER_LOCK
from tests.harvest.answered import make_answered
from tests.harvest.fault_server import Asked, ErrorReply, FaultServer, make_reply, spread_logprobs
from tests.shared.shards.shard_rows import make_manifest, make_row
from tests.shared.store_server import Fault, StoreServer, move_elsewhere
from tests.shared.store_server import own_places as own_places
from tests.shared.store_server import store as store

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("own_places")]

ADDRESS = "s3://bucket/data/films"
LEASE = "data/films/teacher=m/writer.json"
MANIFEST = "data/films/teacher=m/manifest.json"
ROWS = 150
# The command, whose shards are uploaded several times a second.
RUN = """
import harvest.asking.commit
import harvest.cli
harvest.asking.commit.UPLOAD_SECONDS = 0.3
harvest.cli.main()
"""


def write_texts(folder: Path) -> Path:
    path = folder / "films.csv"
    path.write_text("\n".join(["text,label", *(f"film number {i},{('bad', 'good')[i % 2]}" for i in range(ROWS))]))
    return path


def make_command(texts: Path, endpoint: str) -> list[str]:
    asked = ("--teacher", "endpoint", "--endpoint", endpoint, "--model", "m", "--scoring", "top_logprobs")
    return ["run", *asked, "--task", str(texts), "--concurrency", "4", "--out", ADDRESS, "--json"]


def find_text(asked: Asked) -> str:
    (found,) = {part for part in json.dumps(asked.body).split('"') if "film number" in part} or {""}
    return found


def make_good_reply() -> dict[str, object]:
    """A reply whose label is "good", by a probability of .9."""
    logprobs = spread_logprobs(0.9)
    return make_reply("good", {"good": logprobs.pop("positive"), "bad": logprobs.pop("negative")})


def test_a_harvest_that_was_killed_goes_on_from_another_machine(
    store: StoreServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = write_texts(tmp_path_factory.mktemp("texts"))
    asked: Counter[str] = Counter()

    def answer(each: Asked) -> dict[str, object]:
        asked[find_text(each)] += 1
        time.sleep(0.01)
        return make_good_reply()

    with FaultServer(answer=answer) as server:
        command = make_command(texts, server.url)
        child = subprocess.Popen([sys.executable, "-c", RUN, *command], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while store.count("PUT", ending=".parquet") < 3:
            assert child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        while (before := asked.total()) < sum(server.count.attempts.values()) or server.count.in_flight:
            time.sleep(0.3)  # what had left arrives

        move_elsewhere(tmp_path_factory, monkeypatch)
        # It may still live, as far as anybody knows; nothing is asked until it is known not to.
        refused = CliRunner().invoke(harvest.cli.app, command)
        assert refused.exit_code == 1
        assert "is being written by process" in refused.output
        assert asked.total() == before
        store.delete(LEASE)
        kept = {row.example.text for row in harvest.stream_rows(ADDRESS)}
        assert 10 < len(kept) < ROWS
        done = CliRunner().invoke(harvest.cli.app, command)
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        assert (report["kept"], report["asked"], report["left"]) == (len(kept), ROWS - len(kept), 0)
        assert report["folder"] == f"{ADDRESS}/teacher=m"
        assert all(asked[text] == 1 for text in asked if any(text.endswith(each) for each in kept))

        again = json.loads(CliRunner().invoke(harvest.cli.app, command).stdout)
        assert (again["kept"], again["asked"]) == (ROWS, 0)
        planned = json.loads(CliRunner().invoke(harvest.cli.app, ["plan", *command[1:]]).stdout)
        assert planned["to_ask"] == 0

    problems = verify_shards(Path(ADDRESS)).problems
    assert all("a run that ended before it could name it" in each for each in problems)
    rows = [row.example.text for row in harvest.stream_rows(ADDRESS)]
    assert len(rows) == len(set(rows)) == ROWS
    assert "data/films/README.md" in store.list_keys()
    spent = load_manifest(choose_teacher(Path(ADDRESS))).cost_usd
    assert reparse(Path(ADDRESS)).reread == ROWS
    assert load_manifest(choose_teacher(Path(ADDRESS))).cost_usd == spent


def test_a_run_whose_place_is_taken_asks_no_more_and_keeps_what_was_in_flight(
    store: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = write_texts(tmp_path)
    monkeypatch.setattr("harvest.asking.commit.UPLOAD_SECONDS", 0)
    asked: Counter[str] = Counter()

    def answer(each: Asked) -> dict[str, object]:
        asked[find_text(each)] += 1
        if asked.total() == 30:
            store.put(MANIFEST, store.get(MANIFEST).replace(b'"accuracy"', b'"f1"'))
        time.sleep(0.02)
        return make_good_reply()

    with FaultServer(answer=answer) as server:
        command = make_command(texts, server.url)
        done = CliRunner().invoke(harvest.cli.app, command)
        assert done.exit_code == 1
        assert "run the same command again" in done.output
        before = asked.total()
        assert 30 <= before < ROWS
        report = json.loads(CliRunner().invoke(harvest.cli.app, command).stdout)
    assert report["kept"] == before
    assert asked.total() == len(asked) == ROWS
    rows = [row.example.text for row in harvest.stream_rows(ADDRESS)]
    assert len(rows) == len(set(rows)) == ROWS


@dataclass
class WallClock:
    """Stands for the clock on the wall, which has moved when a machine wakes that slept."""

    slept: float = 0.0

    def time(self) -> float:
        return time.time() + self.slept


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock()
    monkeypatch.setattr("shared.stores.lease.time", clock)
    return clock


@pytest.mark.parametrize(("falls_asleep_at", "fails"), [(30, False), (30, True), (ROWS, True)])
def test_a_machine_that_slept_past_its_lease_asks_nothing_more_where_another_one_writes(
    store: StoreServer, tmp_path: Path, clock: WallClock, falls_asleep_at: int, fails: bool
) -> None:
    texts = write_texts(tmp_path)
    asked: Counter[str] = Counter()

    def answer(each: Asked) -> dict[str, object] | ErrorReply:
        asked[find_text(each)] += 1
        if asked.total() == falls_asleep_at:
            store.put(LEASE, json.dumps({"owner": "another", "writer": "process 7 on another"}).encode())
            clock.slept = 3600
        time.sleep(0.02)
        if fails and clock.slept:  # what was in flight broke off, and would be asked again
            return ErrorReply(503, {"error": {"message": "busy"}})
        return make_good_reply()

    with FaultServer(answer=answer) as server:
        command = make_command(texts, server.url)
        done = CliRunner().invoke(harvest.cli.app, command)
        assert done.exit_code == 1
        assert (
            "another run (process 7 on another), for this one had not renewed its lease for 60 minutes" in done.output
        )
        assert asked.total() == len(asked) <= falls_asleep_at + 4  # what was in flight
        before = len(asked) - (asked.total() - falls_asleep_at + 1 if fails else 0)
        assert MANIFEST not in store.list_keys() or not json.loads(store.get(MANIFEST))["shards"]
        fails = False
        store.delete(LEASE)
        report = json.loads(CliRunner().invoke(harvest.cli.app, command).stdout)
    assert report["kept"] == before
    assert report["left"] == 0
    rows = [row.example.text for row in harvest.stream_rows(ADDRESS)]
    assert len(rows) == len(set(rows)) == ROWS


@pytest.mark.parametrize("renews", [False, True])
@pytest.mark.parametrize("published", [False, True])
def test_a_machine_that_slept_goes_on_where_nobody_took_its_place(
    store: StoreServer,
    tmp_path: Path,
    clock: WallClock,
    monkeypatch: pytest.MonkeyPatch,
    published: bool,
    renews: bool,
) -> None:
    """`renews` is whether the lease is renewed, as it is now and then, before the next request is to leave."""
    texts = write_texts(tmp_path)
    asked: Counter[str] = Counter()
    if renews:
        monkeypatch.setattr("shared.stores.lease._RENEW_SECONDS", 0.02)

    def answer(each: Asked) -> dict[str, object]:
        asked[find_text(each)] += 1
        if asked.total() == 30:
            store.delete(LEASE)
            if published:  # by one that has ended by now
                store.put(MANIFEST, store.get(MANIFEST).replace(b'"accuracy"', b'"f1"'))
            clock.slept = 3600
            time.sleep(0.5 if renews else 0)
        time.sleep(0.01)
        return make_good_reply()

    with FaultServer(answer=answer) as server:
        done = CliRunner().invoke(harvest.cli.app, make_command(texts, server.url))
    assert done.exit_code == published, done.output
    assert ("was written by" in done.output) == published
    assert asked.total() == len(asked)
    assert len(asked) <= 30 + 4 if published else len(asked) == ROWS


def test_a_machine_that_wakes_without_its_store_goes_on_after_a_while(
    store: StoreServer, tmp_path: Path, clock: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = write_texts(tmp_path)
    monkeypatch.setattr("harvest.asking.engine.CONFIRM_SECONDS", 0.01)
    asked: Counter[str] = Counter()

    def fail(method: str, key: str) -> Fault | None:
        return "403" if asked.total() == 30 or clock.slept else None

    def answer(each: Asked) -> dict[str, object]:
        asked[find_text(each)] += 1
        if asked.total() == 30:
            clock.slept = 3600
        return make_good_reply()

    store.fail = fail
    with FaultServer(answer=answer) as server:
        done = CliRunner().invoke(harvest.cli.app, make_command(texts, server.url))
        assert "Whether another run writes there is not known; this one goes on" in done.output
        assert asked.total() == len(asked) == ROWS
        store.fail = lambda method, key: None
        store.delete(LEASE)
        report = json.loads(CliRunner().invoke(harvest.cli.app, make_command(texts, server.url)).stdout)
    assert (report["kept"], report["asked"]) == (ROWS, 0)


def fail_test(*_: object) -> None:
    pytest.fail("the disk has room, and nobody has taken the folder's place")


def test_rows_are_durable_while_another_worker_uploads(store: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harvest.asking.commit.UPLOAD_SECONDS", 0)
    task_folder = open_written_folder(Path(ADDRESS))

    async def keep(folder: TeacherFolder, reserve: DiskReserve) -> None:
        writer = GroupCommit(folder, reserve, fail_test, fail_test)
        async with writer:
            await writer.put(make_answered(make_row(0)))

    with TeacherFolder.open(task_folder, make_manifest()) as folder, closing(DiskReserve(folder.path, "w0")) as reserve:
        with lock_file(folder.path / FOLDER_LOCK):  # as long as its upload takes
            asyncio.run(keep(folder, reserve))
        assert count_unsealed(folder.path, folder.manifest) == {"train": 1}


def test_what_is_wrong_with_a_store_is_said_before_anything_is_asked(
    store: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = write_texts(tmp_path)
    with FaultServer() as server:
        command = make_command(texts, server.url)
        store.fail = lambda method, key: "403" if method == "PUT" else None
        assert "refuses these credentials" in CliRunner().invoke(harvest.cli.app, command).output
        command[command.index(ADDRESS)] = "s3://other/data"
        assert "there is no bucket s3://other" in CliRunner().invoke(harvest.cli.app, command).output
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        command[command.index("s3://other/data")] = "az://container/data"
        assert "no credentials" in CliRunner().invoke(harvest.cli.app, command).output
        assert not server.count.attempts
