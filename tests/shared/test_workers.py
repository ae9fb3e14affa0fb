"""No worker process outlives the process that started it."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

SCRIPT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from shared.workers import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    try:
        # The worker has inherited the pipe, which ends when the last process that holds it has ended.
        assert parent.communicate(timeout=60)[0] == ""
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
