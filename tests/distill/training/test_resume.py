"""A run that is killed, again and again, comes to the same weights as one that is not: bit for bit, on a CPU."""

import json
import multiprocessing
import os
import random
import signal
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.config import DistillConfig, make_distill_config
from distill.run import run_distillation
from shared.errors import UsageError
from tests.distill.distill_rows import WriteFolder, make_rows, without_label

STEPS = 8  # of 64 rows in batches of 8
EPOCHS = 4

# Children of a server that has loaded torch once: a process of its own costs two seconds.
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["distill.run", "torch._dynamo", "transformers.models.bert.modeling_bert"])


def train(config: DistillConfig, out: Path, checkpoint_steps: int, kill_after: int | None, torn: bool) -> None:
    """Run in a process; kill it after so many steps of its own: before it saves, or in the middle of saving.

    Each phase that it trains is a line of the file <out>-phases, beside the folder `out`.
    """
    from distill.methods.armada import Armada
    from distill.methods.controls import SelfTrained, SmoothedArmada
    from distill.training.checkpoint import Checkpoints

    def note(method: type[Armada]) -> None:
        make_phase = method.make_phase

        def make_noted(self: Armada, name: str, results: Any) -> Any:
            with (out.parent / f"{out.name}-phases").open("a") as file:
                file.write(f"{os.getpid()} {name}\n")
            return make_phase(self, name, results)

        method.make_phase = make_noted  # type: ignore[method-assign]

    for method in (Armada, SelfTrained, SmoothedArmada):
        note(method)
    torch.set_num_threads(1)
    is_due, save = Checkpoints.is_due, torch.save
    steps = 0

    def count(self: Checkpoints, step: int) -> bool:
        nonlocal steps
        steps += 1
        if steps == kill_after and not torn:
            os.kill(os.getpid(), signal.SIGKILL)
        return is_due(self, step) or steps == kill_after

    def save_half(state: Any, file: Any) -> None:
        if steps == kill_after:
            whole = BytesIO()
            save(state, whole)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(state, file)

    Checkpoints.is_due = count  # type: ignore[method-assign]
    torch.save = save_half  # type: ignore[assignment]
    run_distillation(config, out, "mine", checkpoint_steps=checkpoint_steps)


def start(*arguments: Any) -> int | None:
    process = server.Process(target=train, args=arguments)
    process.start()
    process.join(600)
    process.kill()  # what is left of it, so that it does not go on beside the next one
    return process.exitcode


@pytest.fixture
def shards(write_folder: WriteFolder) -> Path:
    train = [row if i % 2 else without_label(row) for i, row in enumerate(make_rows(64))]
    return write_folder({"train": [train[:30], train[30:]], "validation": [make_rows(20, 1)]})


@pytest.mark.parametrize(
    ("checkpoint_steps", "options"),
    [
        (1, {"schedule": "interleaved", "semantics": "code"}),
        (2, {"preset": "default", "student_lr": 3e-3, "eval_steps": 3, "patience": 10}),
        (3, {"aligner_pretraining": 1, "warmup": 0.2, "decay": "linear", "buffer_bytes": 6000}),
    ],
)
@pytest.mark.real
def test_killed_at_random_steps_a_run_comes_to_the_same_weights(
    shards: Path, tiny_student: Path, tmp_path: Path, checkpoint_steps: int, options: dict[str, Any]
) -> None:
    kill_at_random(shards, tiny_student, tmp_path, checkpoint_steps, 5, EPOCHS, options)


@pytest.mark.parametrize(
    ("first", "first_steps", "options"),
    [
        ("pretraining", 3 * 4, {"aligner_pretraining": 3, "semantics": "code"}),
        ("smoothing", EPOCHS * 4, {"control": "label-smoothing", "semantics": "code"}),
        ("first student", EPOCHS * STEPS, {"control": "self-training"}),
    ],
)
@pytest.mark.real
def test_killed_in_each_phase_a_run_trains_no_finished_phase_again(
    shards: Path, tiny_student: Path, tmp_path: Path, first: str, first_steps: int, options: dict[str, Any]
) -> None:
    """Killed in the first phase, at its last step, and in the main loop; the labelled rows fill 4 batches."""
    config = configure(shards, tiny_student, EPOCHS, options)
    assert start(config, tmp_path / "whole", 2, None, False) == 0
    # The second goes on from step 4 of the first phase and is killed amid saving its last, the third from the last but
    # one, into the main loop.
    for kill_after, torn in ((5, False), (first_steps - 4, True), (8, False)):
        assert start(config, tmp_path / "killed", 2, kill_after, torn) == -signal.SIGKILL
    assert start(config, tmp_path / "killed", 2, None, False) == 0
    check_same(tmp_path, EPOCHS)
    by_process: dict[str, list[str]] = {}
    for line in (tmp_path / "killed-phases").read_text().splitlines():
        process, _, name = line.partition(" ")
        if name not in by_process.setdefault(process, []):
            by_process[process].append(name)
    assert list(by_process.values()) == [[first], [first], [first, "student"], ["student"]]


@pytest.mark.real
def test_killed_after_steps_that_overflowed_float16_a_run_goes_on_at_its_scale(
    shards: Path, tiny_student: Path, tmp_path: Path
) -> None:
    config = configure(shards, tiny_student, 2, {"precision": "float16", "beta": 100.0})
    assert start(config, tmp_path / "whole", 2, None, False) == 0
    assert start(config, tmp_path / "killed", 2, 7, False) == -signal.SIGKILL
    assert start(config, tmp_path / "killed", 2, None, False) == 0
    check_same(tmp_path, 2)
    first, last = (json.loads(line) for line in (tmp_path / "whole/mine/log.jsonl").read_text().splitlines())
    assert first["student"]["skipped"] > last["student"]["skipped"] == 0
    metrics = json.loads((tmp_path / "killed/mine/metrics.json").read_text())
    assert metrics["float16"]
    assert metrics["skipped_steps"] == STEPS * first["student"]["skipped"]


@pytest.mark.real
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_ten_random_steps_a_run_comes_to_the_same_weights(
    shards: Path, tiny_student: Path, tmp_path: Path, seed: int
) -> None:
    options = {"loss": "elementwise", "warmup": 0.1, "decay": "linear", "buffer_bytes": 6000, "seed": seed}
    kill_at_random(shards, tiny_student, tmp_path, 1, 10, 9, options)


def kill_at_random(
    shards: Path, student: Path, tmp_path: Path, checkpoint_steps: int, kills: int, epochs: int, options: dict[str, Any]
) -> None:
    """Train once whole and once killed so often, before saving and amid it in turn; compare all that they wrote."""
    config = configure(shards, student, epochs, options)
    assert start(config, tmp_path / "whole", checkpoint_steps, None, False) == 0
    chance = random.Random(5 + config.training.seed)
    for kill in range(kills):
        # Each process gets some steps further than its checkpoint, so the kills are spread over the run.
        assert (
            start(config, tmp_path / "killed", checkpoint_steps, chance.randint(3, 7), kill % 2 == 1) == -signal.SIGKILL
        )
        assert not (tmp_path / "killed" / "mine").exists()
    assert start(config, tmp_path / "killed", checkpoint_steps, None, False) == 0
    check_same(tmp_path, epochs)


def configure(shards: Path, student: Path, epochs: int, options: dict[str, Any]) -> DistillConfig:
    defaults = {"preset": "armada", "epochs": epochs, "batch_size": 8, "student_lr": 1e-3, "device": "cpu"}
    return make_distill_config(shards=shards, student=str(student), **{**defaults, **options})


def check_same(tmp_path: Path, epochs: int) -> None:
    """The run in `whole` and the one in `killed` have the same weights, row scores and log, and left nothing else."""
    whole, killed = (tmp_path / out / "mine" for out in ("whole", "killed"))
    files = sorted(path.relative_to(whole) for path in whole.rglob("*.safetensors"))
    assert len(files) >= 2
    for name in (*files, Path("row_scores.parquet")):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    logs = [
        [
            {**json.loads(line), "seconds": 0}
            for line in (tmp_path / out / "mine" / "log.jsonl").read_text().splitlines()
        ]
        for out in ("whole", "killed")
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == epochs
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["mine"]


def test_other_settings_do_not_go_on(shards: Path, tiny_student: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"shards": shards, "student": str(tiny_student), "epochs": 1, "batch_size": 8}
    assert start(make_distill_config(**options), tmp_path, 1, 5, False) == -signal.SIGKILL
    other = make_distill_config(**options, student_lr=1e-3, labels=10)
    with pytest.raises(UsageError, match=r"labels was None and is 10; student_lr was 0\.0001 and is 0\.001"):
        run_distillation(other, tmp_path, "mine")
    assert (tmp_path / ".mine.partial" / "checkpoint.pt").exists()
    folder, metrics = run_distillation(other, tmp_path, "mine", overwrite=True)
    assert metrics["student_steps"] == STEPS
    assert np.isfinite(metrics["dev_best"])
    assert list(tmp_path.glob(".*")) == []
    assert folder.name == "mine"
