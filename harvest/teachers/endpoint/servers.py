"""The servers of one model behind one teacher: who is asked next, who is set aside, and who is asked no more.

A request goes to the server with the fewest in flight, so a slower one gets fewer. One that may have been accepted is
asked again of the same server, which alone may know its Idempotency-Key, unless that one is set aside by then. A server
that cannot be connected to, only fails, or asks for a wait beyond --patience, is set aside, and looked at by a free
request until it is there again; one that can answer nothing (another model, a wrong key) is left. Of one server nothing
of this is true.
"""

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from harvest.chat.dialects import recognise_models
from harvest.teachers.endpoint.config import AUTO
from harvest.teachers.endpoint.faults import NO_CONNECTION, Fault, Kind
from harvest.teachers.endpoint.limiter import Limiter, Slot
from harvest.teachers.endpoint.session import HttpSession, Received
from harvest.teachers.endpoint.slots import Slots
from shared.console import say
from shared.errors import TeacherError, UsageError

MODELS_PATH = "/v1/models"
FAILURES = 5  # in a row, with no reply between them, and a server is set aside
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 1.0, 30.0  # from one look at a server that was set aside to the next
LOOK_TIMEOUT_SECONDS = 10.0
SHOWN_SERVERS = 16  # whose rows the progress line tells
SHOWN_MODELS = 5


@dataclass(slots=True, eq=False)
class Server:
    """One base URL, with its pace, and how it is doing: that outlasts the connections to it.

    `replies` are those that came, `failures` the requests since then that brought none. `is_aside` is whether it is
    asked nothing for now, `looks` how often it has been looked at, `is_left` whether it is asked nothing again.
    """

    url: str
    limiter: Limiter
    replies: int = 0
    failures: int = 0
    looks: int = 0
    is_aside: bool = False
    is_left: bool = False


class Servers:
    """Chooses among servers of one model, each with its connections. A context manager, bound to one event loop.

    `model` is what each must serve, by its list of models where `has_lists`: a provider may serve more than it lists.
    `sessions` are the connections, by server; `patience` is in seconds.
    """

    def __init__(self, model: str, sessions: Mapping[Server, HttpSession], patience: float, *, has_lists: bool) -> None:
        self._model, self._sessions, self._has_lists = model, sessions, has_lists
        self._patience = patience
        self._by_limiter = {server.limiter: server for server in sessions}
        self._slots = Slots([server.limiter for server in sessions])
        self._looking: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Servers":
        async with AsyncExitStack() as stack:
            for session in self._sessions.values():
                await stack.enter_async_context(session)
            self._stack = stack.pop_all()
        for server in self._sessions:
            server.failures, server.is_aside, server.is_left = 0, False, False
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)
        await self._stack.aclose()

    # --- slots ---

    async def acquire(self, server: Server | None = None) -> Slot:
        """Wait for the right to send one request: to `server`, where one is named and not set aside."""
        return await self._slots.acquire(None if server is None else server.limiter)

    def release(self, slot: Slot) -> None:
        """Take a slot back."""
        self._slots.release(slot)

    def let_go(self) -> None:
        """Give all that wait a slot at once, that nothing is sent with."""
        self._slots.let_go()

    def take_idle(self) -> Slot:
        """A slot that nothing is sent with."""
        return self._slots.take_idle()

    def find(self, slot: Slot) -> Server:
        """The server that a slot is of."""
        return self._by_limiter[slot.limiter]

    def narrow(self) -> None:
        """Have fewer requests in flight from now on, at each: this process can hold no more connections."""
        for limiter in self._slots.limiters:
            limiter.narrow()

    def find_refusing(self) -> Limiter:
        """The limiter of the server that is refusing for the shortest time, and asks for the shortest wait."""
        return min(self._slots.open, key=lambda limiter: max(limiter.waited(), limiter.cooldown()))

    # --- requests ---

    async def post(
        self, server: Server, body: bytes, key: str, read_timeout: float, path: str | None = None
    ) -> Received:
        """Ask a server once: see HttpSession.post."""
        return await self._sessions[server].post(body, key, read_timeout, path)

    async def fetch_json(self, path: str, body: Any = None) -> Any:
        """The JSON at a free route of the first server that gives some; None where none does. One attempt each."""
        for limiter in self._slots.open:
            if (fetched := await self._sessions[self._by_limiter[limiter]].fetch_json(path, body)) is not None:
                return fetched
        return None

    # --- how they are doing ---

    def count_reply(self, server: Server) -> None:
        """Note that a server answered."""
        server.replies += 1
        server.failures = 0
        server.limiter.count_reply()

    def count_refusal(self, server: Server, slot: Slot, fault: Fault) -> float:
        """Note a 429; give the seconds that its request alone should wait: see Limiter.count_refusal.

        Where it asks all for more than `patience`, another server is asked what waits for this one.
        """
        pause = server.limiter.count_refusal(slot, fault.retry_after)
        if server.limiter.cooldown() > self._patience and self._has_other(server):
            self._set_aside(server, fault.message)
        return pause

    def count_fault(self, server: Server, fault: Fault) -> bool:
        """Note that a request brought no reply, nor a 429; true where it is at once to be asked of another server.

        So it is where this one cannot have accepted it, and will not for now; and there is another.
        """
        if fault.kind is Kind.REFUSED:  # it did answer
            server.failures = 0
            return False
        if fault.kind is Kind.FATAL:
            return self._leave(server, fault.message)
        server.failures += 1
        unconnected = fault.cause == NO_CONNECTION
        if unconnected or server.failures >= FAILURES:
            self._set_aside(server, fault.message)
        return unconnected and self._has_other(server)

    def _has_other(self, server: Server) -> bool:
        return any(other is not server for other in self._list_open())

    def _list_open(self) -> Sequence[Server]:
        return [server for server in self._sessions if not (server.is_aside or server.is_left)]

    def _leave(self, server: Server, why: str) -> bool:
        """Ask a server nothing more; false where there is no other that may answer."""
        if server.is_left:
            return True
        if len(self._slots.limiters) == 1:
            return False
        server.is_left = True
        self._slots.leave(server.limiter)
        say(f"{server.url} is asked no more ({why}): {self._describe_others()}")
        return True

    def _set_aside(self, server: Server, why: str) -> None:
        if server.is_aside or server.is_left or len(self._slots.limiters) == 1:
            return
        server.is_aside = True
        server.looks += 1
        self._slots.close(server.limiter)
        say(f"{server.url} is set aside until it is there again ({why}): {self._describe_others()}")
        self._start(self._bring_back(server))

    def _describe_others(self) -> str:
        left = len(self._list_open())
        if left == 0:
            return "no other is there"
        return "its requests go to the other" if left == 1 else f"its requests go to the other {left}"

    def _start(self, looking: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(looking)
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _bring_back(self, server: Server) -> None:
        """Look at a server until it is there again, less and less often; not before it wants to be asked."""
        while True:
            seconds = min(FIRST_LOOK_SECONDS * 2.0 ** min(server.looks - 1, 10), LONGEST_LOOK_SECONDS)
            await asyncio.sleep(max(seconds, server.limiter.cooldown()))
            seen = await self._look(server)
            if seen.fault is None:
                break
            server.looks += 1
        server.is_aside, server.failures = False, 0
        if not seen.serves(self._model) and self._leave(server, seen.describe(self._model)):
            return
        self._slots.reopen(server.limiter)
        say(f"{server.url} is there again")

    # --- before anything is asked ---

    async def check(self, dialect: str | None) -> None:
        """See that all serve the model, by their lists of models; set those aside that cannot be reached.

        `dialect` is what they must speak by those lists: AUTO is any, but the same, None what they will. A server
        without a list is taken at its word. Raises UsageError that names those that serve another model or speak
        otherwise, and TeacherError where none can be reached.
        """
        servers = list(self._sessions)
        looks = dict(zip(servers, await asyncio.gather(*map(self._look, servers)), strict=True))
        lacking = [
            f"{server.url}: {seen.describe(self._model)}"
            for server, seen in looks.items()
            if not seen.serves(self._model)
        ]
        if lacking:
            raise UsageError(
                f"{'; '.join(lacking)}. Nothing was asked: leave such a server out, or have it serve the model under "
                "that name (vllm serve --served-model-name, llama-server --alias)"
            )
        if dialect is not None:
            _check_dialects({server.url: seen.dialect for server, seen in looks.items() if seen.dialect}, dialect)
        down = {server: seen.fault for server, seen in looks.items() if seen.fault is not None}
        if len(down) == len(servers):
            why = "; ".join(f"{server.url}: {fault.message}" for server, fault in down.items())
            raise TeacherError(f"no server is there ({why}). Nothing was asked")
        for server, fault in down.items():
            self._set_aside(server, fault.message)

    async def _look(self, server: Server) -> "_Look":
        received = await self._sessions[server].fetch(MODELS_PATH, read_timeout=LOOK_TIMEOUT_SECONDS)
        fault = received.fault
        if fault is not None and fault.kind not in (Kind.FATAL, Kind.REFUSED):
            return _Look(fault=fault)
        # One that has no list of models, or shows it to nobody, is there.
        return _read_look(received.raw or b"") if self._has_lists else _Look()


def describe_servers(servers: Sequence[Server]) -> str:
    """How many servers answer, and how many replies each has given; empty of one alone."""
    if len(servers) == 1:
        return ""
    replies = f": {', '.join(f'{one.replies:,}' for one in servers)}" if len(servers) <= SHOWN_SERVERS else ""
    return f"{sum(not (one.is_aside or one.is_left) for one in servers)} of {len(servers)} servers answer{replies}"


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at a server showed: the models that it lists, None where it has no list, and its dialect by that.

    `fault` is why it cannot be asked now.
    """

    models: Sequence[str] | None = None
    dialect: str = ""
    fault: Fault | None = None

    def serves(self, model: str) -> bool:
        """Whether the server may serve the model; Ollama's lists name the tag that a name without one stands for."""
        return self.models is None or model in self.models or f"{model}:latest" in self.models

    def describe(self, model: str) -> str:
        """Say what it serves in place of the model."""
        models = self.models or ()
        more = ", ..." if len(models) > SHOWN_MODELS else ""
        return f"the model {model} is not in its list, which has {', '.join(models[:SHOWN_MODELS])}{more}"


def _read_look(raw: bytes) -> _Look:
    """Read a list of models: the names and aliases in it, in the shapes of OpenAI's and llama.cpp's servers."""
    try:
        listed = json.loads(raw)
    except ValueError:
        return _Look()
    if not isinstance(listed, dict):
        return _Look()
    parts = [part for part in (listed.get("data"), listed.get("models")) if isinstance(part, list)]
    entries = [entry for part in parts for entry in part if isinstance(entry, dict)]
    named = [entry.get(field) for entry in entries for field in ("id", "name", "model")]
    aliases = [alias for entry in entries for alias in _list(entry.get("aliases"))]
    models = tuple(dict.fromkeys(name for name in (*named, *aliases) if isinstance(name, str)))
    return _Look(models, recognise_models(listed).name) if models else _Look()


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _check_dialects(spoken: Mapping[str, str], dialect: str) -> None:
    """Raise UsageError unless the servers, by URL, all speak `dialect`, or the same where that is AUTO."""
    wanted = next(iter(spoken.values()), "") if dialect == AUTO else dialect
    if others := [f"{url} is {name}" for url, name in spoken.items() if name != wanted]:
        raise UsageError(
            f"the servers are not asked alike: {wanted} is asked, and {', '.join(others)}. Nothing was asked: give "
            "servers of one kind, or name with --dialect what all of them understand (compatible, say)"
        )
