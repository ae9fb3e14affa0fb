"""A shard folder in an object store, read where it is: by the commands, through faults, and while a student learns."""

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import distill.cli
import harvest.cli
from shared.shards import TeacherFolder
from shared.stores.address import StoreAddress
from shared.stores.mirror import Listed, RemoteFile
from shared.stores.parquet import find_chunks
from shared.stores.ranges import RangeCache
from tests.distill.conftest import tiny_student as tiny_student
from tests.shared.shards.shard_rows import make_manifest, make_row
from tests.shared.store_server import Fault, StoreServer
from tests.shared.store_server import own_places as own_places
from tests.shared.store_server import store as store

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("own_places")]

ADDRESS = "s3://bucket/data/reviews"
ROWS = {"train": 300, "validation": 40, "test": 40}


def make_folder(rows: dict[str, int]) -> Path:
    """Harvest some rows to this disk, of which `raw` is most; train has two shards of two row groups."""
    with TeacherFolder.open(Path("data/reviews"), make_manifest(planned=rows)) as folder:
        for split, count in rows.items():
            for first in range(0, count, 150):
                numbers = range(first, min(count, first + 150))
                folder.append(split, [make_row(number, raw=os.urandom(2000)) for number in numbers])
                folder.seal(split)
    return folder.path


def call(program: ModuleType, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(program.app, arguments)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output if code else done.stdout


def read_json(program: ModuleType, *arguments: str, code: int = 0) -> Any:
    return json.loads(call(program, *arguments, "--json", code=code))


def test_a_harvest_is_looked_at_where_it_is(store: StoreServer) -> None:
    folder = make_folder({"train": 200, "validation": 20})
    here = {name: read_json(harvest.cli, name, "data/reviews") for name in ("status", "verify")}
    store.upload(folder.parent, "data/reviews")
    shutil.rmtree("data")

    assert read_json(harvest.cli, "verify", ADDRESS) == here["verify"]
    there = read_json(harvest.cli, "status", "s3://bucket/data")
    assert there["teachers"][0].pop("folder") == f"{ADDRESS}/teacher=tiny"
    here["status"]["teachers"][0].pop("folder")
    assert there == here["status"]
    assert "text number 7" in call(harvest.cli, "show", f"{ADDRESS}/teacher=tiny", "--sample-id", "row-7")
    assert "220 rows" in call(harvest.cli, "view", ADDRESS, "--out", "page.html")
    # All but the manifest was read once: what is asked again is on this disk.
    before = len(store.seen)
    call(harvest.cli, "status", ADDRESS)
    assert not [seen for seen in store.seen[before:] if seen.range is not None]
    for command in (["push", ADDRESS, "me/reviews"], ["pull", ADDRESS], ["pull", "me/reviews", ADDRESS]):
        assert "the store's own tool" in call(harvest.cli, *command, code=2)


def test_verify_finds_what_is_wrong_with_each_object(store: StoreServer) -> None:
    folder = make_folder({"train": 300})
    store.upload(folder.parent, "data/reviews")
    torn, changed = sorted(key for key in store.list_keys() if key.endswith(".parquet"))
    whole = {key: store.get(key) for key in (torn, changed)}
    orphan = torn.replace("part-00000", "part-00007").replace("w0", "w1")

    def find() -> list[str]:
        return list(read_json(harvest.cli, "verify", ADDRESS, code=1)["problems"])

    store.put(torn, whole[torn][: len(whole[torn]) // 2])
    store.put(changed, bytes([whole[changed][0], whole[changed][1] ^ 1]) + whole[changed][2:])
    store.put(orphan, whole[torn])
    first, second, third = find()
    assert first.startswith(f"s3://bucket/{torn} has ")
    assert second.startswith(f"s3://bucket/{changed} was changed")
    assert third.startswith(f"s3://bucket/{orphan} is not in the manifest")
    # A student is not trained on what is torn either; nothing is downloaded to see it.
    assert f"s3://bucket/{torn} has " in call(distill.cli, "run", "--shards", ADDRESS, "--student", ".", code=1)
    store.put(changed, whole[changed])
    store.delete(orphan)
    store.delete(torn)
    (missing,) = find()
    assert missing.startswith(f"s3://bucket/{torn} is missing: 150 rows")


def test_bodies_that_break_off_and_servers_that_fail_are_asked_again(store: StoreServer) -> None:
    folder = make_folder({"train": 200})
    store.upload(folder.parent, "data/reviews")
    faults: tuple[Fault, ...] = ("500", "cut")
    asked = 0

    def fail(method: str, key: str) -> Fault | None:
        nonlocal asked
        asked += 1
        return faults[asked % 2] if asked % 3 == 0 else None

    store.fail = fail
    assert read_json(harvest.cli, "status", ADDRESS)["kept"] == 200
    assert asked > 6


def test_pieces_are_kept_up_to_a_bound_and_one_that_is_torn_is_read_again(store: StoreServer, tmp_path: Path) -> None:
    content = os.urandom(10_000)
    store.put("some/object", content)
    file = RemoteFile(StoreAddress("s3", "bucket", "some/object"), Listed(len(content), "etag"))
    cache = RangeCache(tmp_path, most_bytes=4000)

    def read(start: int) -> int:
        """Read 1,000 bytes, and count the requests that this took."""
        before = store.count("GET", ending="object")
        assert cache.read(file, [(start, start + 1000)]) == [content[start : start + 1000]]
        return store.count("GET", ending="object") - before

    assert [read(start) for start in (0, 1000, 0, 1000)] == [1, 1, 0, 0]
    assert [read(start) for start in (2000, 3000, 4000)] == [1, 1, 1]
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 4000
    assert read(4000) == 0
    for path in tmp_path.glob("*/*"):
        path.write_bytes(path.read_bytes()[:500] + bytes(len(path.read_bytes()) - 500))
    assert read(4000) == 1
    # Those that touch are read at once, and others beside them.
    before = store.count("GET", ending="object")
    pieces = cache.read(file, [(5000, 5500), (7000, 7500), (5500, 6000)])
    assert b"".join(pieces) == content[5000:5500] + content[7000:7500] + content[5500:6000]
    assert store.count("GET", ending="object") - before == 2


@pytest.mark.parametrize(
    ("variables", "address", "said", "code"),
    [
        ({}, "s3://buckett/data", "there is no bucket s3://buckett", 1),
        ({}, "s3://bucket/daten", "holds no teacher's answers", 1),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, ADDRESS, "cannot be reached", 1),
        ({}, "s3://AKIAKEY:sesame@bucket/data", "read from the environment", 2),
        ({}, "az://container/data", "has no credentials", 1),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(
    store: StoreServer, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], address: str, said: str, code: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    output = call(harvest.cli, "status", address, code=code)
    assert said in output
    assert "sesame" not in output
    assert len(output) < 500


def test_a_student_learns_the_same_and_reads_only_what_it_needs(store: StoreServer, tiny_student: Path) -> None:
    folder = make_folder(ROWS)
    store.upload(folder.parent, "data/reviews")
    train = ("--student", str(tiny_student), "--epochs", "2")
    here = read_json(distill.cli, "run", "--shards", "data/reviews", *train, "--out", "here")
    there = read_json(distill.cli, "run", "--shards", ADDRESS, *train, "--out", "there")
    for each in ("dev_best", "dev_last", "test"):
        assert there[each] == here[each]
    assert there["manifest_sha256"] == {f"{ADDRESS}/teacher=tiny": next(iter(here["manifest_sha256"].values()))}
    assert there["shards"] == f"{ADDRESS}/teacher=tiny"

    read: dict[str, list[tuple[int, int]]] = {}
    for seen in store.seen:
        if seen.range is not None:
            read.setdefault(seen.key, []).append(seen.range)
    assert len(read) == 4
    for key, ranges in read.items():
        path = folder.parent.parent / key.removeprefix("data/")
        metadata = pq.read_metadata(path)
        footer = path.stat().st_size - (64 << 10)
        needless = [
            chunk
            for group in range(metadata.num_row_groups)
            for chunk in find_chunks(metadata, group, ["raw", "topk_ids", "topk_logprobs", "reply", "request_key"])
        ]
        chunks = sorted(each for each in ranges if each[0] < footer)
        assert chunks
        assert not [one for one in chunks for other in needless if max(one[0], other[0]) < min(one[1], other[1])]
        assert all(one[1] <= other[0] for one, other in pairwise(chunks)), "read twice"
    # Scored again from the address that the run has noted, without a byte of a shard.
    before = len(store.seen)
    assert read_json(distill.cli, "eval", there["run"])["score"] == there["dev_best"]
    assert not [seen for seen in store.seen[before:] if seen.range is not None]
