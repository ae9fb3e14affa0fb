"""HTTP with a provider's batch route: what makes a job is sent once, all else is repeated, and results are streamed."""

import asyncio
import json
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import httpx

from harvest.chat.errors import read_error
from harvest.teachers.batch.protocols.base import QUEUE_FULL
from harvest.teachers.endpoint.bodies import MAX_BODY_BYTES, Body
from harvest.teachers.endpoint.config import EndpointConfig
from harvest.teachers.endpoint.faults import NO_CONNECTION, Fault, Kind, classify_exception, classify_response
from harvest.teachers.endpoint.secret import Secret
from harvest.teachers.endpoint.session import find_proxy
from shared.disk import explain_disk_errors, write_whole
from shared.errors import TeacherError
from shared.secrets import hide_secrets

LONGEST_LINE = 4 * MAX_BODY_BYTES  # of results
LONGEST_WAIT_SECONDS = 60.0
FIRST_WAIT_SECONDS = 1.0
MOST_REDIRECTS = 3


class EndedError(Exception):
    """The run ends: nothing more is sent."""


class LostAnswerError(Exception):
    """A request that makes a job was sent, and no answer came: it may have been carried out."""


class QueueFullError(Exception):
    """The provider has no room for the job now."""


class UnreachableError(Exception):
    """The provider gave no answer for longer than --patience; nothing is lost by that."""


class RefusedError(Exception):
    """The provider refuses this one request, for good."""


class BatchHttp:
    """The connections to one provider. An asynchronous context manager; `base` is the chat's base URL.

    `headers` makes those of a request from its URL. No message or file holds the API key. `ended` breaks waits off;
    `faults` counts what goes wrong, by cause; `first_wait` is how long it waits before a second attempt, in seconds.
    """

    def __init__(
        self,
        config: EndpointConfig,
        secret: Secret,
        headers: Callable[[str], Mapping[str, str]],
        ended: asyncio.Event,
        faults: Counter[str],
        first_wait: float = FIRST_WAIT_SECONDS,
    ) -> None:
        self.base = config.base_url
        self._config, self._secret, self._headers = config, secret, headers
        self._ended, self._faults, self._first_wait = ended, faults, first_wait

    async def __aenter__(self) -> Self:
        timeout = httpx.Timeout(self._config.read_timeout, connect=self._config.connect_timeout, pool=None)
        self._client = httpx.AsyncClient(
            headers={"User-Agent": "harvest-distill", "Accept-Encoding": "identity"},
            timeout=timeout,
            verify=_make_tls(),
            proxy=find_proxy(self.base),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def fetch(self, method: str, url: str, **request: Any) -> Any:
        """The JSON of the reply; {} of an empty one. Sent again where it may have been lost.

        Raises TeacherError, RefusedError, UnreachableError or EndedError.
        """
        return (await self._fetch(method, url, request))[0]

    async def fetch_headers(self, method: str, url: str, **request: Any) -> Mapping[str, str]:
        """The headers of the reply, as `fetch`."""
        return (await self._fetch(method, url, request))[1]

    async def create(self, url: str, key: str, **request: Any) -> Any:
        """Send once what makes a job; the JSON of the reply.

        Raises LostAnswerError where it may have been made, QueueFullError where it was not for now, and as `fetch`.
        """
        headers = {**request.pop("headers", {}), "Idempotency-Key": key}
        fault, reply, _ = await self._send("POST", url, {**request, "headers": headers})
        if fault is None:
            return reply
        if fault.kind in (Kind.FATAL, Kind.REFUSED):
            raise self._explain(fault)
        if fault.kind is Kind.BUSY:
            raise QueueFullError(fault.message)
        if fault.cause == NO_CONNECTION or fault.kind is Kind.SHORT:
            raise UnreachableError(fault.message)
        raise LostAnswerError(fault.message)

    async def download(self, urls: list[str], target: Path) -> None:
        """Write the lines at `urls` to one file, whole or not at all, without the API key. Raises as `fetch`."""
        waited, pause = 0.0, self._first_wait
        while True:
            try:
                with explain_disk_errors(target), write_whole(target) as temporary, temporary.open("wb") as file:
                    for url in urls:
                        async for line in self._stream_lines(url):
                            file.write(self._secret.clean_bytes(line) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                return
            except httpx.HTTPError as error:
                fault = self._clean(classify_exception(error))
            waited, pause = await self._wait(fault, waited, pause)

    async def _fetch(self, method: str, url: str, request: Mapping[str, Any]) -> tuple[Any, Mapping[str, str]]:
        waited, pause = 0.0, self._first_wait
        while True:
            fault, reply, headers = await self._send(method, url, request)
            if fault is None:
                return reply, headers
            if fault.kind in (Kind.FATAL, Kind.REFUSED):
                raise self._explain(fault)
            waited, pause = await self._wait(fault, waited, pause)

    async def _send(
        self, method: str, url: str, request: Mapping[str, Any]
    ) -> tuple[Fault | None, Any, Mapping[str, str]]:
        """One attempt: what went wrong, the reply's JSON, and its headers."""
        if self._ended.is_set():
            raise EndedError
        content = request.get("content")
        sent = {**request, "headers": {**self._headers(url), **request.get("headers", {})}}
        if callable(content):  # a stream that each attempt begins anew
            sent["content"] = content()
        fault, reply, headers = None, None, httpx.Headers()
        try:
            async with self._client.stream(method, url, **sent) as response:
                headers = response.headers
                raw, problem = await self._read(response)
            if not response.is_success:
                fault = self._judge(response, raw)
            elif problem is None:
                reply = json.loads(raw) if raw.strip() else {}
            else:
                fault = Fault(Kind.MAYBE_ACCEPTED, "broken reply", problem)
        except httpx.HTTPError as error:
            fault = classify_exception(error)
        except ValueError:
            fault = Fault(Kind.MAYBE_ACCEPTED, "broken reply", f"the answer of {urlsplit(url).path} is no JSON")
        if fault is not None:
            self._faults[fault.cause] += 1
            fault = self._clean(fault)
        return fault, reply, headers

    def _judge(self, response: httpx.Response, raw: bytes) -> Fault:
        fault = classify_response(response.status_code, response.headers, raw)
        if fault.kind is Kind.REFUSED and read_error(raw)[0] in QUEUE_FULL:
            return Fault(Kind.BUSY, fault.cause, fault.message, fault.retry_after)
        return fault

    async def _read(self, response: httpx.Response) -> tuple[bytes, str | None]:
        body = Body(response.headers.get("content-encoding", ""))
        async for chunk in response.aiter_raw():
            if not body.add(chunk):
                break
        else:
            body.end()
        return self._secret.clean_bytes(bytes(body.data), cut=body.problem is not None), body.problem

    async def _stream_lines(self, url: str) -> AsyncIterator[bytes]:
        """The lines at a URL, without their ends; one that is too long to be a reply is left out."""
        headers = self._headers(url)
        for _ in range(MOST_REDIRECTS + 1):
            if self._ended.is_set():
                raise EndedError
            async with self._client.stream("GET", url, headers=headers) as response:
                if response.is_redirect and "location" in response.headers:
                    there = urljoin(url, response.headers["location"])
                    if _origin(there) != _origin(url):
                        headers = {}  # the key is for the provider's own host
                    url = there
                    continue
                if not response.is_success:
                    raw, _ = await self._read(response)
                    fault = self._clean(self._judge(response, raw))
                    if fault.kind in (Kind.FATAL, Kind.REFUSED):
                        raise self._explain(fault)
                    raise httpx.ReadError(fault.message)
                rest = b""
                async for chunk in response.aiter_raw():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
                    rest = b"" if len(rest) > LONGEST_LINE else rest
                if rest:
                    yield rest
                return
        raise TeacherError(f"the provider redirects from {self.base} without end; nothing is lost, try again later")

    async def _wait(self, fault: Fault, waited: float, pause: float) -> tuple[float, float]:
        """Wait before another attempt. Raises UnreachableError once --patience is over."""
        seconds = min(max(pause, fault.retry_after or 0.0), LONGEST_WAIT_SECONDS)
        if waited + seconds > self._config.patience:
            raise UnreachableError(fault.message)
        try:
            await asyncio.wait_for(self._ended.wait(), seconds)
        except TimeoutError:
            return waited + seconds, 2 * pause
        raise EndedError

    def _explain(self, fault: Fault) -> Exception:
        """The exception of a fault that no repeating mends."""
        if fault.kind is Kind.FATAL:
            return TeacherError(
                f"{fault.message} (the batch route of {self.base}). Jobs that were submitted go on there"
            )
        return RefusedError(fault.message)

    def _clean(self, fault: Fault) -> Fault:
        message = hide_secrets(self._secret.clean(fault.message, cut=True))
        return Fault(fault.kind, fault.cause, message, fault.retry_after, fault.content)


@cache
def _make_tls() -> ssl.SSLContext:
    """As the ordinary route trusts: SSL_CERT_FILE counts."""
    return ssl.create_default_context()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
