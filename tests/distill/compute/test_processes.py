"""Two processes over gloo, as torchrun starts them, against one: the same losses and scores, step for step."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from distill.compute.processes import Processes
from distill.data.batches import RowSource
from distill.data.columns import TEXT
from distill.data.shared_texts import share_texts
from distill.data.split import read_split
from distill.data.tokens import TextColumn, TextEncoder, Tokens
from distill.data.vectors import find_vectors, iterate_share, iterate_vectors
from shared.shards.manifest import load_manifest
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
        # Of 7 rows one process has 4, in two parts, and the other 3, at once.
        ("--preset", "default", "--micro-batch", "3", "--batch-size", "7"),
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


class CountingEncoder(TextEncoder):
    """Counts the texts that it encodes."""

    encoded = 0

    def encode(self, texts: Sequence[str], pairs: Sequence[str | None]) -> tuple[Tokens, int]:
        self.encoded += len(texts)
        return super().encode(texts, pairs)


def read_share(rank: int, folder: Path, student: Path, out: Path) -> None:
    """As one of two processes, encode the labelled texts and read vectors; check them, and write how many were its."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
    processes, tokenizer = Processes(rank, 2), AutoTokenizer.from_pretrained(student)
    split = read_split(folder, load_manifest(folder), "train")
    encoder = CountingEncoder(tokenizer, 8)
    shared = share_texts(split, split.labelled, encoder, processes, out)
    for buffer_bytes in (1_000_000, 2000):  # all rows at once, and pieces of row groups in random order
        alone = TextColumn(TextEncoder(tokenizer, 8))
        sources = [
            RowSource(split, {TEXT: column}, wanted=split.labelled, buffer_bytes=buffer_bytes)
            for column in (shared, alone)
        ]
        for ours, theirs in zip(*(source.blocks(np.random.default_rng(0)) for source in sources), strict=True):
            tokens, expected = (block.read().join().values[TEXT] for block in (ours, theirs))
            assert all(np.array_equal(getattr(tokens, each), getattr(expected, each)) for each in Tokens.__slots__)
        assert shared.truncated == alone.truncated > 0
    vectors = find_vectors(split)
    found, rows = np.zeros((len(split), vectors.width), np.float32), 0
    for place, block in iterate_share(split, vectors, processes):
        found[place : place + len(block)] = block
        rows += len(block)
    processes.add_array(found)
    assert np.array_equal(found, np.concatenate(list(iterate_vectors(split, vectors))).astype(np.float32))
    (out / f"{rank}.json").write_text(json.dumps({"texts": encoder.encoded, "vectors": rows}))
    torch.distributed.destroy_process_group()


def test_each_process_encodes_and_decodes_its_own_share(
    write_folder: WriteFolder, tiny_student: Path, tmp_path: Path
) -> None:
    train = [row if i % 3 else without_label(row) for i, row in enumerate(make_rows(90))]
    folder = write_folder({"train": [train[:40], train[40:60], train[60:]]}) / "teacher=t"
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=read_share, args=(rank, folder, tiny_student, tmp_path)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(200)
        assert process.exitcode == 0
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    # 60 texts have labels: those of the first and last of three row groups are the first process's.
    assert (first["texts"], second["texts"]) == (26 + 20, 14)
    assert (first["vectors"], second["vectors"]) == (40 + 30, 20)
