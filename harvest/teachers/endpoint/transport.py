"""HTTP over aiohttp's connections: hundreds in flight, and every lost connection told by what it may have cost.

httpx's own pool searches all its connections for every request, which at hundreds in flight costs more than all else;
aiohttp's does not. The exceptions are httpx's, and exact, because a bill depends on them:

    ConnectError, ConnectTimeout, ProxyError, UnsupportedProtocol     nothing of the request was sent
    ReadTimeout, ReadError, WriteError, RemoteProtocolError           it was sent, wholly or in part

Source: python-httpx.org/exceptions and docs.aiohttp.org, "Client exception hierarchy".
"""

from collections.abc import AsyncIterator, Mapping
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


class Transport:
    """Sends requests through one aiohttp session, without a limit of connections. Made inside its event loop.

    Every request has `headers`; `proxy` is a URL, with its credentials if it needs some. Bodies come as they are:
    neither redirects nor compression are followed.
    """

    def __init__(self, headers: Mapping[str, str], proxy: str | None = None) -> None:
        self._watch = Watch()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            proxy=proxy,
            auto_decompress=False,  # bodies does, in bounded steps
        )

    async def send(
        self,
        method: str,
        url: str,
        body: bytes | None,
        connect: float,
        read: float,
        headers: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send one request; the response comes as soon as its headers do, and is read to its end or closed.

        `connect` and `read` are seconds to wait for a connection and for the next bytes, and their sum is waited for
        altogether. Raises httpx.TransportError.
        """
        request = self._session.request(
            method,
            url,
            headers=headers,
            data=body,
            allow_redirects=False,
            timeout=_make_timeout(connect, read),
        )
        try:
            return await self._watch.wait(request, connect + read)  # a timeout of aiohttp begins anew with every byte
        except (aiohttp.ClientError, OSError) as error:
            raise _map_exception(error) from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()


def take_whole(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The body that came along with its headers, whole, not compressed and no longer than `most`; None of another."""
    content = response.content
    if content.is_eof() and content.total_bytes <= most and "Content-Encoding" not in response.headers:
        return content.read_nowait()
    return None


async def read_chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes. Raises httpx.TransportError."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise _map_exception(error) from error


@lru_cache
def _make_timeout(connect: float, read: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read)


def _map_exception(error: Exception) -> httpx.TransportError:
    """The exception of httpx for one of aiohttp's or the system's."""
    mapped = next(ours for theirs, ours in _EXCEPTIONS if isinstance(error, theirs))
    # Of a reply that is no HTTP, what is wrong with it and not its bytes: they may echo the API key, cut in its middle.
    what = error.message.partition(":")[0] if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return mapped(f"{type(error).__name__}: {what}")
