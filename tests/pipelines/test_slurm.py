"""The example scripts for SLURM, run as a job runs them, told that their time is up, and put into the queue again."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors.torch import load_file

from distill.config import make_distill_config
from shared.shards import verify_shards
from tests.distill.ranks import STOPPED, run_ranks
from tests.distill.writing import make_sums, make_writer, write_sums
from tests.harvest.fault_server import FaultServer
from tests.harvest.teachers.endpoint.test_crash import write_texts
from tests.pipelines.fake_slurm import forget_tasks, make_slurm, read_requeued

pytestmark = pytest.mark.real

SCRIPTS = Path(__file__).parents[2] / "pipelines/slurm"
COMMANDS = Path(sys.executable).parent
INTERRUPTED = 130
EPOCHS = 6


def start(script: str, environment: dict[str, str], *options: str) -> "subprocess.Popen[str]":
    command = ["bash", str(SCRIPTS / script), *options]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def run(script: str, environment: dict[str, str], *options: str) -> None:
    """Run a job to its end."""
    job = start(script, environment, *options)
    said = job.communicate(timeout=200)[1]
    assert job.returncode == 0, said


def wait_until(is_so: Callable[[], bool], job: "subprocess.Popen[str]") -> None:
    while job.poll() is None and not is_so():
        time.sleep(0.01)
    assert job.poll() is None, job.stderr and job.stderr.read()


def test_a_student_whose_job_is_preempted_and_put_back_is_the_same_one(tmp_path: Path) -> None:
    writer = make_writer(tmp_path / "writer")
    shards = write_sums(tmp_path, writer, make_sums(40))
    slurm = tmp_path / "slurm"
    environment = make_slurm(slurm, COMMANDS, tasks=2)
    options: dict[str, Any] = {"shards": shards, "student": str(writer), "device": "cpu", "precision": "float32"}
    options |= {"epochs": EPOCHS, "batch_size": 8, "parallel": "fsdp"}
    assert run_ranks(make_distill_config(**options), tmp_path / "whole", 2) == [0, 0]
    options |= {"name": "mine", "out": tmp_path / "stopped"}
    flags = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    log = tmp_path / "stopped/.mine.partial/log.jsonl"
    job = start("distill.sh", environment, *flags)
    wait_until(lambda: log.exists() and log.read_text().count("\n") > 1, job)
    job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=200)[1]
    assert job.returncode == STOPPED, said
    assert "mine was stopped by SIGTERM" in said
    assert read_requeued(slurm) == [environment["SLURM_JOB_ID"]]
    forget_tasks(slurm)
    run("distill.sh", environment, *flags)
    whole, stopped = (load_file(tmp_path / out / "mine/student/model.safetensors") for out in ("whole", "stopped"))
    assert all(weight.equal(stopped[name]) for name, weight in whole.items())
    assert len(read_requeued(slurm)) == 1


def test_a_harvest_of_an_array_that_is_preempted_asks_nothing_twice(tmp_path: Path) -> None:
    texts, out = write_texts(tmp_path, 300), tmp_path / "out"
    jobs = [tmp_path / f"job{number}" for number in (1, 2)]
    environments = [
        make_slurm(
            folder,
            COMMANDS,
            tasks=1,
            SLURM_ARRAY_JOB_ID="77",
            SLURM_ARRAY_TASK_ID=str(number),
            FAKE_JOB=f"77_{number}",
            SLURM_ARRAY_TASK_COUNT="2",
            CANARY_KEY="sk-none",
        )
        for number, folder in enumerate(jobs, start=1)
    ]
    with FaultServer(latency=0.05) as server:
        options = ["--task", str(texts), "--out", str(out), "--text-column", "text", "--label-column", "label"]
        options += ["--labels", "negative,positive", "--label-words", "negative,positive", "--question", "Positive?"]
        options += ["--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--dialect", "openai"]
        options += ["--scoring", "top_logprobs", "--api-key-env", "CANARY_KEY", "--concurrency", "4"]
        started = [start("harvest.sh", environment, *options) for environment in environments]
        wait_until(lambda: len(list(out.glob("**/journal/*"))) > 1 and len(server.count.attempts) > 40, started[0])
        for job in started:
            job.send_signal(signal.SIGTERM)
        said = [job.communicate(timeout=100)[1] for job in started]
        assert [job.returncode for job in started] == [INTERRUPTED] * 2, said
        for folder, environment in zip(jobs, environments, strict=True):
            assert read_requeued(folder) == [environment["FAKE_JOB"]]
            forget_tasks(folder)
            run("harvest.sh", environment, *options)
        assert not server.count.again
    assert pl.read_parquet(f"{out}/**/*.parquet", hive_partitioning=True).height == 300
    assert verify_shards(out).ok
