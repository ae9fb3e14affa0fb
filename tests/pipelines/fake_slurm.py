"""A SLURM of one machine for the tests: `srun`, `scancel` and `scontrol` that start, tell and note real processes."""

import os
import stat
from pathlib import Path

# Each task has the variables that SLURM gives one; the step ends with the highest of their codes.
_SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
    pids+=($!)
    echo $! >> "$FAKE_SLURM/tasks"
done
code=0
for pid in "${pids[@]}"; do
    wait "$pid"
    one=$?
    ((one > code)) && code=$one
done
exit $code
"""
_SCANCEL = """#!/bin/bash
[ "$1" == --signal=TERM ] && [ "$2" == "$FAKE_JOB" ] && kill -TERM $(cat "$FAKE_SLURM/tasks")
"""
_SCONTROL = """#!/bin/bash
case "$1" in
    show) echo 127.0.0.1 ;;
    requeue) echo "$2" >> "$FAKE_SLURM/requeued" ;;
esac
"""


def make_slurm(folder: Path, commands: Path, tasks: int, **more: str) -> dict[str, str]:
    """Write the three commands to `folder`, and give the environment of a job of so many tasks.

    What a job runs is found in the folder `commands`. It is known to `scancel` as FAKE_JOB: by its number, or as one
    of an array.
    """
    folder.mkdir()
    for name, content in (("srun", _SRUN), ("scancel", _SCANCEL), ("scontrol", _SCONTROL)):
        path = folder / name
        path.write_text(content)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    number = str(os.getpid())
    job = {"SLURM_JOB_ID": number, "SLURM_NTASKS": str(tasks), "SLURM_JOB_NODELIST": "here", "FAKE_JOB": number}
    path_of_all = f"{folder}:{commands}:{os.environ['PATH']}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "FAKE_SLURM": str(folder), "PATH": path_of_all, **job, **more}


def read_requeued(folder: Path) -> list[str]:
    """The jobs that were put into the queue again."""
    noted = folder / "requeued"
    return noted.read_text().split() if noted.exists() else []


def forget_tasks(folder: Path) -> None:
    """Forget the processes of a job that has ended."""
    (folder / "tasks").unlink()
