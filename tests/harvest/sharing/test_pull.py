"""A harvest that somebody pushed: looked at and trained on where it is, and pulled to go on with."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import distill.cli
import harvest.cli
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import Report, run_harvest
from harvest.looking.reparse import reparse
from harvest.sharing.pull import pull_harvest
from harvest.sharing.push import push_harvest
from shared.errors import CorruptShardError, SourceError, UsageError
from shared.shards import TeacherFolder, find_teachers, hash_manifest, load_manifest, verify_shards
from tests.distill.conftest import tiny_student as tiny_student
from tests.harvest.fault_server import Asked, FaultServer, make_reply, spread_logprobs
from tests.shared.loopback_hub import LoopbackHub
from tests.shared.loopback_hub import loopback_hub as loopback_hub
from tests.shared.shards.shard_rows import make_manifest, make_rows

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's, of its client

ADDRESS = "hf://datasets/me/reviews"


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def answer(asked: Asked) -> dict[str, object]:
    good = "warm" in json.dumps(asked.body)
    logprobs = spread_logprobs(0.9 if good else 0.1)
    return make_reply(("bad", "good")[good], {"good": logprobs.pop("positive"), "bad": logprobs.pop("negative")})


def run(server: FaultServer) -> Report:
    options = {"endpoint": server.url, "model": "m", "scoring": "top_logprobs"}
    return run_harvest(HarvestConfig(TaskChoice("reviews.csv"), TeacherChoice("endpoint", options=options)))


def call(program: ModuleType, *arguments: str) -> str:
    done = CliRunner().invoke(program.app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.real
def test_what_was_pushed_is_read_and_trained_on_where_it_is_and_never_asked_again(
    loopback_hub: LoopbackHub, tiny_student: Path
) -> None:
    rows = [f"a {('dull', 'warm')[i % 2]} film number {i},{('bad', 'good')[i % 2]}" for i in range(40)]
    Path("reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    with FaultServer(answer=answer) as server:
        assert run(server).asked == 40
        push_harvest("data/reviews", "reviews", raw="drop")
        shutil.rmtree("data")

        assert json.loads(call(harvest.cli, "status", ADDRESS, "--json"))["kept"] == 40
        assert json.loads(call(harvest.cli, "verify", ADDRESS, "--json"))["ok"]
        (teacher,) = find_teachers(Path(ADDRESS))
        assert "film number" in call(harvest.cli, "show", f"{ADDRESS}/{teacher.name}", "--rows", "1")
        assert "40 rows" in call(harvest.cli, "view", ADDRESS, "--out", "page.html")
        train = ("--student", str(tiny_student), "--epochs", "1", "--json")
        trained = json.loads(call(distill.cli, "run", "--shards", ADDRESS, *train))
        assert trained["rows"]["answered"] == trained["rows"]["train"]
        scored = json.loads(call(distill.cli, "eval", trained["run"], "--json"))
        assert scored["score"] == trained["dev_best"]

        assert call(harvest.cli, "pull", "me/reviews").strip() == "data/reviews"
        assert not [path for path in Path("data").rglob("*") if path.is_symlink()]
        (sha,) = trained["manifest_sha256"].values()
        assert sha == hash_manifest(load_manifest(Path("data/reviews") / teacher.name))
        report = run(server)
        assert (report.asked, report.kept) == (0, 40)


def make_folder(task_folder: Path, *numbers: int) -> Path:
    with TeacherFolder.open(task_folder, make_manifest()) as folder:
        folder.append("train", make_rows(*numbers))
        folder.seal()
    return task_folder


def test_a_folder_that_was_pulled_gets_what_came_since_and_loses_no_row(loopback_hub: LoopbackHub) -> None:
    theirs = make_folder(Path("theirs"), 1, 2)
    push_harvest(theirs, "reviews", raw="keep")
    assert pull_harvest("me/reviews", "mine").copied == 2
    make_folder(theirs, 2, 3)
    push_harvest(theirs, "reviews", raw="keep")
    newest = f"{ADDRESS}@{len(loopback_hub.repos['datasets/me/reviews'].commits):040x}"  # a process reads one commit
    (report, again) = (pull_harvest(newest, "mine") for _ in range(2))
    assert (report.rows, report.copied, again.copied) == (3, 3, 0)
    kept = [name for name in loopback_hub.repos["datasets/me/reviews"].files if name.endswith(".parquet")]
    assert len(kept) == len(list(theirs.rglob("*.parquet"))) == 2
    assert verify_shards(Path("mine")).ok
    make_folder(Path("mine"), 9)
    with pytest.raises(UsageError, match=r"1 rows that hf://datasets/me/reviews@.* has not"):
        pull_harvest(newest, "mine")
    push_harvest("mine", "reviews", raw="keep")
    shard = Path("else/teacher=tiny/split=train/part-00000-w9-0.parquet")
    shard.parent.mkdir(parents=True)
    shard.touch()
    with pytest.raises(UsageError, match="is there already, and is not of"):
        pull_harvest(newest, "else")


def test_a_pull_takes_no_raw_reply_away_and_leads_nowhere_else(loopback_hub: LoopbackHub) -> None:
    mine = make_folder(Path("mine"), 1, 2)
    push_harvest(mine, "reviews", raw="drop")
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"holds 2 raw replies that .* was pushed without"):
        pull_harvest("me/reviews", mine)
    assert {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()} == before
    with TeacherFolder.open(Path("hostile"), make_manifest(task="../../else")) as folder:
        folder.append("train", make_rows(1))
        folder.seal()
    push_harvest("hostile", "hostile", raw="keep")
    with pytest.raises(UsageError, match="cannot name a folder"):
        pull_harvest("me/hostile")
    assert not Path("../../else").exists()
    Path("README.md").write_text("# A project of mine\n")
    pull_harvest("me/reviews", ".")
    assert Path("README.md").read_text() == "# A project of mine\n"


def test_what_is_no_harvest_or_not_whole_is_refused(loopback_hub: LoopbackHub) -> None:
    push_harvest(make_folder(Path("theirs"), 1, 2), "torn", raw="keep")
    files = loopback_hub.repos["datasets/me/torn"].files
    (shard,) = (name for name in files if name.endswith(".parquet"))
    files[shard] = files[shard][:-1] + b"x"
    with pytest.raises(CorruptShardError, match="its sha256 is not that of the manifest"):
        pull_harvest("me/torn")
    assert not Path("data").exists()
    with pytest.raises(UsageError, match="never written: harvest pull it"):
        reparse(Path("hf://datasets/me/torn"))
    del files["teacher=tiny/manifest.json"]
    done = CliRunner().invoke(distill.cli.app, ["run", "--shards", "hf://datasets/me/torn@main"])
    assert done.exit_code == 1
    assert "hf://datasets/me/torn@main is no harvest" in done.stderr
    with pytest.raises(SourceError, match="the hub gives no such data set"):
        pull_harvest("me/nothing")


@pytest.mark.real
def test_datasets_reads_the_repository_as_it_is(loopback_hub: LoopbackHub) -> None:
    for teacher in ("tiny", "other"):
        with TeacherFolder.open(Path("theirs"), make_manifest(teacher)) as folder:
            folder.append("train", make_rows(1, 2, reply=teacher))
            folder.append("dev-hard", make_rows(3))
            folder.seal()
    push_harvest("theirs", "reviews", raw="drop")
    script = (
        "from datasets import load_dataset\n"
        "whole, one = load_dataset('me/reviews'), load_dataset('me/reviews', 'tiny', split='dev_hard')\n"
        "print({split: rows.num_rows for split, rows in whole.items()}, set(whole['train']['reply']))\n"
        "print(list(one['sample_id']), one.features['label'].names, list(one['raw']))\n"
    )
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(Path("home").resolve())}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'train': 2, 'dev_hard': 1} {'other'}",
        "['row-3'] ['no', 'yes'] [None]",
    ]
