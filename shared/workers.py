"""Starts worker processes, and ends them with the process that started them."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import IO, Any

_ROOT = str(Path(__file__).parents[1])  # where the packages lie


def start_module(
    module: str,
    output: int | IO[Any] = subprocess.DEVNULL,
    errors: int | IO[Any] | None = None,
    environment: Mapping[str, str] | None = None,
    own_session: bool = False,
) -> "tuple[subprocess.Popen[bytes], Connection]":
    """Start `python -m module FD`, FD being a socket to it, and return the process and our end of the socket.

    The module ends when its socket does, so also when this process is killed. Unlike a worker of multiprocessing it
    does not run the user's main script a second time. `output` and `errors` are its standard output and error (ours
    unless given), `environment` defaults that the user's own overrides. In its `own_session` it gets no interrupt
    from the keyboard.
    """
    ours, theirs = socket.socketpair()
    python_path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=own_session,
            env={**(environment or {}), **os.environ, "PYTHONPATH": python_path},
        )
    return process, Connection(ours.detach())


def end_with_parent() -> None:
    """End this worker process when its parent ends, killed or not; runs first in each worker of a pool.

    A killed parent closes no pool, and its workers would wait for ever.
    """
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
