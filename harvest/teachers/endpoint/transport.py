"""httpx over aiohttp's connections: hundreds in flight, and every lost connection told by what it may have cost.

httpx's own pool searches all its connections for every request, which at hundreds in flight costs more than all else;
aiohttp's does not. The exceptions are httpx's, and exact, because a bill depends on them:

    ConnectError, ConnectTimeout, ProxyError, UnsupportedProtocol     nothing of the request was sent
    ReadTimeout, ReadError, WriteError, RemoteProtocolError           it was sent, wholly or in part

Source: python-httpx.org/exceptions and docs.aiohttp.org, "Client exception hierarchy".
"""

from collections.abc import AsyncIterator
from functools import lru_cache

import aiohttp
import httpx

from harvest.teachers.endpoint.watch import Watch

# The first that fits: a subclass stands before its base.
_EXCEPTIONS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),  # also TLS and DNS
    (aiohttp.ServerFingerprintMismatch, httpx.ConnectError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectionResetError, httpx.WriteError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (aiohttp.ClientError, httpx.ReadError),
    (OSError, httpx.ReadError),
)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends requests through one aiohttp session, without a limit of connections. Made inside its event loop.

    `proxy` is a URL, with its credentials if it needs some. The timeouts `connect` and `read` of a request count, and
    their sum bounds all until the headers are whole; a request waits for no connection of a pool, and a write is waited
    for as a part of reading.
    """

    def __init__(self, proxy: str | None = None) -> None:
        self._watch = Watch()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy,
            auto_decompress=False,  # bodies does, in bounded steps
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, whose stream is an httpx.ByteStream; the response comes as soon as its headers do.

        A body that came along with them, and is not compressed, is an httpx.ByteStream too: a short reply is not waited
        for. Raises httpx.TransportError.
        """
        timeout = request.extensions["timeout"]
        assert isinstance(request.stream, httpx.ByteStream)
        asked = self._session.request(
            request.method,
            str(request.url),
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
            data=b"".join(request.stream) or None,
            allow_redirects=False,
            timeout=_make_timeout(timeout["connect"], timeout["read"]),
        )
        try:
            # A timeout of aiohttp begins anew with every byte.
            response = await self._watch.wait(asked, timeout["connect"] + timeout["read"])
            stream: httpx.AsyncByteStream = _ResponseStream(response)
            if response.content.is_eof() and "Content-Encoding" not in response.headers:
                stream = httpx.ByteStream(response.content.read_nowait())
        except (aiohttp.ClientError, OSError) as error:
            raise _map_exception(error) from error
        return httpx.Response(response.status, headers=list(response.raw_headers), stream=stream)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()


class _ResponseStream(httpx.AsyncByteStream):
    """The body of a response as it comes. Closing it before its end drops the connection."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise _map_exception(error) from error

    async def aclose(self) -> None:
        self._response.close()


@lru_cache
def _make_timeout(connect: float, read: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read)


def _map_exception(error: Exception) -> httpx.TransportError:
    """The exception of httpx for one of aiohttp's or the system's."""
    mapped = next(ours for theirs, ours in _EXCEPTIONS if isinstance(error, theirs))
    # Of a reply that is no HTTP, what is wrong with it and not its bytes: they may echo the API key, cut in its middle.
    what = error.message.partition(":")[0] if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return mapped(f"{type(error).__name__}: {what}")
