"""A shard folder that is written for an object store: kills, faults and two writers lose no row and double none."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import obstore
import pytest
from typer.testing import CliRunner

import harvest
import harvest.cli
from harvest.asking.audio import find_audio, keep_audio
from harvest.looking.card import write_card
from shared.errors import LockedError, RecipeMismatchError, ShardError, StoreError
from shared.schema import Status
from shared.shards import TeacherFolder, choose_teacher, load_manifest, verify_shards
from shared.shards.publish import open_written_folder
from shared.stores.address import StoreAddress
from shared.stores.lease import hold_lease
from tests.shared.shards.shard_rows import COST_USD, make_manifest, make_row
from tests.shared.store_server import Fault, StoreServer, move_elsewhere
from tests.shared.store_server import own_places as own_places
from tests.shared.store_server import store as store

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("own_places")]

ADDRESS = Path("s3://bucket/data/reviews")
MANIFEST = "data/reviews/teacher=tiny/manifest.json"
LEASE = "data/reviews/teacher=tiny/writer.json"


def open_stored(worker: str = "w0") -> TeacherFolder:
    return TeacherFolder.open(open_written_folder(ADDRESS), make_manifest(planned={"train": 40}), worker=worker)


def write(numbers: Iterable[int], reply: str = "yes", status: Status = Status.OK) -> None:
    with open_stored() as folder:
        folder.append("train", [make_row(number, reply, status) for number in numbers])
        folder.seal()


def read_rows() -> dict[str, str]:
    """What another machine finds: the reply of each row, every row once, each object as the manifest says."""
    found = verify_shards(ADDRESS)
    assert found.problems == ()
    rows = [(row.example.sample_id, str(row.answer.reply)) for row in harvest.stream_rows(ADDRESS)]
    assert len(rows) == len(dict(rows)) == found.rows
    return dict(rows)


def count_spent() -> float:
    spent = load_manifest(choose_teacher(ADDRESS)).cost_usd
    assert spent is not None
    return spent / COST_USD


def test_what_is_sealed_is_in_the_store_and_not_on_this_disk(
    store: StoreServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(range(20))
    state = Path.cwd() / "state"
    assert not [*state.rglob("*.parquet"), *state.rglob("*.arrows")]
    assert LEASE not in store.list_keys()
    move_elsewhere(tmp_path_factory, monkeypatch)
    before = len(store.seen)
    with open_stored() as folder:
        assert len(folder.kept("train").statuses) == 20
        assert all(seen.range for seen in store.seen[before:] if seen.key.endswith(".parquet"))
        # Answers that supersede older ones: their shard is written anew, and its old object goes.
        folder.append("train", [make_row(number, "no") for number in range(15, 25)])
        folder.seal()
    assert read_rows() == {f"row-{n}": "no" if n >= 15 else "yes" for n in range(25)}
    assert count_spent() == 30
    assert sum(key.endswith(".parquet") for key in store.list_keys()) == 2


def test_a_second_writer_is_refused_before_it_asks(
    store: StoreServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_stored() as first, open_stored("w1") as second:  # workers of one machine share its folder
        first.append("train", [make_row(0)])
        second.append("train", [make_row(1)])
        second.seal()
        first.seal()
        move_elsewhere(tmp_path_factory, monkeypatch)
        with pytest.raises(LockedError, match=r"s3://bucket/.* is being written by process \d+ on .*Nothing was asked"):
            open_stored()
    assert read_rows() == {"row-0": "yes", "row-1": "yes"}
    write(range(2, 4))
    assert len(read_rows()) == 4


def test_of_two_writers_one_publishes_and_the_other_loses_nothing(
    store: StoreServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(range(4))
    with open_stored() as loser:
        place = Path.cwd()
        loser.append("train", [make_row(number, "mine") for number in range(4, 10)])
        loser.append("train", [make_row(11, status=Status.FAILED), make_row(0, "mine"), make_row(4, "mine")])
        loser.seal(uploads=False)
        monkeypatch.setattr("shared.stores.lease.LEASE_SECONDS", 0)  # it was not heard of for long
        move_elsewhere(tmp_path_factory, monkeypatch)
        write((1, 8, 9, 10), "theirs")  # both write the shard of the first rows anew
        with open_stored() as winner:
            winner.append("train", [make_row(7, status=Status.FAILED), make_row(11, "theirs")])
            winner.seal()
        before = read_rows()
        with monkeypatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(place / "state"))
            with pytest.raises(LockedError, match=r"written by another run.* run the same command again"):
                loser.upload()
    assert read_rows() == before
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    with open_stored() as again:
        kept = again.kept("train")
        assert len(kept.statuses) == 12
        again.seal()
    expected = {f"row-{n}": "yes" if n < 4 else "mine" if n < 8 else "theirs" for n in range(12)}
    assert read_rows() == expected | {"row-1": "theirs"}  # row 7 was answered here, and failed there
    assert count_spent() == 4 + 9 + 6


def test_a_failure_that_waits_in_a_journal_takes_the_place_of_no_answer(
    store: StoreServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(range(2))
    place = Path.cwd()
    with open_stored() as first:
        first.append("train", [make_row(2, status=Status.FAILED), make_row(3, "mine"), make_row(3, "mine again")])
        monkeypatch.setattr("shared.stores.lease.LEASE_SECONDS", 0)
        move_elsewhere(tmp_path_factory, monkeypatch)
        write(range(1, 3), "theirs")  # so the shard of the first rows is written anew, and the old one is gone
        for name in ("STATE", "CACHE"):
            monkeypatch.setenv(f"XDG_{name}_HOME", str(place / name.lower()))
        with pytest.raises(LockedError, match=r"written by another run.* run the same command again"):
            first.seal()
    with open_stored() as again:
        again.seal()
    assert read_rows() == {"row-0": "yes", "row-1": "theirs", "row-2": "theirs", "row-3": "mine again"}
    assert count_spent() == 2 + 3 + 2


def test_rows_that_wait_go_into_no_other_harvest(
    store: StoreServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(range(2))
    place = Path.cwd()
    with open_stored() as first:
        first.append("train", [make_row(2)])
    with monkeypatch.context() as patch:  # the same store by another name
        patch.setenv("AWS_ENDPOINT_URL", store.url.replace("127.0.0.1", "localhost"))
        open_stored().close()
        patch.undo()
        move_elsewhere(tmp_path_factory, monkeypatch)
        write(range(3, 4))
        patch.setenv("XDG_STATE_HOME", str(place / "state"))
        with pytest.raises(ShardError, match=r"1 rows wait in .* at http://localhost:\d+, and at http://127.* another"):
            open_stored()
        patch.setenv("AWS_ENDPOINT_URL", store.url.replace("127.0.0.1", "localhost"))
        for key in store.list_keys():
            store.delete(key)
        changed = make_manifest(recipe={"model": "another"})
        patch.setenv("XDG_STATE_HOME", str(Path.cwd() / "state-of-another"))
        TeacherFolder.open(open_written_folder(ADDRESS), changed).close()
        patch.setenv("XDG_STATE_HOME", str(place / "state"))
        with pytest.raises(RecipeMismatchError, match=r"1 rows wait in .* another recipe by now"):
            open_stored()
    assert list((place / "state").rglob("*.arrows"))


def test_what_rows_name_goes_along_and_a_card_of_the_user_s_own_stays(store: StoreServer) -> None:
    store.put("data/reviews/README.md", b"# Ours")
    with open_stored() as folder:
        keep_audio(folder.path, "ab12", b"RIFF")
        half = find_audio(folder.path, "ab12").with_name(".ab13.wav.1.tmp")
        half.write_bytes(b"RI")  # that is being written
        folder.append("train", [make_row(0)])
        folder.seal()
    write_card(folder.path.parent)
    assert half.exists()
    keys = store.list_keys()
    assert [key for key in keys if "audio" in key] == ["data/reviews/teacher=tiny/audio/ab/ab12.wav"]
    assert store.get("data/reviews/README.md") == b"# Ours"


def test_workers_that_begin_at_once_share_a_folder(store: StoreServer) -> None:
    address, folder, all_in = StoreAddress("s3", "bucket", "data/x"), Path.cwd(), Barrier(6)

    def begin(_: int) -> str:
        with hold_lease(address, folder, lambda: False):
            all_in.wait(30)
            return store.get("data/x/writer.json").decode()

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(begin, range(6)))) == 1


@pytest.mark.parametrize("fault", ["500", "lost answer", "cut upload"])
def test_a_request_that_fails_or_whose_answer_is_lost_is_made_again(store: StoreServer, fault: Fault) -> None:
    failed: list[tuple[str, str]] = []

    def fail(method: str, key: str) -> Fault | None:
        if method != "PUT" or (method, key) in failed or (fault == "cut upload" and not key.endswith(".parquet")):
            return None
        failed.append((method, key))
        return fault

    store.fail = fail
    write(range(20))
    store.fail = lambda method, key: None
    assert failed
    assert read_rows() == {f"row-{n}": "yes" for n in range(20)}


def test_a_store_that_is_gone_keeps_the_run_s_rows_here_and_the_next_run_uploads_them(
    store: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_stored() as folder:
        folder.append("train", [make_row(0)])
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            with pytest.raises(StoreError, match=r"cannot be reached.*kept in .*the next run uploads it"):
                folder.seal()
    status = CliRunner().invoke(harvest.cli.app, ["status", str(ADDRESS)])
    assert "1 more rows wait on this disk" in status.stderr
    write(range(1, 3))
    assert len(read_rows()) == 3


class Killed(BaseException):
    """Stands for the end of a process: nothing handles it."""


def kill_at(patch: pytest.MonkeyPatch, change: int, *, after: bool) -> list[str]:
    """Have the process end at the n-th change of the store, just before it or just after; give the changes so far."""
    changes: list[str] = []

    def wrap(name: str, change_store: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            changes.append(name)
            if len(changes) < change or (len(changes) == change and after):
                result = change_store(*arguments, **options)
            if len(changes) >= change:
                raise Killed
            return result

        return changed

    for name in ("put", "delete"):
        patch.setattr(obstore, name, wrap(name, getattr(obstore, name)))
    return changes


def test_a_kill_at_any_change_of_the_store_loses_and_doubles_nothing(
    store: StoreServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged: set[str] = set()

    def harvest_rows() -> None:
        for numbers, reply in ((range(6), "yes"), (range(4, 9), "again")):
            with open_stored() as folder:
                rows = [make_row(number, reply) for number in numbers]
                folder.append("train", rows)
                folder.commit()
                acknowledged.update(row.request_key for row in rows)
                folder.seal()

    with monkeypatch.context() as patch:
        changes = kill_at(patch, 1000, after=False)
        harvest_rows()
    assert len(changes) > 10
    for change in range(1, len(changes) + 1):
        for key in store.list_keys():
            store.delete(key)
        move_elsewhere(tmp_path_factory, monkeypatch)
        acknowledged.clear()
        with monkeypatch.context() as patch:
            kill_at(patch, change, after=change % 4 < 2)
            with pytest.raises(Killed):
                harvest_rows()
        if change % 2:  # of what was not uploaded, another machine knows nothing
            move_elsewhere(tmp_path_factory, monkeypatch)
            if LEASE in store.list_keys():
                store.delete(LEASE)
        else:
            with open_stored() as folder:
                kept = folder.kept("train").request_keys.tobytes()
            assert all(bytes.fromhex(key) in kept for key in acknowledged), change
        harvest_rows()
        for problem in verify_shards(ADDRESS).problems:  # of an upload that nothing named
            assert change % 2, change
            assert "is not in the manifest" in problem
            store.delete(problem.partition(" ")[0].removeprefix("s3://bucket/"))
        assert read_rows() == {f"row-{n}": "again" if n >= 4 else "yes" for n in range(9)}, change
