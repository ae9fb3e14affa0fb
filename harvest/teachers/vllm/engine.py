"""Our side of the engine's process: it is started, given questions, watched and ended."""

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from harvest.teachers.vllm.messages import Failure, Question, Ready, Result, Settings
from harvest.teachers.vllm.process import SHUTDOWN_SECONDS
from shared.errors import TeacherError, UsageError
from shared.workers import start_module

SHOWN_LINES = 15
LOOK_SECONDS = 5.0  # how often a silent engine's log is looked at
LOADING_SECONDS = 600.0  # silence that a model which is being loaded is always granted
_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}  # unless the user's own says otherwise

_LESS = (
    "lower what it holds: --engine max_num_seqs=32, --engine max_model_len=2048, a smaller --size; or spread the "
    "model: --engine tensor_parallel_size=2; or take a smaller or quantised --model"
)
# What the log of an engine without enough memory says, and what helps.
_MEMORY_SIGNS = (
    (
        ("No available memory for the cache blocks", "KV cache is needed", "larger than the available KV cache memory"),
        "too little memory is left for the engine's cache. Raise --engine gpu_memory_utilization=0.95 (on a CPU, the "
        "environment variable VLLM_CPU_KVCACHE_SPACE, in GiB), or lower --engine max_model_len=2048 or max_num_seqs=32",
    ),
    (
        ("less than desired GPU memory utilization",),
        "something else uses the GPU's memory. End it, or lower --engine gpu_memory_utilization=0.8",
    ),
    (("out of memory", "OutOfMemory", "DefaultCPUAllocator: can't allocate"), f"the engine ran out of memory: {_LESS}"),
)


class EngineProcess:
    """The process of `settings`' engine. Bound to the event loop that runs when it is made.

    It ends with `close`, when this object is dropped, and when this process ends, in whatever way.
    """

    def __init__(self, settings: Settings, patience: float) -> None:
        self._patience = patience
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._model = settings.model
        self._loading = True
        self.waiting = 0
        file, name = tempfile.mkstemp(prefix="harvest-vllm-", suffix=".log")
        self._log = Path(name)
        try:
            self._process, self._connection = start_module(
                "harvest.teachers.vllm.process", file, file, environment=_ENVIRONMENT, own_session=True
            )
        finally:
            os.close(file)
        self.close = weakref.finalize(self, _end, self._process, self._connection, self._log)
        self._connection.send(settings)
        loop = asyncio.get_running_loop()
        Thread(target=_receive, args=(self._connection, loop, self._inbox), daemon=True).start()

    @property
    def has_news(self) -> bool:
        """Whether `receive` would return at once."""
        return not self._inbox.empty()

    async def wait_until_ready(self) -> Ready:
        """What the loaded model says of itself. Raises UsageError and TeacherError that say why it cannot be loaded."""
        ready = await self._next()
        assert isinstance(ready, Ready)
        self._loading = False
        return ready

    async def submit(self, question: Question) -> None:
        """Hand over a question. The caller keeps to the engine's room."""
        try:
            await asyncio.to_thread(self._connection.send, question)
        except OSError:
            return  # its process has ended: `receive` says why
        finally:
            self.waiting += 1

    async def receive(self) -> list[Result]:
        """Results, one or more, as they come. Raises TeacherError where the engine died, or hangs."""
        results: list[Result] = await self._next()
        self.waiting -= len(results)
        return results

    async def _next(self) -> Any:
        heard, logged = time.monotonic(), -1
        patience = max(self._patience, LOADING_SECONDS) if self._loading else self._patience
        while True:
            try:
                message = await asyncio.wait_for(self._inbox.get(), min(LOOK_SECONDS, patience))
                break
            except TimeoutError:
                size = self._log.stat().st_size
                if self._loading and size != logged:  # it says what it does; later it also says so when it hangs
                    heard, logged = time.monotonic(), size
                elif time.monotonic() - heard >= patience:
                    raise TeacherError(self._explain(f"hangs: nothing was heard of it for {patience:g} s")) from None
        if message is None:
            code = await asyncio.to_thread(self._process.wait, SHUTDOWN_SECONDS)
            killed = " (killed: by the system where memory ran out)" if code == -signal.SIGKILL else ""
            raise TeacherError(self._explain(f"ended with code {code}{killed}"))
        if isinstance(message, Failure):
            if message.usage:
                raise UsageError(message.message)
            raise TeacherError(self._explain(f"failed: {message.message}"))
        return message

    def _explain(self, what: str) -> str:
        """What happened, its likely cause, and what is safe. The engine's log stays where it is."""
        log = self._log.read_text("utf-8", "replace")
        kept = self._log.with_suffix(".kept.log")
        kept.write_text(log)
        advice = find_memory_advice(log)
        lines = "\n".join(f"  {line}" for line in log.splitlines()[-SHOWN_LINES:])
        waiting = f" with {self.waiting} rows in it" if self.waiting else ""
        return (
            f"vLLM with {self._model} {what}{waiting}. {f'The cause: {advice}. ' if advice else ''}Everything that "
            "was answered is kept; the same command goes on from there. "
            f"All that it said is in {kept}; the end of it:\n{lines}"
        )


def find_memory_advice(log: str) -> str | None:
    """What to lower or raise, where the log of an engine says that memory was short."""
    for signs, advice in _MEMORY_SIGNS:
        if any(sign in log for sign in signs):
            return advice
    return None


def _receive(connection: Connection, loop: asyncio.AbstractEventLoop, inbox: "asyncio.Queue[Any]") -> None:
    """Put what comes into the inbox; None at the end."""
    message: Any = ()
    with suppress(RuntimeError):  # the loop is closed: nobody listens
        while message is not None:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                message = None
            loop.call_soon_threadsafe(inbox.put_nowait, message)


def _end(process: "subprocess.Popen[bytes]", connection: Connection, log: Path) -> None:
    """End the engine: it ends by itself when the socket does, so that a next one finds its memory free."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as ours:
        ours.shutdown(socket.SHUT_RDWR)  # not closed: a thread reads from it
    try:
        process.wait(SHUTDOWN_SECONDS + 5)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.unlink(missing_ok=True)
