"""A chat endpoint over real HTTP that goes wrong on purpose, from a seed, and keeps its own count of what it answered.

It runs in a thread with its own event loop. What happens to the n-th attempt of a key depends on the seed, the key and
n alone, never on the order in which requests arrive.
"""

import asyncio
import json
import math
import random
import socket
import struct
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic
from types import TracebackType
from typing import Any, Self, cast

from tests.harvest.spellings import ALL_MARKS, choose_mark, spell_marks

WORDS = ("negative", "positive")

# What becomes of a request, and how often in a thousand. The first group never answers 200.
NOT_ANSWERED = {
    "429": 4,
    "429 seconds": 3,
    "429 date": 3,
    "500": 20,
    "502": 10,
    "503": 10,
    "reset after": 10,
    "closed after": 10,
    "400": 3,
    "400 content": 3,
    "400 key": 2,
    "500 key": 3,
    "header key": 3,
}
ANSWERED = {
    "slow": 5,
    "drip": 1,
    "truncated": 10,
    "truncated chunks": 10,
    "invalid JSON": 10,
    "HTML": 10,
    "text/plain": 10,
    "no log-probabilities": 10,
    "null log-probabilities": 10,
    "NaN log-probability": 5,
    "no choices": 10,
    "refusal": 10,
    "content filter": 10,
    "error in 200": 5,
    "no usage": 10,
    "absurd usage": 5,
    "half a surrogate": 5,
    "deep": 3,
    "echoed key": 10,
    "refusal key": 5,
    "said key": 5,
    "key in parts": 5,
    "truncated key": 5,
    "oversized": 1,
}
# Answers that end a run; each repeats the API key. Only where a test asks for them.
FATAL = ("301 key", "401 key", "402 key", "403 key", "404 key", "405 key")
# Happens to a connection, before anything is read from it.
RESET_BEFORE = {"reset before": 30}
ALL_FAULTS = NOT_ANSWERED | ANSWERED | RESET_BEFORE


def make_reply(
    word: str, logprobs: Mapping[str, float], prompt_tokens: int = 40, completion_tokens: int = 1
) -> dict[str, Any]:
    """A chat completion that says `word`, with the log-probabilities of its first token, OpenAI's shape."""
    top = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in logprobs.items()]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fault",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": word},
                "logprobs": {"content": [{"token": word, "logprob": logprobs.get(word, -9.0), "top_logprobs": top}]},
            }
        ],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }


def spread_logprobs(probability: float, count: int = 20) -> dict[str, float]:
    """`count` log-probabilities: the two words share all but 2 % of the mass by `probability`."""
    values = {"positive": math.log(0.98 * probability), "negative": math.log(0.98 * (1 - probability))}
    for i in range(count - 2):
        values[f" other{i}"] = math.log(0.01 / (i + 1) / 4)
    return values


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the server read it."""

    key: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    at: float


@dataclass(slots=True)
class Count:
    """What the server has seen. `answered` counts the keys it has answered 200, `again` those asked after that."""

    attempts: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    again: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    accepted_at: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    billed_usd: float = 0.0
    most_in_flight: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An answer other than 200, as JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[Asked], dict[str, Any] | bytes | ErrorReply]


class FaultServer:
    """A context manager; `url` is the base URL.

    `faults` maps names of ALL_FAULTS or FATAL to their share in a thousand. `latency` is in seconds. `limit` answers
    429 beyond that many requests a second (a bucket of `burst`), with `retry_after` as its header. `answer` makes the
    reply of a request that nothing happens to, at `chat_path`. `routes` are further paths and what they give. `port` is
    0 for any.
    """

    def __init__(
        self,
        faults: Mapping[str, int] | None = None,
        seed: int = 0,
        *,
        latency: float = 0.0,
        limit: float | None = None,
        burst: float = 20.0,
        retry_after: str | None = None,
        answer: Answer | None = None,
        routes: Mapping[str, Any] | None = None,
        chat_path: str = "/v1/chat/completions",
        price_in: float = 0.0,
        price_out: float = 0.0,
        port: int = 0,
    ) -> None:
        self.count = Count()
        self.requests: deque[Asked] = deque(maxlen=1000)
        self._faults = dict(faults or {})
        self._seed = seed
        self._latency = latency
        self._limit, self._burst, self._retry_after = limit, burst, retry_after
        self._bucket, self._bucket_at = burst, monotonic()
        self._answer = answer or self._answer_well
        self._routes = dict(routes or {})
        self.chat_path = chat_path
        self._price_in, self._price_out = price_in, price_out
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self._connections: set[asyncio.Transport] = set()
        self._connected = 0
        self.url = ""
        self.port = port

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End as a killed server does: nobody listens any more, and what is in flight is reset."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=2048)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for transport in list(self._connections):
            transport.abort()
        await asyncio.sleep(0)

    def choose(self, key: str, attempt: int) -> str:
        """What becomes of the `attempt`-th attempt of `key`."""
        point = random.Random(f"{self._seed} {key} {attempt}").randrange(1000)
        for name, share in self._faults.items():
            point -= share if name not in RESET_BEFORE else 0
            if point < 0:
                return name
        return "ok"

    def resets(self) -> bool:
        """Whether the connection that was just made is reset before anything is read."""
        self._connected += 1
        point = random.Random(f"{self._seed} connection {self._connected}").randrange(1000)
        return point < self._faults.get("reset before", 0)

    def admit(self) -> bool:
        """Whether the rate limit lets one more request through."""
        if self._limit is None:
            return True
        now = monotonic()
        self._bucket = min(self._burst, self._bucket + (now - self._bucket_at) * self._limit)
        self._bucket_at = now
        if self._bucket < 1:
            self.count.refused_at.append(now)
            return False
        self._bucket -= 1
        self.count.accepted_at.append(now)
        return True

    def bill(self, reply: Mapping[str, Any]) -> None:
        """Add what a reply costs to the bill."""
        usage = reply["usage"]
        self.count.billed_usd += usage["prompt_tokens"] * self._price_in + usage["completion_tokens"] * self._price_out

    def _answer_well(self, asked: Asked) -> dict[str, Any]:
        draw = random.Random(f"{self._seed} {asked.key}").random()
        return make_reply("positive" if draw > 0.5 else "negative", spread_logprobs(0.01 + 0.98 * draw))

    def handle(self, connection: "_Connection", asked: Asked) -> None:
        """Decide about one chat request and act, after the latency."""
        count = self.count
        self.requests.append(asked)
        count.in_flight += 1
        count.most_in_flight = max(count.most_in_flight, count.in_flight)
        if count.answered[asked.key]:
            count.again.append(asked.key)
        fault = self.choose(asked.key, count.attempts[asked.key])
        count.attempts[asked.key] += 1
        if not self.admit():
            fault = "limited"
        count.outcomes[fault] += 1
        self._loop.call_later(self._latency, self._act, connection, asked, fault)

    def _act(self, connection: "_Connection", asked: Asked, fault: str) -> None:
        self.count.in_flight -= 1
        if fault in ANSWERED or fault == "ok":
            # Counted as answered even if the client is gone: the work was done and is billed.
            self.count.answered[asked.key] += 1
            reply = self._answer(asked)
            if isinstance(reply, ErrorReply):
                connection.send_error(reply)
                return
            if isinstance(reply, dict) and self._price_in + self._price_out:
                self.bill(reply)
            connection.answer(fault, reply, asked)
        else:
            connection.refuse(fault, asked, self._retry_after)


class _Connection(asyncio.Protocol):
    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._server._connections.add(self._transport)
        if self._server.resets():
            self._server.count.outcomes["reset before"] += 1
            self._reset()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._server._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        if len(self._buffer) < end + 4 + length:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        _, path, _ = lines[0].split(" ")
        if path.partition("?")[0] == self._server.chat_path:
            asked = Asked(headers.get("idempotency-key", ""), json.loads(body), headers, monotonic())
            self._server.handle(self, asked)
            return
        value = self._server._routes.get(path)
        value = value(json.loads(body)) if callable(value) else value
        self._send(200 if value is not None else 404, json.dumps(value or {"detail": "Not Found"}).encode())

    def send_error(self, reply: ErrorReply) -> None:
        """Answer as `reply` says."""
        self._send(reply.status, json.dumps(reply.body).encode(), reply.headers)

    def refuse(self, fault: str, asked: Asked, retry_after: str | None) -> None:
        """Answer anything but 200, or nothing."""
        if fault == "reset after":
            self._reset()
        elif fault == "closed after":
            assert self._transport is not None
            self._transport.close()
        elif fault.startswith("429") or fault == "limited":
            headers = {}
            if fault == "429 seconds":
                headers["Retry-After"] = "0"
            elif fault == "429 date":
                headers["Retry-After"] = format_datetime(datetime.now(UTC) - timedelta(seconds=1), usegmt=True)
            elif retry_after is not None:
                headers["Retry-After"] = retry_after
            self._send(429, b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}', headers)
        elif fault == "400 content":
            self._send(400, b'{"error": {"message": "flagged", "code": "content_policy_violation"}}')
        elif fault == "header key":
            # A header that is too long: what a client quotes of it ends somewhere inside a key.
            self._write(
                b"HTTP/1.1 500 X\r\nYours: as was said, %s"
                % (asked.headers.get("authorization", "none").encode() * 1000)
            )
            self._close()
        elif fault.endswith(" key"):
            # Long enough to be cut, at a place inside the key.
            echoed = asked.headers.get("authorization", "")
            message = f"bad request {choose_mark(asked.key)} {'x' * (458 - len(echoed) // 2)} {echoed}"
            where = f"https://elsewhere/?key={echoed}&also={choose_mark(asked.key[::-1])}"
            headers = {"Location": spell_marks(where.encode(), echoed).decode()} if fault.startswith("3") else {}
            error = {"error": {"message": message, "code": "bad_request"}}
            self._send(int(fault[:3]), spell_marks(json.dumps(error).encode(), echoed), headers)
        else:
            self._send(int(fault[:3]), json.dumps({"error": {"message": f"fault {fault}"}}).encode())

    def answer(self, fault: str, reply: dict[str, Any] | bytes, asked: Asked) -> None:
        """Answer 200, in the way that `fault` says."""
        body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        if fault == "slow":
            self._send_slowly(body, pieces=4, pause=0.02)
        elif fault == "drip":
            self._send_slowly(body, pieces=len(body), pause=0.5)
        elif fault == "truncated":
            self._send(200, body[: len(body) // 2], claimed=len(body))
            self._close()
        elif fault == "truncated chunks":
            half = body[: len(body) // 2]
            self._write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._write(b"%x\r\n%s\r\n" % (len(half), half))
            self._reset()
        elif fault == "invalid JSON":
            self._send(200, body[:-10])
        elif fault == "truncated key":
            echoed = asked.headers.get("authorization", "none")
            body = spell_marks(json.dumps({"debug": f"@0@ {choose_mark(asked.key)}"}).encode(), echoed)
            self._send(200, body[: -2 - zlib.crc32(asked.key.encode()) % 20], claimed=len(body))
            self._close()
        elif fault == "HTML":
            self._send(200, b"<html><body>Bad gateway</body></html>", {"Content-Type": "text/html"})
        elif fault == "text/plain":
            self._send(200, body, {"Content-Type": "text/plain; charset=latin-1"})
        elif fault == "oversized":
            self._send(200, body + b" " * (17 * 2**20))
        elif fault == "deep":
            self._send(200, b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
        elif fault == "half a surrogate":
            self._send(200, body.replace(b'"content": "', b'"content": "\\ud800 '))
        elif fault == "ok" or isinstance(reply, bytes):
            self._send(200, body)
        else:
            body = json.dumps(_DAMAGES[fault](reply, asked)).encode()
            self._send(200, spell_marks(body, asked.headers.get("authorization", "none")))

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, claimed: int | None = None
    ) -> None:
        fields = {"Content-Type": "application/json", "Content-Length": str(claimed or len(body))} | dict(headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)

    def _send_slowly(self, body: bytes, pieces: int, pause: float) -> None:
        self._write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
        size = -(-len(body) // pieces)
        loop = asyncio.get_running_loop()
        for i in range(pieces):
            loop.call_later(i * pause, self._write, body[i * size : (i + 1) * size])

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def _reset(self) -> None:
        """Close so that the client sees a reset, not an end."""
        assert self._transport is not None
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None and not self._transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


Damage = Callable[[dict[str, Any], Asked], Any]


def _set(*path: str | int, value: Any) -> Damage:
    def damage(reply: dict[str, Any], asked: Asked) -> Any:
        place: Any = reply
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return reply

    return damage


def _drop_logprobs(reply: dict[str, Any], asked: Asked) -> Any:
    del reply["choices"][0]["logprobs"]
    return reply


def _refuse_with_key(reply: dict[str, Any], asked: Asked) -> Any:
    reply["choices"][0]["message"]["refusal"] = f"not for {asked.headers.get('authorization')} or {ALL_MARKS}"
    return reply


def _drop_usage(reply: dict[str, Any], asked: Asked) -> Any:
    del reply["usage"]
    return reply


def _spoil_logprobs(reply: dict[str, Any], asked: Asked) -> Any:
    for token in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        token["logprob"] = math.nan
    return reply


def _echo_key(reply: dict[str, Any], asked: Asked) -> Any:
    return {**reply, "debug": {"headers": dict(asked.headers), "spelled": ALL_MARKS}}


def _say_key(reply: dict[str, Any], asked: Asked) -> Any:
    reply["choices"][0]["message"] |= {"content": f"it is {choose_mark(asked.key)}", "reasoning_content": ALL_MARKS}
    return reply


def _say_key_in_parts(reply: dict[str, Any], asked: Asked) -> Any:
    """Say the key in parts that are put together only when the reply is parsed."""
    key = asked.headers.get("authorization", "none")
    parts = [{"type": "text", "text": key[at : at + 7]} for at in range(0, len(key), 7)]
    reply["choices"][0]["message"]["content"] = parts
    return reply


_DAMAGES: Mapping[str, Damage] = {
    "no log-probabilities": _drop_logprobs,
    "null log-probabilities": _set("choices", 0, "logprobs", value=None),
    "NaN log-probability": _spoil_logprobs,
    "no choices": _set("choices", value=[]),
    "refusal": _set("choices", 0, "message", "refusal", value="I cannot help with that"),
    "content filter": _set("choices", 0, "finish_reason", value="content_filter"),
    "error in 200": lambda reply, asked: {"error": {"message": "the provider failed", "code": 502}},
    "no usage": _drop_usage,
    "absurd usage": _set("usage", value={"prompt_tokens": 10**30, "completion_tokens": "many"}),
    "echoed key": _echo_key,
    "refusal key": _refuse_with_key,
    "said key": _say_key,
    "key in parts": _say_key_in_parts,
}
