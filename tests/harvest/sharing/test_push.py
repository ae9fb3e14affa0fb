"""`harvest push` against a hub on loopback, which huggingface_hub's own client talks to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from typer.testing import CliRunner, Result

from harvest.cli import app
from harvest.looking.card import write_card
from shared.schema import row_schema
from shared.shards import TeacherFolder, count_unsealed, load_manifest, verify_shards
from tests.shared.loopback_hub import CUT, LoopbackHub
from tests.shared.loopback_hub import loopback_hub as loopback_hub
from tests.shared.shards.shard_rows import LABELS, make_manifest, make_rows

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's, of its client

Harvest = Callable[..., Path]


@pytest.fixture
def make_harvest(tmp_path: Path) -> Harvest:
    """A task's folder with the rows of some teachers, sealed unless told otherwise."""

    def make(*teachers: str, name: str = "reviews", rows: int = 6, seal: bool = True, **changes: Any) -> Path:
        for teacher in teachers or ("tiny",):
            with TeacherFolder.open(tmp_path / name, make_manifest(teacher, **changes)) as folder:
                for split, first in (("train", 0), ("dev-hard", rows)):
                    folder.append(split, make_rows(*range(first, first + rows)))
                    if seal:
                        folder.seal()
                folder.commit()
        write_card(tmp_path / name)
        return tmp_path / name

    return make


def push(*arguments: object, fails: int = 0) -> Result:
    done = CliRunner().invoke(app, ["push", *map(str, arguments)])
    assert done.exit_code == fails, done.output
    return done


def write_hub_folder(files: dict[str, bytes], target: Path) -> Path:
    for name, content in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return target


def test_what_is_pushed_is_private_verifies_and_is_not_sent_twice(
    make_harvest: Harvest, loopback_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_harvest("tiny", "other", source="/home/somebody/texts/reviews.csv")
    done = push(data, "mine", "--raw", "keep")
    repo = loopback_hub.repos["datasets/me/mine"]
    assert (repo.private, len(repo.commits)) == (True, 2)
    assert "private: 24 rows of other, tiny in 4 shards of 32 columns" in done.stderr
    assert "raw replies of 24 rows among them" in done.stderr
    assert not [name for name in repo.files if "journal" in name or "lock" in name]
    copy = write_hub_folder(repo.files, tmp_path / "copy")
    assert verify_shards(copy).ok
    assert load_manifest(copy / "teacher=tiny").source == "reviews.csv"
    card = DatasetCard(repo.files["README.md"].decode())
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", loopback_hub.url)
        card.validate()
    configs = card.data.get("configs")
    assert [config["config_name"] for config in configs] == ["other", "tiny"]
    assert [config.get("default") for config in configs] == [True, None]
    assert configs[1]["data_files"][1] == {
        "split": "dev_hard",
        "path": "teacher=tiny/split=dev-hard/*.parquet",
    }
    assert b"hf_right" not in b"".join(repo.files.values())

    uploads = loopback_hub.uploads
    done = push(data, "me/mine", "--raw", "keep", "--public", "--json")
    assert "is there already and private, and stays so" in done.stderr
    again = json.loads(done.stdout)
    assert (again["sent"], again["removed"], again["commit"]) == (0, 0, f"{2:040x}")
    assert (len(repo.commits), loopback_hub.uploads) == (2, uploads)


def test_raw_replies_are_asked_about_and_can_be_left_out(
    make_harvest: Harvest, loopback_hub: LoopbackHub, tmp_path: Path
) -> None:
    data = make_harvest()
    refused = push(data, "mine", fails=2)
    assert "keeps 12 replies as they came" in refused.stderr
    assert "--raw keep" in refused.stderr
    assert not loopback_hub.repos

    done = push(data, "mine", "--raw", "drop")
    repo = loopback_hub.repos["datasets/me/mine"]
    assert "no raw reply" in done.stderr
    copy = write_hub_folder(repo.files, tmp_path / "copy")
    assert verify_shards(copy).ok
    kept, sent = (load_manifest(folder / "teacher=tiny") for folder in (data, copy))
    for shard, other in zip(kept.shards, sent.shards, strict=True):
        full = pq.read_table(data / "teacher=tiny" / shard.path, partitioning=None)
        bare = pq.read_table(copy / "teacher=tiny" / other.path, partitioning=None)
        assert (full["raw"].null_count, bare["raw"].null_count) == (0, len(bare))
        assert bare.drop_columns("raw").equals(full.drop_columns("raw"))
        assert bare.schema.names == row_schema(None, LABELS).names
        assert b'{"reply"' not in repo.files[f"teacher=tiny/{other.path}"]
    assert json.loads(push(data, "mine", "--raw", "drop", "--json").stdout)["sent"] == 0
    push(data, "mine", "--raw", "keep")
    assert "older commits of me/mine keep" in push(data, "mine", "--raw", "drop").stderr


def test_what_waits_in_a_journal_is_sealed_unless_it_is_being_written(
    make_harvest: Harvest, loopback_hub: LoopbackHub
) -> None:
    folder = make_harvest(seal=False) / "teacher=tiny"
    with TeacherFolder.open(folder.parent, load_manifest(folder)):
        assert "is being written" in push(folder, "mine", "--raw", "keep", fails=1).stderr
    with TeacherFolder.open(folder.parent, load_manifest(folder), worker="w1") as other:
        other.append("train", make_rows(100))
        other.commit()
        assert "1 rows are not sealed yet" in push(folder, "mine", "--raw", "keep", fails=1).stderr
    assert not loopback_hub.repos
    push(folder, "mine", "--raw", "keep")
    assert not count_unsealed(folder, load_manifest(folder))
    assert loopback_hub.repos["datasets/me/mine"].files["teacher=tiny/manifest.json"]


def test_a_push_that_was_cut_off_goes_on_where_it_was(make_harvest: Harvest, loopback_hub: LoopbackHub) -> None:
    data = make_harvest("tiny", "other")
    loopback_hub.fail("PUT", "/objects/", 403, times=2)
    broken = push(data, "mine", "--raw", "keep", fails=1)
    assert "may not write" in broken.stderr
    assert "the same command goes on from there" in broken.stderr
    repo = loopback_hub.repos["datasets/me/mine"]
    arrived = len(loopback_hub.objects)
    assert (list(repo.files), arrived < 4) == ([".gitattributes"], True)

    loopback_hub.fail("PUT", "/objects/", CUT)  # the client itself tries again
    loopback_hub.fail("POST", "/api/datasets/me/mine/commit/", 500)
    before = loopback_hub.uploads
    assert "500" in push(data, "mine", "--raw", "keep", fails=1).stderr
    assert (list(repo.files), loopback_hub.uploads - before) == ([".gitattributes"], 4 - arrived + 1)
    before = loopback_hub.uploads
    push(data, "mine", "--raw", "keep")
    assert (loopback_hub.uploads - before, len(repo.commits)) == (0, 2)


def test_a_hub_that_refuses_is_quoted(make_harvest: Harvest, loopback_hub: LoopbackHub) -> None:
    data = make_harvest()
    for status, path, reason in (
        (401, "/api/repos/create", "is none that it knows"),
        (403, "/api/repos/create", "may not write there"),
        (412, "/commit/", "somebody else changed it meanwhile"),
    ):
        loopback_hub.fail("POST", path, status)
        done = push(data, "mine", "--raw", "keep", fails=1)
        assert reason in done.stderr
        assert loopback_hub.token not in done.output
    push(data, "mine", "--raw", "keep")


def test_what_would_mix_with_or_take_from_a_data_set_is_refused(
    make_harvest: Harvest, loopback_hub: LoopbackHub
) -> None:
    data = make_harvest("tiny", "other")
    keep = ("--raw", "keep")
    push(data, "mine", *keep, "--public")
    repo = loopback_hub.repos["datasets/me/mine"]
    refusals: list[tuple[Path, str]] = [
        (data, "is there already and public"),
        (data / "teacher=tiny", "holds teacher=other, too"),
        (make_harvest("tiny", "other", name="fewer", rows=2), "12 rows that were never in this folder"),
        (make_harvest("tiny", "other", name="else", recipe={"model": "b"}), "the answers to another recipe"),
    ]
    for number, (folder, message) in enumerate(refusals):
        assert message in push(folder, "mine", *keep, *(["--public"] if number else []), fails=2).stderr
    repo.commits[-1]["train.csv"] = b"text"
    assert "holds train.csv, which is no file of a harvest" in push(data, "mine", *keep, "--public", fails=2).stderr
    assert len(repo.commits) == 2

    shard = next(data.glob("teacher=tiny/split=train/*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"x")
    assert "its sha256 is not that of the manifest" in push(data, "other", *keep, fails=1).stderr
    shard.write_bytes(whole)
    assert list(loopback_hub.repos) == ["datasets/me/mine"]


def test_a_secret_of_the_shell_is_found_in_any_column(
    make_harvest: Harvest, loopback_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_harvest()
    with TeacherFolder.open(data, make_manifest()) as folder:
        folder.append("train", make_rows(70, raw=b'{"echoed": "1234-secret-of-a-provider"}'))
        folder.seal()
    monkeypatch.setenv("PROVIDER_API_KEY", "1234-secret-of-a-provider")
    done = push(data, "mine", "--raw", "keep", fails=2)
    assert "in its column raw" in done.stderr
    assert "1234-secret" not in done.output
    assert not loopback_hub.repos
