"""httpx's exceptions over aiohttp's connections, provoked by real sockets: a bill depends on which one it is."""

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from harvest.teachers.endpoint.transport import AiohttpTransport
from harvest.teachers.endpoint.unconnected import explain_unconnected

Streams = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serve(handle: Streams) -> AsyncIterator[str]:
    """A TCP server that does as it is told; gives its URL."""
    handlers = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.append(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await handle(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(run, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1?a=%20b"
        await asyncio.gather(*handlers)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    return head + await reader.readexactly(length)


async def post(url: str, proxy: str | None = None, read: float = 5.0) -> httpx.Response:
    async with httpx.AsyncClient(transport=AiohttpTransport(proxy), timeout=httpx.Timeout(1.0, read=read)) as client:
        return await client.post(url, content=b"hello", headers={"X-One": "1"})


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def test_a_request_goes_out_as_it_is_and_the_reply_comes_back() -> None:
    seen = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 201 Fine\r\nContent-Length: 3\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nyes")

    async def run() -> httpx.Response:
        async with serve(handle) as url:
            return await post(url)

    response = asyncio.run(run())
    assert (response.status_code, response.content) == (201, b"yes")
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1?a=%20b HTTP/1.1\r\n")
    assert head.lower().count(b"content-length: 5") == head.lower().count(b"host: ") == head.count(b"X-One: 1") == 1
    assert body == b"hello"


@pytest.mark.parametrize("whole", [True, False], ids=["at once", "in pieces"])
def test_a_compressed_body_is_decoded(whole: bool) -> None:
    body = gzip.compress(b"much text " * 1000)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body))
        for piece in (body,) if whole else (body[:30], body[30:]):
            writer.write(piece)
            await asyncio.sleep(0.02)

    async def run() -> bytes:
        async with serve(handle) as url:
            return (await post(url)).content

    assert asyncio.run(run()) == b"much text " * 1000


async def close_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def reset_after_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    reset(writer)


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def speak_another_protocol(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"220 mail.example.com ESMTP\r\n\r\n")


async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await reader.read()


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        (close_unread, httpx.ReadError),
        (reset_after_reading, httpx.ReadError),
        (say_nothing, httpx.ReadTimeout),
        (speak_another_protocol, httpx.RemoteProtocolError),
        (break_off, httpx.RemoteProtocolError),
        (stall, httpx.ReadTimeout),
    ],
)
def test_what_was_sent_and_came_to_no_good_end_may_be_billed(
    handle: Streams, expected: type[httpx.TransportError]
) -> None:
    async def run() -> None:
        async with serve(handle) as url:
            with pytest.raises(httpx.TransportError) as raised:
                await post(url, read=0.3)
            assert type(raised.value) is expected

    asyncio.run(run())


def find_closed_port() -> int:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return int(closed.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "proxy", "expected", "said"),
    [
        (
            "http://127.0.0.1:{port}/v1",
            None,
            httpx.ConnectError,
            "no connection to 127.0.0.1:{port}: nobody listens there",
        ),
        ("http://no-such-host.invalid/v1", None, httpx.ConnectError, "the name no-such-host.invalid is not known here"),
        (
            "http://example.com/v1",
            "http://127.0.0.1:{port}",
            httpx.ProxyError,
            "the proxy 127.0.0.1:{port}, which HTTPS_PROXY or HTTP_PROXY names, cannot be reached: nobody listens",
        ),
    ],
)
def test_where_no_connection_was_made_nothing_was_sent_and_why_is_said(
    url: str, proxy: str | None, expected: type[httpx.TransportError], said: str
) -> None:
    port = find_closed_port()
    with pytest.raises(httpx.TransportError) as raised:
        asyncio.run(post(url.format(port=port), proxy and proxy.format(port=port)))
    assert type(raised.value) is expected
    assert said.format(port=port) in explain_unconnected(raised.value)


def test_a_handshake_that_fails_sends_nothing() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def run() -> None:
        async with serve(handle) as url:
            with pytest.raises(httpx.ConnectError) as raised:
                await post(url.replace("http:", "https:"))
            assert isinstance(raised.value.__cause__, ssl.SSLError)
            assert "is it http:// that --endpoint should begin with?" in explain_unconnected(raised.value)

    asyncio.run(run())


def test_a_listener_that_accepts_nobody_is_a_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # the queue is full: the kernel drops what else knocks
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            with pytest.raises(httpx.ConnectTimeout):
                asyncio.run(post(f"http://127.0.0.1:{listener.getsockname()[1]}/v1"))
        finally:
            for filler in fillers:
                filler.close()


def test_a_body_that_is_left_drops_its_connection_and_a_whole_one_keeps_it() -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readuntil(b"hello"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000)

    async def run() -> list[int]:
        made = []
        async with serve(handle) as url, httpx.AsyncClient(transport=AiohttpTransport()) as client:
            for leave in (False, False, True, False):
                request = client.build_request("POST", url, content=b"hello")
                response = await client.send(request, stream=True)
                async for _ in response.aiter_bytes():
                    if leave:
                        break
                await response.aclose()
                made.append(connections)
        return made

    assert asyncio.run(run()) == [1, 1, 1, 2]
