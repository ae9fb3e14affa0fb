"""What has no replicas says so before anything is asked."""

import sys
from pathlib import Path

import pytest

from harvest.config import HarvestConfig, PoolConfig, TeacherChoice
from harvest.job import plan_harvest
from harvest.teachers.registry import TeacherEntry, register_teacher
from shared.errors import MissingExtraError, UsageError
from tests.harvest.teachers.pool.conftest import choose_task
from tests.harvest.teachers.pool.echo_teacher import EchoConfig, EchoTeacher


def test_an_endpoint_is_asked_from_one_process_so_that_its_cap_holds(tmp_path: Path) -> None:
    options = {"endpoint": "http://127.0.0.1:9/v1", "model": "m", "max_cost": 1.0, "price_in": 1.0, "price_out": 1.0}
    config = HarvestConfig(choose_task(tmp_path, ["a", "b"]), TeacherChoice("endpoint", options=options), PoolConfig(8))
    with pytest.raises(UsageError, match=r"one account of what is spent, so that --max-cost holds.*--concurrency"):
        plan_harvest(config)


def test_a_teacher_of_this_program_alone_is_refused(tmp_path: Path) -> None:
    entry = TeacherEntry(name="own-echo", summary="", teacher=EchoTeacher, config=EchoConfig, gives=("reply",))
    register_teacher(entry)
    config = HarvestConfig(choose_task(tmp_path, ["a", "b"]), TeacherChoice("own-echo"), PoolConfig(2))
    with pytest.raises(UsageError, match=r"known to this program alone.*docs/extending.md"):
        plan_harvest(config)


def test_what_is_not_here_is_said_before_anything_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "ray", None)
    task, teacher = choose_task(tmp_path, ["a", "b"]), TeacherChoice("echo")
    with pytest.raises(UsageError, match=r"gpus=2: 1 GPUs were found on this machine"):
        plan_harvest(HarvestConfig(task, teacher, PoolConfig(2, per_replica={"gpus": 2.0})))
    with pytest.raises(MissingExtraError, match=r"pip install 'harvest-distill\[ray\]'"):
        plan_harvest(HarvestConfig(task, teacher, PoolConfig(2, "ray")))
