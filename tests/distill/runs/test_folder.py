"""Where a run is written: all at once, by one process, and what is left when it does not end well."""

from pathlib import Path

import pytest

import distill
from distill.compute.processes import Processes
from distill.runs.folder import (
    choose_run_folder,
    explain_unwritten,
    read_metrics,
    say_kept,
    working_folder,
)
from distill.runs.names import CHECKPOINT
from shared.errors import DiskError, LockedError, UsageError


def test_a_folder_appears_all_at_once(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "a"
    with working_folder(target, False, Processes()) as work:
        (work / "metrics.json").write_text("{}")
        (work / CHECKPOINT).write_text("x")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["metrics.json"]
    assert [path.name for path in target.parent.iterdir()] == ["a"]


def test_without_a_checkpoint_nothing_is_left_and_with_one_only_that(tmp_path: Path) -> None:
    def fail(checkpoint: bool) -> None:
        with working_folder(tmp_path / "a", False, Processes()) as work:
            assert {path.name for path in work.iterdir()} <= {CHECKPOINT}
            (work / "log.jsonl").write_text("half")
            (work / "trackers").mkdir()
            if checkpoint:
                (work / CHECKPOINT).write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail(checkpoint=False)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fail(checkpoint=True)
    assert (tmp_path / ".a.partial" / CHECKPOINT).exists()


def test_only_one_process_works_on_a_run(tmp_path: Path) -> None:
    with working_folder(tmp_path / "a", False, Processes()):
        with (
            pytest.raises(LockedError, match="is being trained by another process"),
            working_folder(tmp_path / "a", False, Processes()),
        ):
            pass
        with working_folder(tmp_path / "b", False, Processes()):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_finished_run_is_replaced_when_the_new_one_is_done(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("")
    with pytest.raises(ZeroDivisionError), working_folder(tmp_path / "a", True, Processes()):
        raise ZeroDivisionError
    assert (tmp_path / "a" / "old").exists()
    with working_folder(tmp_path / "a", True, Processes()) as work:
        (work / "new").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]


def test_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_run_folder(tmp_path, None, "x", False) == tmp_path / "x"
    for taken in ("x", "x-2"):
        (tmp_path / taken).mkdir()
    capsys.readouterr()
    assert choose_run_folder(tmp_path, None, "x", False) == tmp_path / "x-3"
    assert capsys.readouterr().err == "", "nothing has begun yet"
    say_kept(tmp_path / "x", tmp_path / "x-3")
    (tmp_path / "x/metrics.json").touch()
    say_kept(tmp_path / "x", tmp_path / "x-3")
    say_kept(tmp_path / "x", tmp_path / "x")
    said = "".join(capsys.readouterr().err.split())
    assert [said.count(what) for what in ("xexists,andiskept", "xisafinishedrun,", "thisoneis")] == [1, 1, 2]
    assert choose_run_folder(tmp_path, "x", "y", True) == tmp_path / "x"
    with pytest.raises(UsageError, match="exists already"):
        choose_run_folder(tmp_path, "x", "y", False)


def test_what_is_no_folder_of_runs_and_no_run_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with (
        pytest.raises(DiskError, match=r"file/\.a\.partial cannot be written"),
        working_folder(file / "a", False, Processes()),
    ):
        pass
    for content in ("[]", "{}"):
        (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(UsageError, match="is not a finished run"):
            read_metrics(tmp_path)


def test_an_older_checkpoint_is_not_said_to_be_of_the_end(tmp_path: Path) -> None:
    checkpoint = tmp_path / CHECKPOINT
    full = OSError(28, "No space left on device")
    checkpoint.touch()
    assert "the training is kept in its checkpoint" in str(explain_unwritten(tmp_path, full, checkpoint, of_end=True))
    assert "goes on from its last checkpoint" in str(explain_unwritten(tmp_path, full, checkpoint, of_end=False))


def test_what_is_trained_is_written_to_this_disk(tmp_path: Path) -> None:
    address = Path("s3://bucket/runs")
    with pytest.raises(UsageError, match="distill run --out takes a folder of this disk, and not s3://bucket/runs"):
        choose_run_folder(address, None, "x", False)
    with pytest.raises(UsageError, match="distill compare --out takes a folder"):
        distill.run_comparison(distill.make_comparison({"shards": str(tmp_path)}, "a test"), address)
