"""Processes that train one run together over gloo, as torchrun starts them; without its seconds, from a warm server."""

import json
import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Any

from distill.config import DistillConfig
from distill.run import run_distillation
from shared.errors import StoppedError

STOPPED = StoppedError.exit_code
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["distill.run", "torch._dynamo", "transformers.models.bert.modeling_bert", "peft"])


def run_rank(config: DistillConfig, out: Path, rank: int, count: int, port: int, told: tuple[int, int] | None) -> None:
    """Train as one of `count` processes; the rank `told` names gets SIGTERM after so many steps of its own."""
    import torch

    from distill.training.checkpoint import Checkpoints

    torch.set_num_threads(1)
    known = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in known.items()})
    is_due = Checkpoints.is_due
    steps = 0

    def count_steps(self: Checkpoints, step: int) -> bool:
        nonlocal steps
        steps += 1
        if told == (rank, steps):
            os.kill(os.getpid(), signal.SIGTERM)
        return is_due(self, step)

    Checkpoints.is_due = count_steps  # type: ignore[method-assign]
    try:
        run_distillation(config, out, "mine")
    except StoppedError as error:
        os._exit(error.exit_code)


def run_ranks(config: DistillConfig, out: Path, count: int, told: tuple[int, int] | None = None) -> list[int | None]:
    """Train in `count` processes, and give how each ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [server.Process(target=run_rank, args=(config, out, rank, count, port, told)) for rank in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(200)
        process.kill()
    return [process.exitcode for process in started]


def read_epochs(out: Path) -> list[dict[str, Any]]:
    """The epochs of the log."""
    return [json.loads(line) for line in (out / "mine" / "log.jsonl").read_text().splitlines()]
