"""The page on loopback: rows come from the folder by pages, pictures when a row is opened, totals as a harvest goes on.

Whoever can open the address can read the rows. So the server listens on this machine only, its address has a part that
nobody guesses, and a request under another host's name is refused, which a page elsewhere would need to read an answer
(DNS rebinding, https://owasp.org/www-community/attacks/DNS_Rebinding).
"""

import re
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from harvest.looking.view.live import LiveView
from shared.console import results, say
from shared.errors import Error, UsageError
from shared.failures import explain

_ADDRESS = "127.0.0.1"
_OWN_NAME = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")  # any port: a tunnel may have another
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RowServer(ThreadingHTTPServer):
    """Serves the page of one teacher folder on loopback; a free port is chosen where `port` is 0.

    Raises UsageError where the port cannot be had, and ShardError for a folder that cannot be read.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.view = LiveView(folder)
        self.key = secrets.token_urlsafe(16)
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except OSError as error:
            raise UsageError(f"--port {port}: {error.strerror}; give another, or none") from None

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{_ADDRESS}:{self.server_port}/{self.key}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a reader who went away is no error, and all others are answered."""


def serve_rows(folder: Path, port: int) -> None:
    """Serve the page of a teacher folder until Ctrl-C."""
    say(f"reading {folder}")
    with RowServer(folder, port) as server:
        results.print(server.url, markup=False, soft_wrap=True)
        say("Ctrl-C ends it. The page can be read on this machine only, by whoever has its address.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class _Handler(BaseHTTPRequestHandler):
    server: RowServer
    timeout = 60  # seconds that a connection may wait for a request

    def do_GET(self) -> None:
        """Answer with the page or with JSON; with 403 under a foreign name, 404 without the address's key."""
        if _OWN_NAME.fullmatch(self.headers.get("Host", "")) is None:
            self._answer(HTTPStatus.FORBIDDEN, b"this server answers under the name localhost only", "text/plain")
            return
        path, _, query = self.path.partition("?")
        _, key, *names = f"{path}//".split("/")
        if not secrets.compare_digest(key.encode(), self.server.key.encode()):
            self._answer(HTTPStatus.NOT_FOUND, b"open the whole address that harvest view printed", "text/plain")
            return
        self._answer_for(names[0], dict(parse_qsl(query)))

    def _answer_for(self, name: str, query: dict[str, str]) -> None:
        view = self.server.view
        try:
            if name == "":
                self._answer(HTTPStatus.OK, view.write_page(), "text/html; charset=utf-8")
            else:
                self._answer_json(HTTPStatus.OK, view.answer(name, query))
        except ConnectionError:
            raise
        except Exception as error:
            status = HTTPStatus.BAD_REQUEST if isinstance(error, UsageError) else HTTPStatus.INTERNAL_SERVER_ERROR
            self._answer_json(status, {"error": str(error if isinstance(error, Error) else explain(error))})

    def _answer_json(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        import orjson

        self._answer(status, orjson.dumps(content), "application/json")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def version_string(self) -> str:
        """Say no more of this server than its name."""
        return "harvest"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: addresses hold what was searched for."""
