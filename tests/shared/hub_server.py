"""A hub on loopback, and folders of a test's own: fixtures of the tests that read from the hub."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BRANCH = "refs%2Fconvert%2Fparquet"
FILES = {"small/train-0.parquet": b"train bytes", "small/test-0.parquet": b"test bytes", "big/train-0.parquet": b"x"}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache, a hub cache and a working folder of the test's own, and no hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HARVEST_DISTILL_HUB", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP interface as one model and one data set need, whose `files` a test may set."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/api/models/org/model", "/api/models/org/model/revision/v1"):
            self.answer(200, json.dumps({"id": "org/model", "sha": COMMIT, "siblings": []}).encode())
        elif path in (
            "/api/datasets/org/data",
            "/api/datasets/org/data/revision/main",
            f"/api/datasets/org/data/revision/{BRANCH}",
        ):
            siblings = [{"rfilename": name} for name in self.files]
            self.answer(200, json.dumps({"id": "org/data", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/api/datasets/org/data/tree/{COMMIT}"):
            tree = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in self.files.items()]
            self.answer(200, json.dumps(tree).encode())
        elif (name := path.removeprefix(f"/datasets/org/data/resolve/{COMMIT}/")) in self.files:
            self.answer(200, self.files[name], ETag=f'"{name}"', **{"X-Repo-Commit": COMMIT})
        elif path == "/":
            self.answer(200, b"")
        elif path.startswith("/api/models/org/cut"):  # the connection ends without an answer
            self.close_connection = True
        else:
            self.answer(404, b"{}", **{"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Hub, "files", dict(FILES))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it was read at import
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    yield address
    server.shutdown()
    thread.join()
    server.server_close()
