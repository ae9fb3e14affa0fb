"""The command in processes that are told to stop: nothing answered is asked again, but what a drain's end cut off."""

import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from shared.shards import summarise_folder, verify_shards
from shared.signals import POLITE
from tests.harvest.fault_server import ALL_FAULTS, FaultServer
from tests.harvest.teachers.endpoint.endpoint_runs import CANARY
from tests.harvest.teachers.endpoint.test_crash import find_unanswered, write_texts

DESCRIPTORS = 256
INTERRUPTED = 130


def prepare_process() -> None:
    """Have few descriptors; and hear SIGINT, which a shell has its background processes ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def start(server: FaultServer, texts: Path, out: Path, drain: float) -> "subprocess.Popen[str]":
    command = [
        *(sys.executable, "-m", "harvest.cli", "run", "--json", "--task", str(texts), "--out", str(out)),
        *("--text-column", "text", "--label-column", "label", "--labels", "negative,positive"),
        *("--label-words", "negative,positive", "--question", "Positive or negative?", "--failure-limit", "1"),
        *("--teacher", "endpoint", "--endpoint", server.url, "--model", "m", "--dialect", "openai"),
        *("--scoring", "top_logprobs", "--api-key-env", "CANARY_KEY", "--concurrency", "256"),
        *("--read-timeout", "5", "--body-timeout", "1", "--drain", str(drain)),
    ]
    return subprocess.Popen(
        command,
        env={**os.environ, "CANARY_KEY": CANARY},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=prepare_process,
    )


def count_said(said: str) -> int:
    """The requests that a run says it has left without an answer."""
    left = re.search(r"([\d,]+) requests were left behind in flight", said)
    broken = re.search(r"([\d,]+) requests broke off without an answer", said)
    return sum(int(found[1].replace(",", "")) for found in (left, broken) if found)


def harvest_with_signals(tmp_path: Path, rows: int, signals: int, seed: int) -> None:
    """A harvest of `rows` under all faults and 256 descriptors, sent polite signals at random moments until it is done.

    Every other run drains for long enough, and then leaves nothing behind that was answered.
    """
    moments = random.Random(seed)
    texts, out = write_texts(tmp_path, rows), tmp_path / "out"
    folder = out / "teacher=m"
    cut_off: set[str] = set()
    with FaultServer(ALL_FAULTS, seed, latency=0.1) as server:
        for number, moment in enumerate(sorted(moments.sample(range(1, rows * 9 // 10), signals))):
            told = POLITE[number % len(POLITE)]
            drain = 60.0 if number % 2 else 0.02
            before = find_unanswered(folder) if folder.exists() else set()
            asked = server.count.attempts.total()
            child = start(server, texts, out, drain)
            while child.poll() is None and len(server.count.attempts) < moment:
                time.sleep(0.005)
            while child.poll() is None and server.count.attempts.total() == asked:  # it has begun to hear signals then
                time.sleep(0.005)
            time.sleep(moments.uniform(0.0, 0.1))
            child.send_signal(told)
            said = child.communicate()[0]
            done = (0, -told) if '"rows": ' in said else ()  # it may have come to its end before
            assert child.returncode in (INTERRUPTED, *done), said
            left = find_unanswered(folder)
            for kept in re.findall(r"([\d,]+) of [\d,]+ planned rows are kept", said):  # none, where it had not begun
                assert int(kept.replace(",", "")) == sum(
                    split.rows for split in summarise_folder(folder).splits.values()
                )
            assert len(left - before) <= count_said(said), said
            if drain > 1 or told == signal.SIGINT:
                assert "left behind" not in said
            assert set(server.count.again) <= cut_off
            cut_off |= left
        child = start(server, texts, out, 60.0)
        said = child.communicate()[0]
        assert child.returncode == 0, said
        assert set(server.count.again) <= cut_off
        keys = set(server.count.attempts)
    shards = pl.read_parquet(f"{out}/**/*.parquet", hive_partitioning=True)
    assert shards.height == rows
    assert set(shards["request_key"]) == keys
    verification = verify_shards(out)
    assert verification.ok, verification.problems


@pytest.mark.real
def test_signals_at_random_moments_pay_nothing_twice_that_was_waited_for(tmp_path: Path) -> None:
    harvest_with_signals(tmp_path, rows=600, signals=3, seed=11)


@pytest.mark.real
def test_fifty_signals_in_twenty_thousand_requests(tmp_path: Path) -> None:
    harvest_with_signals(tmp_path, rows=20_000, signals=50, seed=11)
