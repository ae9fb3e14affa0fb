"""An object store on loopback: moto's S3 server, behind a proxy that counts, waits, and goes wrong where a test says.

The proxy passes requests on as they are, so that what answers is a server that knows nothing of these tests.
"""

import asyncio
import logging
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import obstore
import pytest
from aiohttp import ClientSession, web
from obstore.store import S3Store
from yarl import URL

Fault = Literal["403", "500", "cut", "cut upload", "lost answer"]
BUCKET = "bucket"
SECRET = "a-secret-of-loopback"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that arrived: its key below the bucket, the range that it names, and how many bytes went back."""

    method: str
    key: str
    range: tuple[int, int] | None
    sent: int


@dataclass
class StoreServer:
    """The store's address is `url`. `delay` seconds pass before each answer; `fail` chooses what goes wrong, if any."""

    upstream: str
    delay: float = 0.0
    fail: Callable[[str, str], Fault | None] = lambda method, key: None
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,))
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """What leads a client to it."""
        key = {"AWS_ACCESS_KEY_ID": "loopback", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        return {"AWS_ENDPOINT_URL": self.url, **key}

    def put(self, key: str, content: bytes) -> None:
        """Write an object past the proxy."""
        obstore.put(self._direct(), key, content)

    def get(self, key: str) -> bytes:
        """Read an object past the proxy."""
        return bytes(obstore.get(self._direct(), key).bytes())

    def delete(self, key: str) -> None:
        """Remove an object past the proxy."""
        obstore.delete(self._direct(), key)

    def list_keys(self) -> list[str]:
        """List all objects past the proxy."""
        return sorted(each["path"] for each in obstore.list(self._direct()).collect())

    def upload(self, folder: Path, below: str) -> None:
        """Write the files of a folder but for its journals, past the proxy, as a user's own tool does."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "journal" not in path.parts:
                self.put(f"{below}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def count(self, method: str, *, ending: str = "") -> int:
        """Count the requests of a method for keys of an ending."""
        return sum(each.method == method and each.key.endswith(ending) for each in self.seen)

    def _direct(self) -> Any:
        return S3Store(
            BUCKET,
            endpoint=self.upstream,
            access_key_id="loopback",
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run(started))
        self._loop.close()

    async def _run(self, started: threading.Event) -> None:
        self._stopping = asyncio.Event()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", self._pass_on)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession(auto_decompress=False) as self._session:
            started.set()
            await self._stopping.wait()
            await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        path = request.raw_path.partition("?")[0]
        key = path.removeprefix(f"/{BUCKET}").lstrip("/").replace("%3D", "=")
        fault = self.fail(request.method, key)
        await asyncio.sleep(self.delay)
        if fault in ("403", "500"):
            code = {"403": "AccessDenied", "500": "InternalError"}[fault]
            return self._note(request, key, web.Response(status=int(fault), text=f"<Error><Code>{code}</Code></Error>"))
        if fault == "cut upload":
            body = body[: len(body) // 2]
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")}
        url = URL(self.upstream + request.raw_path, encoded=True)
        async with self._session.request(request.method, url, data=body, headers=headers) as answer:
            content = await answer.read()
            passed = {k: v for k, v in answer.headers.items() if k.lower() not in ("transfer-encoding", "connection")}
        if fault in ("lost answer", "cut upload"):
            assert request.transport is not None
            request.transport.abort()
            return self._note(request, key, web.Response(status=answer.status))
        if fault == "cut":
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            assert request.transport is not None
            request.transport.abort()
            return self._note(request, key, response)
        if request.method == "HEAD":
            return self._note(request, key, web.Response(status=answer.status, headers=passed))
        passed.pop("Content-Length", None)
        return self._note(request, key, web.Response(status=answer.status, headers=passed, body=content))

    def _note(self, request: web.Request, key: str, response: web.StreamResponse) -> web.StreamResponse:
        sent = len(response.body) if isinstance(response, web.Response) and isinstance(response.body, bytes) else 0
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        ranged = None if match is None else (int(match[1]), int(match[2]) + 1)
        self.seen.append(Seen(request.method, key, ranged, sent))
        return response


@contextmanager
def serve_store() -> Iterator[StoreServer]:
    """Run an empty store with one bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto: Any = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    try:
        with StoreServer(f"http://{host}:{port}") as server:
            for method, path in (("POST", "moto-api/reset"), ("PUT", BUCKET)):  # a process has one moto
                urllib.request.urlopen(urllib.request.Request(f"{server.upstream}/{path}", method=method)).close()
            yield server
    finally:
        moto.stop()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreServer]:
    """A store to which the environment leads."""
    with serve_store() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of the test's own: a working folder, a cache, and a place for what is written."""
    move_elsewhere(tmp_path_factory, monkeypatch)


def move_elsewhere(factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> None:
    """Be another machine: nothing that was kept on this disk is there."""
    folder = factory.mktemp("machine")
    patch.chdir(folder)
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.setenv("XDG_STATE_HOME", str(folder / "state"))
