"""Bodies are inflated within bounds, and every wait for one has an end: real sockets that send what they should not."""

import asyncio
import gzip
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any

import pytest

from harvest.teachers.base import Reply
from harvest.teachers.endpoint.bodies import MAX_BODY_BYTES, Body
from shared.errors import TeacherError
from shared.schema import Status
from tests.harvest.teachers.endpoint.endpoint_runs import ask_all, make_examples, make_teacher

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def inflate(encoding: str, content: bytes, step: int = 30_000) -> Body:
    body = Body(encoding)
    for start in range(0, len(content), step):
        if not body.add(content[start : start + step]):
            return body
    body.end()
    return body


@cache
def make_bomb() -> bytes:
    """A kilobyte of gzip for each megabyte of zeros, of which there are 200."""
    squeeze = zlib.compressobj(9, wbits=31)
    block = bytes(2**20)
    return b"".join(squeeze.compress(block) for _ in range(200)) + squeeze.flush()


def test_a_bomb_takes_no_more_than_the_limit() -> None:
    bomb = make_bomb()
    tracemalloc.start()
    body = inflate("gzip", bomb)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(body.data), body.problem) == (MAX_BODY_BYTES, f"the body is longer than {MAX_BODY_BYTES} bytes")
    assert most < 3 * MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("encoding", "content", "data", "problem"),
    [
        ("", b"plain", b"plain", None),
        ("identity", b"plain", b"plain", None),
        ("gzip", gzip.compress(b"text" * 9000), b"text" * 9000, None),
        ("X-GZip", gzip.compress(b"text"), b"text", None),
        ("deflate", zlib.compress(b"text"), b"text", None),
        ("deflate", zlib.compress(b"text" * 99)[2:-4], b"text" * 99, None),  # without its frame, as some servers do
        ("gzip", gzip.compress(b"text" * 9000)[:-20], None, "broke off"),
        ("gzip", b"no gzip at all", b"", "is damaged after 0 bytes"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"text")), None, "encoded as 'gzip, gzip', which is not read"),
        ("br", b"\x0b\x02\x80text\x03", b"\x0b\x02\x80text\x03", "encoded as 'br', which is not read"),
    ],
    # gzip puts the time into what it makes, and so names made of it differ from process to process.
    ids=["none", "identity", "gzip", "x-gzip", "zlib", "deflate", "broken off", "no gzip", "gzip twice", "brotli"],
)
def test_encodings(encoding: str, content: bytes, data: bytes | None, problem: str | None) -> None:
    body = inflate(encoding, content)
    assert data is None or body.data == data
    assert (body.problem is None) if problem is None else problem in (body.problem or "")


class Server:
    """Answers each request with the `pieces` of bytes, `pause` seconds apart, and then says nothing more."""

    def __init__(self, pieces: list[bytes], pause: float = 0.0) -> None:
        self.pieces, self.pause = pieces, pause
        self.asked = 0
        self._handlers: list[tuple[asyncio.Task[Any], asyncio.StreamWriter]] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.append((task, writer))
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            for piece in self.pieces:
                if writer.is_closing():
                    break
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(self.pause)
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        async with await asyncio.start_server(self.handle, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            for _, writer in self._handlers:
                writer.transport.abort()
            await asyncio.gather(*(task for task, _ in self._handlers))


def ask_one(server: Server, **options: Any) -> tuple[Reply, float]:
    """The row of one request, and the seconds that it took."""

    async def run() -> tuple[Reply, float]:
        async with server.listen() as url:
            teacher = make_teacher(url, **({"attempts": 1} | options))
            started = time.monotonic()
            (reply,) = await ask_all(teacher, make_examples(1))
            return reply, time.monotonic() - started

    return asyncio.run(asyncio.wait_for(run(), 30))


DRIPPED_HEAD = [bytes([byte]) for byte in OK * 9]
CONTINUED = [b"HTTP/1.1 100 Continue\r\n\r\n"] * 2000


@pytest.mark.parametrize(("pieces", "pause"), [(DRIPPED_HEAD, 0.05), (CONTINUED, 0.01)], ids=["head", "100 Continue"])
def test_what_keeps_coming_before_a_reply_does_not_keep_a_request(pieces: list[bytes], pause: float) -> None:
    reply, seconds = ask_one(Server(pieces, pause), connect_timeout=0.2, read_timeout=0.2)
    assert reply.answer.status is Status.FAILED
    assert "Timeout" in (reply.answer.error or "")
    assert seconds < 10


def test_a_body_that_drips_is_what_came_of_it() -> None:
    head = OK + b"Content-Length: 100000\r\n\r\n"
    reply, seconds = ask_one(Server([head, *[b"x"] * 1000], 0.02), body_timeout=0.3)
    assert reply.answer.status is Status.UNPARSABLE
    assert (reply.answer.raw or b"").startswith(b"x")
    assert seconds < 10


def refuse(status: bytes) -> Server:
    return Server([b"HTTP/1.1 %s\r\nRetry-After: 1000000000\r\nContent-Length: 0\r\n\r\n" % status])


@pytest.mark.parametrize("status", [b"408 Slow", b"500 Broken"])
def test_a_wait_that_an_endpoint_asks_for_is_no_longer_than_patience(status: bytes) -> None:
    server = refuse(status)
    reply, _ = ask_one(server, attempts=6, patience=2.0)
    assert reply.answer.status is Status.FAILED
    assert "asks for 1e+09 s more: --patience 2" in (reply.answer.error or "")
    assert server.asked == 1


@pytest.mark.parametrize("status", [b"429 Busy", b"503 Away"])
def test_an_endpoint_that_refuses_all_for_longer_than_patience_ends_the_run(status: bytes) -> None:
    with pytest.raises(TeacherError, match="would have to wait 1"):
        ask_one(refuse(status), attempts=6, patience=2.0)


def test_a_bomb_over_http_is_one_unparsable_row() -> None:
    bomb = make_bomb()
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    reply, _ = ask_one(Server([head, bomb]))
    assert reply.answer.status is Status.UNPARSABLE
    assert f"longer than {MAX_BODY_BYTES} bytes" in (reply.answer.error or "")


def test_a_compressed_body_that_came_with_its_headers_and_is_not_whole_is_said_to_be() -> None:
    cut = gzip.compress(b'{"choices": []}' * 100)[:-9]
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(cut)
    reply, _ = ask_one(Server([head + cut]))
    assert reply.answer.status is Status.UNPARSABLE
    assert "compressed body broke off" in (reply.answer.error or "")
