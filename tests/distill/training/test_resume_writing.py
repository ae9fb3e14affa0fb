"""A student that writes, killed again and again, comes to the same weights bit for bit; and in two processes."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from distill.config import DistillConfig, make_distill_config
from tests.distill.compute.test_processes import run
from tests.distill.training.test_resume import start
from tests.distill.writing import make_sums, make_writer, write_sums

pytestmark = pytest.mark.real


@pytest.fixture
def writer(tmp_path: Path) -> Path:
    return make_writer(tmp_path / "writer")


def configure(shards: Path, writer: Path, epochs: int) -> DistillConfig:
    return make_distill_config(
        shards=shards,
        student=str(writer),
        epochs=epochs,
        batch_size=8,
        student_lr=1e-2,
        warmup=0.1,
        decay="linear",
        device="cpu",
        template="lm-eval",
        dropout=0.1,
        learn=("reply", "topk", "reference"),
    )


def kill_at_random(tmp_path: Path, writer: Path, kills: int, epochs: int) -> None:
    config = configure(write_sums(tmp_path, writer, make_sums(40)), writer, epochs)
    assert start(config, tmp_path / "whole", 1, None, False) == 0
    chance = random.Random(5)
    for kill in range(kills):
        assert start(config, tmp_path / "killed", 1, chance.randint(2, 4), kill % 2 == 1) == -signal.SIGKILL
    assert start(config, tmp_path / "killed", 1, None, False) == 0
    whole, killed = (tmp_path / out / "mine" for out in ("whole", "killed"))
    for name in ("student/model.safetensors", "row_scores.parquet", "replies/test.parquet"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    logs = [
        [{**json.loads(line), "seconds": 0} for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (whole, killed)
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == epochs


def test_killed_at_random_steps_a_writer_comes_to_the_same_weights(tmp_path: Path, writer: Path) -> None:
    kill_at_random(tmp_path, writer, 2, 2)


def test_killed_at_ten_random_steps_a_writer_comes_to_the_same_weights(tmp_path: Path, writer: Path) -> None:
    kill_at_random(tmp_path, writer, 10, 8)


@pytest.mark.parametrize("more", [(), ("--micro-batch", "2")])
def test_two_processes_give_the_losses_of_one(tmp_path: Path, writer: Path, more: tuple[str, ...]) -> None:
    # 41 rows in batches of 8: the last batch of an epoch has one row, and the second process none of its own.
    shards = write_sums(tmp_path, writer, make_sums(41))
    options = ("--learn", "reply", "--learn", "topk=2", "--template", "lm-eval", *more)
    one, two = (run(shards, writer, tmp_path / str(count), count, options) for count in (1, 2))
    for alone, together in zip(one, two, strict=True):
        assert together["student"] == pytest.approx(alone["student"], abs=1e-5)
        assert together["dev"] == pytest.approx(alone["dev"], abs=1e-9)
    losses: list[Any] = [epoch["student"]["total"] for epoch in one]
    assert losses[-1] < losses[0]
