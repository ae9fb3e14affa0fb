"""The file that training goes on from: whole or absent, and never that of another run."""

import os
import time
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from distill.compute.processes import Processes
from distill.training import checkpoint
from distill.training.checkpoint import Checkpoints
from shared.errors import Error, UsageError

IDENTITY = {"seed": 3, "loss": "euclid", "labels": None}


def fail(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_what_was_saved_last_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c.pt", IDENTITY)
    assert checkpoints.load() is None
    for step in (1, 2):
        checkpoints.save({"step": step, "student": {"w": torch.full((3,), float(step))}})
    state = Checkpoints(tmp_path / "c.pt", dict(IDENTITY)).load()
    assert state is not None
    assert state["step"] == 2
    assert state["student"]["w"].tolist() == [2, 2, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_the_time_of_earlier_processes_adds_up(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path / "c.pt", IDENTITY)
    first.seconds_before = 40.0
    first.save({})
    second = Checkpoints(tmp_path / "c.pt", IDENTITY)
    second.load()
    assert 40 <= second.seconds_before < 45


def test_due_by_steps_or_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_steps = Checkpoints(tmp_path / "c.pt", IDENTITY, steps=3)
    assert [step for step in range(1, 10) if by_steps.is_due(step)] == [3, 6, 9]
    assert not Checkpoints(tmp_path / "c.pt", IDENTITY, steps=1, processes=Processes(1, 2)).is_due(1)
    by_time = Checkpoints(tmp_path / "c.pt", IDENTITY)
    assert not by_time.is_due(1)
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    assert by_time.is_due(1)


def test_another_runs_checkpoint_is_refused_by_name_or_discarded(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "c.pt", IDENTITY).save({})
    Checkpoints(tmp_path / "c.pt", IDENTITY).settle(discard=True)
    assert (tmp_path / "c.pt").exists(), "one's own is kept"
    other = Checkpoints(tmp_path / "c.pt", {**IDENTITY, "seed": 4, "labels": 50})
    with pytest.raises(UsageError, match="seed was 3 and is 4; labels was None and is 50"):
        other.settle(discard=False)
    other.settle(discard=True)
    assert not (tmp_path / "c.pt").exists()
    other.settle(discard=False)


def test_a_byte_that_flipped_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    Checkpoints(path, IDENTITY).save({"w": torch.arange(500.0)})
    content = path.read_bytes()
    for at in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :])
        with pytest.raises(Error, match=r"c\.pt .*; move it aside to start the run over"):
            Checkpoints(path, IDENTITY).load()
    path.write_bytes(content)
    assert Checkpoints(path, IDENTITY).load() is not None


@pytest.mark.parametrize("kind", ["empty", "cut", "longer", "of another program", "a folder"])
def test_a_file_that_is_no_checkpoint_is_named_with_the_way_out(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    Checkpoints(path, IDENTITY).save({"w": torch.zeros(100)})
    content = path.read_bytes()
    foreign = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "longer": content + b"\0",
        "of another program": b"PK",
    }
    if kind == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(foreign[kind])
    with pytest.raises(Error, match=r"c\.pt .*; move it aside to start the run over: mv .* \(or give --overwrite\)"):
        Checkpoints(path, IDENTITY).settle(discard=False)
    if kind != "a folder":
        Checkpoints(path, IDENTITY).settle(discard=True)
        assert Checkpoints(path, IDENTITY).load() is None


def test_what_torch_saved_and_we_did_not_is_refused(tmp_path: Path) -> None:
    torch.save({"identity": IDENTITY}, tmp_path / "c.pt")
    with pytest.raises(Error, match="has no checksum at its end"):
        Checkpoints(tmp_path / "c.pt", IDENTITY).load()


def test_a_disk_that_is_full_costs_the_checkpoint_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(tmp_path / "c.pt", IDENTITY)
    checkpoints.save({"step": 1})
    monkeypatch.setattr(os, "fsync", fail)
    checkpoints.save({"step": 2})
    assert "cannot be written" in capsys.readouterr().err
    state = checkpoints.load()
    assert state is not None
    assert state["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_shared_weights_that_find_no_room_leave_none_of_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "c.pt", time.monotonic()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        weight = distribute_tensor(torch.arange(8.0), init_device_mesh("cpu", (1,)), [Shard(0)])
        checkpoints = Checkpoints(path, IDENTITY, processes=Processes(shards=True))
        assert checkpoints.save({"step": 1, "w": weight})
        kept = sorted(tmp_path.glob("c.shards/*/*"))
        assert len(kept) > 1
        with monkeypatch.context() as full:
            full.setattr(time, "monotonic", lambda: now + 2 * checkpoint.SECONDS)
            assert checkpoints.is_due(2)
            full.setattr(os, "fsync", fail)
            assert not checkpoints.save({"step": 2, "w": weight})
            assert not checkpoints.is_due(3), "it would be tried after each step"
        assert sorted(tmp_path.glob("c.shards/*/*")) == kept
        Checkpoints(path, IDENTITY, processes=Processes(shards=True)).settle(discard=False)
    finally:
        distributed.destroy_process_group()


def test_of_several_processes_one_writes(tmp_path: Path) -> None:
    other = Checkpoints(tmp_path / "c.pt", IDENTITY, processes=Processes(1, 2))
    other.save({"step": 1})
    assert list(tmp_path.iterdir()) == []
    Checkpoints(tmp_path / "c.pt", IDENTITY).save({"step": 2})
    other.remove()
    state = other.load()
    assert state is not None
    assert state["step"] == 2
