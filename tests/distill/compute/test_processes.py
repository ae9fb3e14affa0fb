"""Two processes over gloo, as torchrun starts them, against one: the same losses and scores, step for step."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distill.distill_rows import WriteFolder, make_rows, without_label

pytestmark = pytest.mark.real

EPOCHS = 3


def run(shards: Path, student: Path, out: Path, processes: int, options: tuple[str, ...]) -> list[dict[str, Any]]:
    """Train in so many processes, with no dropout, which draws for each process anew; the epochs of the log."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--no-python"]
    command = [
        *((sys.executable, "-m", *launcher) if processes > 1 else ()),
        *(str(Path(sys.executable).with_name("distill")), "run"),
        *("--shards", str(shards), "--student", str(student), "--out", str(out), "--name", "mine"),
        *("--epochs", str(EPOCHS), "--batch-size", "8", "--student-lr", "1e-3", "--dropout", "0", "--device", "cpu"),
        *("--precision", "float32", "--preset", "armada", *options),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((out / "mine" / "metrics.json").read_text())
    assert metrics["processes"] == processes
    return [json.loads(line) for line in (out / "mine" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "options",
    [
        ("--loss", "euclid", "--semantics", "paper"),
        # The code's aligner has dropout; every process draws the same there, and trains the same aligner.
        (
            "--preset",
            "armada",
            "--loss",
            "elementwise",
            "--semantics",
            "code",
            "--schedule",
            "interleaved",
            "--gamma",
            "0",
        ),
        # Parts of a process's share: of 8 rows it has 4, and of the last batch one process has none.
        ("--loss", "contrastive", "--micro-batch", "3"),
        ("--loss", "none", "--alpha", "0.5", "--micro-batch", "3"),
    ],
)
def test_two_processes_give_the_losses_of_one(
    write_folder: WriteFolder, tiny_student: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    # 57 rows in batches of 8: the last batch of an epoch has one row, and the second process none of its own.
    train = [row if i % 3 else without_label(row) for i, row in enumerate(make_rows(57))]
    shards = write_folder({"train": [train[:30], train[30:]], "validation": [make_rows(21, 1)]})
    one, two = (run(shards, tiny_student, tmp_path / str(count), count, options) for count in (1, 2))
    assert len(one) == len(two) == EPOCHS
    for alone, together in zip(one, two, strict=True):
        assert together["student"].keys() == alone["student"].keys() >= {"task", "soft", "total"}
        for name, loss in alone["student"].items():
            assert together["student"][name] == pytest.approx(loss, abs=1e-5), name
        assert together["aligner_loss"] == pytest.approx(alone["aligner_loss"], abs=1e-5)
        assert together["dev"] == pytest.approx(alone["dev"], abs=1e-9)
    assert one[0]["student"]["total"] != pytest.approx(one[-1]["student"]["total"], abs=1e-3), "it learns nothing"
