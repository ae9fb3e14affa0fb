"""The hub's routes that an upload takes, on loopback: repositories, the choice of a way, large files, a commit."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Hub:
    """What a hub at `url` was given: repositories with what was said of them, and their files."""

    url: str = ""
    token: str = "hf_right"
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub that takes the token `hf_right`, for the user `me`."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def read(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def answer(self, content: Any, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            hub.paths.append(self.path)
            body = self.read()
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.answer({"error": "Invalid username or password."}, 401)
            elif self.path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                if name in hub.repos:
                    self.answer({"error": "it exists", "url": f"{hub.url}/{name}"}, 409)
                    return
                hub.repos[name] = asked
                self.answer({"url": f"{hub.url}/{name}"})
            elif "/preupload/" in self.path:
                files = [{**file, "uploadMode": self.choose(file["path"])} for file in json.loads(body)["files"]]
                for file in files:
                    file["shouldIgnore"] = False
                self.answer({"files": files})
            elif self.path.endswith("/info/lfs/objects/batch"):
                wanted = json.loads(body)["objects"]
                for each in wanted:
                    each["actions"] = {"upload": {"href": f"{hub.url}/objects/{each['oid']}", "header": {}}}
                self.answer({"transfer": "basic", "objects": wanted})
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        hub.files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        hub.files[value["path"]] = hub.objects[value["oid"]]
                name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
                self.answer(
                    {"commitUrl": f"{hub.url}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40, "success": True}
                )
            else:
                self.answer({"error": "no such route"}, 404)

        def choose(self, path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        def do_PUT(self) -> None:
            hub.objects[self.path.rpartition("/")[2]] = self.read()
            self.answer({})

        def do_GET(self) -> None:
            hub.paths.append(self.path)
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.answer({"error": "Invalid username or password."}, 401)
            else:
                self.answer({"id": self.path, "sha": "0" * 40, "siblings": []})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
