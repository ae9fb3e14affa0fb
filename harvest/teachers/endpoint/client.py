"""One request to an endpoint, from the first attempt to a reply or a fault: budget, pace, attempts and waits."""

import asyncio
import math
import random
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from harvest.chat.dialects import Dialect
from harvest.teachers.base import Confirm
from harvest.teachers.endpoint.budget import Budget, Worst
from harvest.teachers.endpoint.config import EndpointConfig
from harvest.teachers.endpoint.faults import NO_CONNECTION, Fault, Kind
from harvest.teachers.endpoint.limiter import Slot
from harvest.teachers.endpoint.secret import Secret
from harvest.teachers.endpoint.servers import Server, Servers
from shared.console import say
from shared.errors import TeacherError
from shared.schema import Answer

LONGEST_BACKOFF_SECONDS = 30.0
MAX_READ_DOUBLINGS = 3
SHORT_PAUSE_SECONDS = (0.1, 0.5)
LEAST_REFUSALS = 10  # of one request, before it is given up


@dataclass(slots=True)
class ChatRequest:
    """One request under way. `worst` gives the most that one attempt can cost, `tokens` about how many it has.

    `path` is its route, where that is not the chat's. `server` is the one that it is to be asked of, None where it may
    be any.
    """

    key: str
    body: bytes
    worst: Worst = float
    tokens: int = 0
    path: str | None = None
    server: Server | None = None
    attempts: int = 0
    timeouts: int = 0
    seconds: float = 0.0  # of its attempts, and of its waits between them
    refusals: int = 0  # by 429
    refused_since: float = math.inf
    unsettled: bool = False  # an attempt may be billed


class Exchange(NamedTuple):
    """How a request ended: with a whole reply `raw`, a broken one (`problem` says why), or a `fault`.

    `server` is the last that was asked. A reply has a `ticket` of the budget, which whoever reads the reply settles.
    """

    attempts: int
    latency_ms: float
    asked_at: datetime
    server: Server
    raw: bytes | None = None
    problem: str | None = None
    fault: Fault | None = None
    ticket: int = 0


class _RetryError(Exception):
    """An attempt failed and another may succeed."""

    def __init__(self, exchange: Exchange, retry_after: float) -> None:
        super().__init__()
        self.exchange = exchange
        self.retry_after = retry_after


class Client:
    """Sends requests to servers under one budget. An asynchronous context manager, bound to one event loop.

    `faults` counts what goes wrong, by cause. `dialect` is what the servers are asked in. `confirm` is awaited before
    each attempt, where it is given.

    A reply that was answered 200 is final, whatever became of its body. 429 waits in the limiter and is asked again
    without end (but see `patience`); what may succeed on another attempt goes through tenacity's jittered backoff, with
    no slot held meanwhile.
    """

    def __init__(
        self,
        config: EndpointConfig,
        secret: Secret,
        servers: Servers,
        budget: Budget,
        faults: Counter[str],
        dialect: Dialect,
        confirm: Confirm | None = None,
    ) -> None:
        self._config, self._secret, self._dialect = config, secret, dialect
        self._confirm = confirm
        self._servers, self._budget, self._faults = servers, budget, faults
        self._retry_wait = wait_random_exponential(multiplier=0.5, max=LONGEST_BACKOFF_SECONDS)
        self.unsettled: set[str] = set()
        self.unconnected: str | None = None  # why the last attempt found no connection, if it found none
        self._short_since: float | None = None  # since when no connection could be made, for want of descriptors
        self._ended = asyncio.Event()  # set: nothing more is sent; what is in flight may arrive

    async def __aenter__(self) -> "Client":
        await self._servers.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._servers.__aexit__()

    @property
    def ending(self) -> bool:
        """Whether nothing more is sent."""
        return self._ended.is_set()

    def end(self) -> None:
        """Send nothing more, nor wait to; what is in flight may arrive."""
        self._ended.set()
        self._servers.let_go()

    async def fetch_json(self, path: str, body: Any = None) -> Any:
        """The JSON at `path`, a free route beside the chat's "/v1", None where no server gives some."""
        return await self._servers.fetch_json(path, body)

    async def take_slot(self, server: Server | None = None) -> Slot:
        """Wait until a request may be sent at once, to `server` if named; not at all where nothing more is sent."""
        return self._servers.take_idle() if self.ending else await self._servers.acquire(server)

    def give_back(self, slot: Slot) -> None:
        """Give back a slot that no request was sent with."""
        self._servers.release(slot)

    async def ask(self, request: ChatRequest, slot: Slot | None = None) -> Exchange | None:
        """The end of one request; None where the budget or the run ended before it was answered.

        `slot` is one that the caller has acquired for the first attempt. Raises TeacherError where no request to this
        endpoint can succeed.
        """
        try:
            exchange = await self._attempt(request, slot)
        except _RetryError as first:
            # Most requests need no second attempt: they are spared tenacity's bookkeeping.
            exchange = await self._ask_again(request, first)
        fault = None if exchange is None else exchange.fault
        if exchange is not None and fault is not None and fault.kind is Kind.FATAL:
            self.end()
            url = exchange.server.url
            where = f"(model {self._config.model} at {url})"
            raise TeacherError(f"{fault.message} {where}{self._hint(fault, url)}")
        return exchange

    def _hint(self, fault: Fault, url: str) -> str:
        """What to look at where no request can succeed."""
        if fault.cause == "HTTP 404":
            return self._hint_at_path(url)
        if fault.cause not in ("HTTP 401", "HTTP 403"):
            return ""
        if not self._secret.value:
            return "; no key was sent, for none is known for that host: --api-key-env names the variable that holds it"
        note = f"; {self._dialect.key_hint}" if self._dialect.key_hint else ""
        return f"; the key is that of {self._secret.name}{note}"

    def _hint_at_path(self, url: str) -> str:
        dialect = self._dialect
        if dialect.hosts and dialect.example:
            return f"; a base URL of {dialect.name} looks like {dialect.example}"
        has_version = re.search(r"/v\d", urlsplit(url).path) is not None
        return "" if has_version or dialect.beside_v1 else "; a base URL mostly ends in /v1"

    async def _ask_again(self, request: ChatRequest, first: _RetryError) -> Exchange | None:
        failed: list[_RetryError] = [first]

        async def attempt() -> Exchange | None:
            if failed:
                raise failed.pop()  # the attempt that was made already, so that tenacity counts it
            return await self._attempt(request, None)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_RetryError),
            stop=partial(self._is_over, request),
            wait=self._wait,
            sleep=partial(self._pause_for, request),
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except _RetryError as last:
            return self._give_up(request, last.exchange)

    def _give_up(self, request: ChatRequest, exchange: Exchange) -> Exchange:
        """The end of a request whose attempts, or whose time, are over."""
        fault = exchange.fault
        if fault is None or request.attempts >= self._config.attempts:
            return exchange
        wait = "" if fault.retry_after is None else f", and the endpoint asks for {fault.retry_after:.6g} s more"
        message = (
            f"{fault.message} (given up after {request.seconds:.0f} s{wait}: --patience {self._config.patience:g})"
        )
        return exchange._replace(fault=replace(fault, message=message))

    def _is_over(self, request: ChatRequest, state: RetryCallState) -> bool:
        """Whether a request has had its attempts, or the next one would begin after --patience."""
        config = self._config
        return state.attempt_number >= config.attempts or request.seconds + state.upcoming_sleep > config.patience

    async def _pause_for(self, request: ChatRequest, seconds: float) -> None:
        request.seconds += seconds
        await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until nothing more is sent."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        least = error.retry_after if isinstance(error, _RetryError) else 0.0
        return max(self._retry_wait(state), least)

    async def _attempt(self, request: ChatRequest, slot: Slot | None) -> Exchange | None:
        """One attempt, repeated while it is answered 429. Raises _RetryError where another may succeed."""
        while True:
            slot = slot or await self.take_slot(request.server)
            server = self._servers.find(slot)
            try:
                ticket = await self._reserve(request, slot)
                if ticket is None:
                    return None
                pause, elsewhere = 0.0, False
                exchange = await self._send(request, ticket, server)
                fault = exchange.fault
                self.unconnected = fault.message if fault is not None and fault.cause == NO_CONNECTION else None
                if fault is None:
                    self._short_since = None
                    self._servers.count_reply(server)
                    return exchange
                self._faults[fault.cause] += 1
                if fault.kind is Kind.BUSY:
                    pause = self._servers.count_refusal(server, slot, fault)
                    self._check_patience(fault)
                elif fault.kind is not Kind.SHORT:  # before the slot is given back, for the next would go there, too
                    elsewhere = self._servers.count_fault(server, fault)
            finally:
                self._servers.release(slot)
            slot = None
            if fault.kind is Kind.SHORT:
                await self._wait_for_descriptors(request)
                continue
            if fault.kind is Kind.BUSY:
                if self._is_refused_for_good(request):
                    return self._give_up(request, exchange)
                await self._pause(pause)
                continue
            if elsewhere and (fault.kind is Kind.FATAL or request.seconds <= self._config.patience):
                continue
            if fault.kind in (Kind.NOT_ACCEPTED, Kind.MAYBE_ACCEPTED):
                request.unsettled |= fault.kind is Kind.MAYBE_ACCEPTED
                if fault.kind is Kind.MAYBE_ACCEPTED:
                    request.server = server
                elif not request.unsettled:  # else an earlier attempt may still be worked on there
                    request.server = None
                raise _RetryError(exchange, fault.retry_after or 0.0)
            return exchange

    async def _reserve(self, request: ChatRequest, slot: Slot) -> int | None:
        """A ticket of the budget for one attempt; None where nothing more is sent."""
        ticket = None
        if self._confirm is not None and not self.ending:
            await self._confirm()
        if not self.ending:
            slot.limiter.charge(slot, request.tokens)
            ticket = await self._budget.reserve(request.worst)
            if ticket is None:
                self.end()
            elif self.ending:  # while it waited
                self._budget.give_back(ticket)
                ticket = None
        if ticket is None and request.unsettled:
            self.unsettled.add(request.key.partition("-")[0])  # that of the row, of whichever vote
        return ticket

    async def _wait_for_descriptors(self, request: ChatRequest) -> None:
        """Have fewer connections, and wait for one to end. Raises TeacherError where none does, for --patience."""
        self._servers.narrow()
        now = time.monotonic()
        if self._short_since is None:
            self._short_since = now
            say("this process can open no more connections (ulimit -n): fewer requests are in flight from now on")
        elif now - self._short_since > self._config.patience:
            self.end()
            raise TeacherError(
                "this process can open no connection at all: let it open more files (ulimit -n), then run the same "
                "command again. What was answered is kept"
            )
        await self._pause(random.uniform(*SHORT_PAUSE_SECONDS))

    def _is_refused_for_good(self, request: ChatRequest) -> bool:
        """Count a 429 of a request; true where it alone gets nothing else, for longer than --patience."""
        now = time.monotonic()
        request.refusals += 1
        request.refused_since = min(request.refused_since, now)
        return request.refusals >= LEAST_REFUSALS and now - request.refused_since > self._config.patience

    def _check_patience(self, fault: Fault) -> None:
        limiter = self._servers.find_refusing()
        waited = limiter.waited()
        if max(waited, limiter.cooldown()) > self._config.patience:
            self.end()
            raise TeacherError(
                f"the endpoint only refuses: {fault.message}; waited {waited:.0f} s and would have to wait "
                f"{limiter.cooldown():.0f} s more. What was answered is kept; run the same command again later"
            )

    async def _send(self, request: ChatRequest, ticket: int, server: Server) -> Exchange:
        """One HTTP request. The ticket is settled here unless a reply came."""
        request.attempts += 1
        asked_at, started = datetime.now(UTC), time.perf_counter()
        fault: Fault | None = None
        maybe_billed = True  # until it is known better: a cancelled attempt may be billed
        try:
            received = await self._servers.post(
                server, request.body, request.key, self._choose_read_timeout(request), request.path
            )
            fault = received.fault
            request.timeouts += fault is not None and fault.cause == "timeout"
            maybe_billed = fault is not None and fault.kind is Kind.MAYBE_ACCEPTED
        finally:
            seconds = time.perf_counter() - started
            request.seconds += seconds
            if maybe_billed:
                self._budget.settle(ticket, None, maybe=True)
            elif fault is not None and fault.kind is Kind.SHORT:  # nothing was sent
                request.attempts -= 1
                self._budget.give_back(ticket)
            elif fault is not None and fault.cause == NO_CONNECTION:
                self._budget.give_back(ticket)
            elif fault is not None:
                self._budget.settle(ticket, 0.0)
        return Exchange(
            attempts=request.attempts,
            latency_ms=seconds * 1000,
            asked_at=asked_at,
            server=server,
            raw=received.raw,
            problem=received.problem,
            fault=fault,
            ticket=ticket,
        )

    def _choose_read_timeout(self, request: ChatRequest) -> float:
        """Wait longer for a reply after each timeout; past --patience no longer than usual. In seconds."""
        usual = self._config.read_timeout
        left = max(self._config.patience - request.seconds, usual)
        return min(usual * 2.0 ** min(request.timeouts, MAX_READ_DOUBLINGS), left)

    def clean_answer(self, answer: Answer) -> Answer:
        """An answer that does not hold the API key."""
        return self._secret.clean_answer(answer)
