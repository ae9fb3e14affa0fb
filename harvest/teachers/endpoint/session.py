"""HTTP with one endpoint: a request is sent, and its body read within bounds. Knows nothing of attempts and budgets."""

import asyncio
import json
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from harvest.chat.dialects import BEARER, Dialect
from harvest.teachers.endpoint.bodies import MAX_BODY_BYTES, Body
from harvest.teachers.endpoint.config import EndpointConfig
from harvest.teachers.endpoint.faults import Fault, classify_exception, classify_response
from harvest.teachers.endpoint.secret import Secret
from harvest.teachers.endpoint.transport import AiohttpTransport
from shared.errors import UsageError
from shared.secrets import hide_secrets


class Received(NamedTuple):
    """What a request brought: the body `raw` of a success, with a `problem` where it is not whole; or a `fault`."""

    raw: bytes | None = None
    problem: str | None = None
    fault: Fault | None = None


class HttpSession:
    """The connections to one server, under its API key, which no body or message that it gives holds.

    It is asked at the route of `dialect`, and shown the key in `key_header` (see Dialect).

    An asynchronous context manager, bound to one event loop.
    """

    def __init__(
        self, base_url: str, config: EndpointConfig, secret: Secret, dialect: Dialect, key_header: str
    ) -> None:
        self._base_url, self._config = base_url, config
        self._secret, self._dialect, self._key_header = secret, dialect, key_header
        self._beside = strip_version(base_url)
        self._url = httpx.URL(join_path(self._beside if dialect.beside_v1 else base_url, dialect.chat_path))

    async def __aenter__(self) -> "HttpSession":
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # replies are short, and there are many
            "User-Agent": "harvest-distill",
        }
        if self._secret.value:
            bearer = self._key_header == BEARER
            headers[self._key_header] = f"Bearer {self._secret.value}" if bearer else self._secret.value
        self._transport = AiohttpTransport(find_proxy(self._base_url))
        self._http = httpx.AsyncClient(transport=self._transport, headers=headers, trust_env=False)
        self._headers = httpx.Headers(headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def post(self, body: bytes, key: str, read_timeout: float, path: str | None = None) -> Received:
        """Ask the route once. `key` is that of idempotency; the reply is waited for `read_timeout` seconds.

        `path` is another route, beside the chat's "/v1".
        """
        url = self._url if path is None else httpx.URL(join_path(self._beside, path))
        try:
            response = await self._transport.handle_async_request(self._build_request(url, body, key, read_timeout))
            raw, problem = await self._read(response)
            if response.is_success:
                return Received(raw, problem)
            fault = classify_response(response.status_code, response.headers, raw, self._dialect.signs)
        except Exception as error:
            fault = classify_exception(error)
        return Received(fault=self._clean(fault))

    async def fetch_json(self, path: str, body: Any = None) -> Any:
        """The JSON at `path`, a free route beside the chat's "/v1", None where the server has none. One attempt."""
        fetched = await self.fetch(path, body)
        try:
            return None if fetched.raw is None or fetched.problem is not None else json.loads(fetched.raw)
        except ValueError:
            return None

    async def fetch(self, path: str, body: Any = None, read_timeout: float | None = None) -> Received:
        """What is at `path`, a free route beside the chat's "/v1". One attempt."""
        url = join_path(self._beside, path)
        timeout = httpx.Timeout(read_timeout or self._config.read_timeout, connect=self._config.connect_timeout)
        try:
            request = self._http.build_request("GET" if body is None else "POST", url, json=body, timeout=timeout)
            response = await self._http.send(request, stream=True)
            raw, problem = await self._read(response)
            if response.status_code == 200:
                return Received(raw, problem)
            fault = classify_response(response.status_code, response.headers, raw, self._dialect.signs)
        except (httpx.HTTPError, ValueError) as error:
            fault = classify_exception(error)
        return Received(fault=self._clean(fault))

    def _build_request(self, url: httpx.URL, body: bytes, key: str, read_timeout: float) -> httpx.Request:
        # Built and sent without httpx.AsyncClient.send: its cookies, redirects and authentication flows, none of which
        # are wanted here, would cost more than all else that is done for a row.
        headers = httpx.Headers(self._headers)
        headers["Idempotency-Key"] = key
        timeout = {"connect": self._config.connect_timeout, "read": read_timeout}
        stream = httpx.ByteStream(body)
        return httpx.Request("POST", url, headers=headers, stream=stream, extensions={"timeout": timeout})

    async def _read(self, response: httpx.Response) -> tuple[bytes, str | None]:
        """The body, inflated and without the API key; and, where it is not whole, why. Bounded: see bodies."""
        if isinstance(response.stream, httpx.ByteStream):  # it came with its headers, as it is, and needs no clock
            whole = b"".join(response.stream)
            if len(whole) <= MAX_BODY_BYTES:
                return self._secret.clean_bytes(whole), None
            body = Body("")
            body.add(whole)
            return self._secret.clean_bytes(bytes(body.data), cut=True), body.problem
        body = Body(response.headers.get("Content-Encoding", ""))
        try:
            async with asyncio.timeout(self._config.body_timeout):
                async for chunk in response.aiter_raw():
                    if not body.add(chunk):
                        break
                else:
                    body.end()
        except Exception as error:
            body.problem = f"the body broke off after {len(body.data)} bytes ({type(error).__name__})"
        finally:
            await response.aclose()
        return self._secret.clean_bytes(bytes(body.data), cut=body.problem is not None), body.problem

    def _clean(self, fault: Fault) -> Fault:
        message = hide_secrets(self._secret.clean(fault.message, cut=True))
        return Fault(fault.kind, fault.cause, message, fault.retry_after, fault.content)


def strip_version(base_url: str) -> str:
    """The base URL without the /v1 that its path ends with."""
    parts = urlsplit(base_url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.removesuffix("/v1"), parts.query, ""))


def join_path(base_url: str, path: str) -> str:
    """`path` under the base URL, before its query."""
    parts = urlsplit(base_url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path + path, parts.query, ""))


def find_proxy(base_url: str) -> str | None:
    """The proxy that the environment names for this URL (HTTPS_PROXY and so on), None where there is none.

    Raises UsageError, which does not repeat it, where it is no URL: it may hold a password.
    """
    parts = urlsplit(base_url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    try:
        named = urlsplit(proxy)
        usable = named.scheme in ("http", "https") and bool(named.hostname) and named.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"{parts.scheme.upper()}_PROXY in the environment is no URL of a proxy; give http://host:port, or "
            "http://user:password@host:port with what is special in them percent-encoded"
        )
    return proxy
