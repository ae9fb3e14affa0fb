"""Replicas in processes of this machine, a socket to each."""

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harvest.teachers.pool.messages import Close, FromReplica, Means, Settings, ToReplica
from shared.cores import count_cores
from shared.errors import TeacherError, UsageError
from shared.workers import start_module

CLOSING_SECONDS = 20.0  # an engine of a replica's own may take 15 of them
SHOWN_LINES, SHOWN_BYTES = 15, 4096
_DEVICES = "CUDA_VISIBLE_DEVICES"  # ROCm hears it, too


class ProcessHost:
    """Starts the replicas of `settings`, `count` in all, and shares out the machine's cores and GPUs among them.

    `amounts` are those of each, by name, where the user gave them: see check_amounts.
    """

    def __init__(self, settings: Settings, count: int, amounts: Mapping[str, float]) -> None:
        self._settings = settings
        cores = int(amounts.get("cpus", max(1, count_cores() // count)))
        devices = list_devices()
        gpus = amounts.get("gpus", len(devices) / count)
        self._means = [Means(cores, choose_environment(number, cores, gpus, devices)) for number in range(count)]

    def start(self, number: int) -> "ProcessLink":
        """Start replica `number`."""
        try:
            return ProcessLink(self._settings, self._means[number])
        except OSError as error:  # of processes, memory or descriptors there are too few
            raise TeacherError(
                f"replica {number + 1} cannot be started ({error}). What was answered is kept; give a smaller "
                "--replicas, and the same command goes on"
            ) from None

    def check(self) -> None:
        """Nothing is shared."""

    def close(self) -> None:
        """Nothing is shared."""


class ProcessLink:
    """A replica's process. What it prints is in a file without a name, which goes with it."""

    def __init__(self, settings: Settings, means: Means) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (`kill` closes it)
        self._process, self._connection = start_module(
            "harvest.teachers.pool.process",
            self._log,
            self._log,
            environment={"PYTHONUNBUFFERED": "1"},
            own_session=True,
        )
        self._send((settings, means))

    def send(self, message: ToReplica) -> None:
        """Hand a message over."""
        self._send(message)

    def receive(self) -> Sequence[FromReplica] | None:
        """Wait for a message; None once the process has ended."""
        try:
            return [self._connection.recv()]
        except (EOFError, OSError):
            return None

    def explain_end(self) -> str:
        """Say with which code it ended, and what it said last."""
        try:
            code = self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its socket, and hangs"
        killed = " (killed: by the system where memory ran out)" if code == -signal.SIGKILL else ""
        log = self._log.fileno()
        end = os.pread(log, SHOWN_BYTES, max(0, os.fstat(log).st_size - SHOWN_BYTES))
        said = end.decode("utf-8", "replace").splitlines()[-SHOWN_LINES:]
        return "\n".join([f"ended with code {code}{killed}", *(f"  {line}" for line in said)])

    def close(self) -> None:
        """Have it end, and wait for that; what lasts longer than CLOSING_SECONDS is killed."""
        self._send(Close())
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSING_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill it and its group. An engine in a session of its own ends with its socket."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)  # not closed: a thread reads from it
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _send(self, message: object) -> None:
        with suppress(OSError):  # it has ended: `receive` says so
            self._connection.send(message)


def check_amounts(amounts: Mapping[str, float]) -> None:
    """Raise UsageError where this machine has fewer GPUs than a replica is to have."""
    gpus, found = amounts.get("gpus", 0), len(list_devices())
    if gpus > found:
        raise UsageError(f"--per-replica gpus={gpus:g}: {found} GPUs were found on this machine")


def list_devices(folder: Path = Path("/dev")) -> list[str]:
    """List the GPUs that this process may use, by CUDA_VISIBLE_DEVICES, or as CUDA counts them: from 0.

    A container may have been given the system's third one alone, as /dev/nvidia2, which is its first.
    """
    visible = os.environ.get(_DEVICES)
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(folder.glob("nvidia[0-9]*"))]


def choose_environment(number: int, cores: int, gpus: float, devices: Sequence[str]) -> dict[str, str]:
    """The variables that give replica `number` its cores and its GPUs: whole ones, or a part of one.

    Where there are fewer than all replicas are to have, several see the same.
    """
    environment = {"OMP_NUM_THREADS": str(cores)}
    if devices:
        first, many = (int(number * gpus), 1) if 0 < gpus < 1 else (number * int(gpus), int(gpus))
        environment[_DEVICES] = ",".join(devices[at % len(devices)] for at in range(first, first + many))
    return environment
