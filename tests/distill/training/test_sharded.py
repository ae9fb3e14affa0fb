"""A student whose weights several processes share, over gloo on a CPU: what one process gives, and its checkpoints."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill.config import DistillConfig, make_distill_config
from distill.run import run_distillation
from distill.runs.names import SHARDS
from shared.errors import Error
from tests.distill.distill_rows import WriteFolder, make_rows, without_label
from tests.distill.ranks import STOPPED, read_epochs, run_ranks
from tests.distill.writing import make_sums, make_writer, write_sums

pytestmark = pytest.mark.real

OPTIONS: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "student_lr": 1e-3,
    "dropout": 0.0,
    "device": "cpu",
    "precision": "float32",
    "parallel": "fsdp",
}


def compare(config: DistillConfig, out: Path, saved: str, tolerance: float = 1e-5) -> None:
    """Train in one process and in two: the losses, the scores and the student that is saved are the same."""
    assert run_ranks(config, out / "one", 1) == [0]
    assert run_ranks(config, out / "two", 2) == [0, 0]
    one, two = (read_epochs(out / name) for name in ("one", "two"))
    for alone, together in zip(one, two, strict=True):
        assert together["student"] == pytest.approx(alone["student"], abs=tolerance)
        assert together["dev"] == pytest.approx(alone["dev"], abs=1e-9)
    losses = [epoch["student"]["total"] for epoch in one]
    assert abs(losses[0] - losses[-1]) > 1e-3, "it learns nothing"
    check_students(out / "one", out / "two", saved, 10 * tolerance)


def check_students(one: Path, other: Path, saved: str, tolerance: float) -> None:
    """The folders of both students have the same files, and the same weights."""
    files = [{path.name for path in (each / "mine/student").iterdir()} for each in (one, other)]
    assert files[0] == files[1]
    alone, together = (load_file(each / "mine" / saved) for each in (one, other))
    assert alone.keys() == together.keys()
    for name, weight in alone.items():
        assert together[name].dtype == weight.dtype
        torch.testing.assert_close(together[name], weight, atol=tolerance, rtol=0)


# 41 rows in batches of 8: the last batch has one row, and the second process none of its own. Parts of 3 rows: a share
# of 4 is two of them, and one of 3 that has none to add computes a second one that counts nothing.
@pytest.mark.parametrize(
    ("saved", "options"),
    [
        ("student/model.safetensors", {"loss": "contrastive", "preset": "armada", "micro_batch": 3}),
        ("student/adapter_model.safetensors", {"lora_rank": 2, "micro_batch": 3}),
    ],
)
def test_two_processes_that_share_a_classifier_give_the_losses_of_one(
    write_folder: WriteFolder, tiny_student: Path, tmp_path: Path, saved: str, options: dict[str, Any]
) -> None:
    train = [row if i % 3 else without_label(row) for i, row in enumerate(make_rows(41))]
    shards = write_folder({"train": [train[:30], train[30:]], "validation": [make_rows(21, 1)]})
    compare(make_distill_config(shards=shards, student=str(tiny_student), **OPTIONS, **options), tmp_path, saved)


@pytest.mark.parametrize(
    ("choices", "options"),
    [
        (False, {"micro_batch": 3, "gradient_checkpointing": True}),
        (True, {"lora_rank": 2}),
        (False, {"lora_rank": 2, "lora_targets": "all-linear", "precision": "bfloat16"}),
    ],
)
def test_two_processes_that_share_a_writer_give_the_losses_of_one(
    tmp_path: Path, choices: bool, options: dict[str, Any]
) -> None:
    writer = make_writer(tmp_path / "writer")
    shards = write_sums(tmp_path, writer, make_sums(41), choices=choices)
    config = make_distill_config(
        shards=shards, student=str(writer), template="lm-eval", learn=("reply", "topk=2"), **{**OPTIONS, **options}
    )
    tolerance = 1e-5 if config.training.precision == "float32" else 5e-3  # where the order of sums shows
    compare(config, tmp_path, "student/model.safetensors", tolerance)


def test_a_checkpoint_of_two_processes_is_gone_on_from_by_one_two_and_four(tmp_path: Path) -> None:
    writer = make_writer(tmp_path / "writer")
    shards = write_sums(tmp_path, writer, make_sums(40))
    config = make_distill_config(shards=shards, student=str(writer), template="lm-eval", **OPTIONS)
    assert run_ranks(config, tmp_path / "whole", 2) == [0, 0]
    # The second process is told after step 7, the second one of epoch 2: both stop there.
    assert run_ranks(config, tmp_path / "stopped", 2, told=(1, 7)) == [STOPPED, STOPPED]
    folder = tmp_path / "stopped/.mine.partial"
    for count in (1, 2, 4):
        shutil.copytree(tmp_path / "stopped", tmp_path / str(count))
        assert run_ranks(config, tmp_path / str(count), count) == [0] * count
        for whole, on in zip(read_epochs(tmp_path / "whole"), read_epochs(tmp_path / str(count)), strict=True):
            assert on["student"] == pytest.approx(whole["student"], abs=1e-5)
        tolerance = 0 if count == 2 else 1e-5
        check_students(tmp_path / "whole", tmp_path / str(count), "student/model.safetensors", tolerance)
        assert not list((tmp_path / str(count) / "mine").glob("checkpoint*"))
    damaged = next((folder / SHARDS).glob("*/__1_0.distcp"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(Error, match=f"is damaged: the bytes of .*{damaged.name} are not those"):
        run_distillation(config, tmp_path / "stopped", "mine")
