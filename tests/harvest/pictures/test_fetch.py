"""Pictures at addresses, from a server on loopback: fetched once, retried where that helps, and refused by name."""

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harvest import plan_harvest, run_harvest
from harvest.pictures import fetch_pictures, look
from shared.errors import DataError
from shared.example import RowPicture
from tests.harvest.fault_server import FaultServer
from tests.harvest.pictures.hostile_pictures import make_plain, save
from tests.harvest.pictures.test_harvest import judge, make_config, read_rows

PICTURE = save(make_plain(), "PNG")


class PictureServer(ThreadingHTTPServer):
    """Gives the same picture at any path but those that say what goes wrong; counts what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = Counter[str]()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: PictureServer

    def do_GET(self) -> None:
        """Answer by the path's name."""
        name = self.path.partition("?")[0].strip("/")
        self.server.asked[name] += 1
        leads = {"to-file": "file:///etc/hostname", "to-ftp": "ftp://127.0.0.1/a.png", "to-picture": "/moved.png"}
        if name in leads or name == "around":
            self._send(302, b"", leads.get(name, "/around"))
        elif name == "busy.png" and self.server.asked[name] == 1:
            self._send(503, b"later")
        elif name in ("gone.png", "ill.png"):
            self._send(404 if name == "gone.png" else 500, b"no")
        else:
            self._send(200, {"page.png": b"<html>log in", "none.png": b"", "large.png": bytes(4000)}.get(name, PICTURE))

    def _send(self, status: int, content: bytes, location: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if location is not None:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PictureServer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with PictureServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_cannot_be_fetched_is_refused_by_name_and_tried_again_only_where_that_may_help(
    pictures: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harvest.pictures.fetch.ATTEMPTS", 2)
    monkeypatch.setattr("harvest.pictures.fetch.MOST_FETCHED_BYTES", 3000)
    refused = {
        "gone.png": ("HTTP 404", 1),
        "ill.png": ("HTTP 500", 2),
        "none.png": ("an empty file", 1),
        "page.png": ("web page", 1),
        "large.png": ("larger than 3,000 bytes", 1),
        "to-file": (r"not http\(s\)", 1),
        "to-ftp": (r"not http\(s\)", 1),
        "around": ("TooManyRedirects", 6),
    }
    fetch_pictures(f"{pictures.url}/{name}?signature=s3cret" for name in (*refused, "busy.png", "to-picture"))
    for name, (said, times) in refused.items():
        with pytest.raises(DataError, match=said) as caught:
            look(RowPicture(f"{pictures.url}/{name}?signature=s3cret"))
        assert f"{pictures.url}/{name}" in str(caught.value)
        assert "s3cret" not in str(caught.value)
        assert pictures.asked[name] == times
    for name, times in (("busy.png", 2), ("to-picture", 1)):
        assert look(RowPicture(f"{pictures.url}/{name}?signature=s3cret")).width == 40
        assert pictures.asked[name] == times


def test_a_harvest_fetches_each_address_once_and_no_later_run_does(pictures: PictureServer, tmp_path: Path) -> None:
    rows = [f"{pictures.url}/{n % 5}.png,{'negative' if n % 2 else 'positive'},text {n}" for n in range(20)]
    (tmp_path / "own.csv").write_text("\n".join(["image,label,text", *rows]) + "\n")
    with FaultServer(answer=judge) as server:
        config = make_config(tmp_path / "own.csv", server, tmp_path / "out")
        assert plan_harvest(config).to_ask == 20
        assert pictures.asked == Counter({f"{n}.png": 1 for n in range(5)})
        assert run_harvest(config).failed == 0
        assert pictures.asked.total() == 5
        pictures.shutdown()
        assert run_harvest(config).kept == 20
        assert len({digest for (digest,) in read_rows(tmp_path / "out")["image_sha256"]}) == 1
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len([path for path in kept if path.read_bytes() == PICTURE]) == 1  # by its content
