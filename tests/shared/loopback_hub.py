"""The Hugging Face hub's HTTP interface on loopback, as huggingface_hub's client calls it, with faults on demand.

Repositories of models and data sets with a history: made, listed, changed by commits of small files and of large ones
that were uploaded before, and downloaded. Source: huggingface_hub 2.4 (hf_api, _commit_api, lfs, file_download).
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

CUT = 0  # in place of a status: the connection ends without an answer
_REPO = r"(?P<prefix>(datasets/)?)(?P<id>[\w.-]+/[\w.-]+)"
_API = r"/api/(?P<kind>models|datasets)/(?P<id>[\w.-]+/[\w.-]+)"


@dataclass
class Repo:
    """A repository: what its newest commit and each older one hold."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b"*.parquet filter=lfs\n"}])

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    def find(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that `revision` names, main or an id, with its files."""
        number = len(self.commits) - 1 if revision == "main" else int(revision, 16) - 1
        return (make_id(number), self.commits[number]) if 0 <= number < len(self.commits) else None


@dataclass
class Fault:
    """An answer to give in place of the right one: to requests of `method` whose path matches, so many `times`."""

    method: str
    path: str
    status: int
    times: int = 1


@dataclass
class LoopbackHub:
    """A hub at `url` that takes `token`, for the user `me`. `asked` are all requests, `uploads` count large files."""

    url: str = ""
    token: str = "hf_right"
    repos: dict[str, Repo] = field(default_factory=dict)  # by "datasets/owner/name", or "owner/name" of a model
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def fail(self, method: str, path: str, status: int, times: int = 1) -> None:
        self.faults.append(Fault(method, path, status, times))

    @property
    def uploads(self) -> int:
        return sum(method == "PUT" for method, _ in self.asked)

    def take_fault(self, method: str, path: str) -> int | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault.status
        return None


def make_id(number: int) -> str:
    return f"{number + 1:040x}"


def hash_blob(content: bytes) -> str:
    """The id that git gives a file."""
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()


def is_large(path: str) -> bool:
    return path.endswith((".parquet", ".safetensors"))


def find_card_problem(card: str) -> str | None:
    """What the hub's check of a card's metadata would refuse: YAML, its types, and the configs of a data set."""
    if not card.startswith("---\n"):
        return None
    try:
        header = yaml.safe_load(card.split("---\n", 2)[1])
    except yaml.YAMLError as error:
        return str(error)
    if not isinstance(header, dict):
        return "the metadata are no mapping"
    for config in header.get("configs", ()):
        files = config.get("data_files")
        if not isinstance(config.get("config_name"), str) or not isinstance(files, list):
            return "a config needs a config_name and data_files"
        if any(not isinstance(one.get(name), str) for one in files for name in ("split", "path")):
            return "a data file needs a split and a path"
        if any(re.fullmatch(r"\w+(\.\w+)*", one["split"]) is None for one in files):
            return "a split's name is letters, digits and _"
    return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer goes out in two pieces: else 40 ms each
    hub: LoopbackHub

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""

    def read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, message: str, code: str | None = None) -> None:
        named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer({"error": message}, status, named)

    def handle_request(self) -> None:
        body, path = self.read(), unquote(self.path.partition("?")[0])
        self.hub.asked.append((self.command, path))
        fault = self.hub.take_fault(self.command, path)
        if fault == CUT:
            self.close_connection = True
        elif fault is not None:
            self.refuse(fault, "a fault that was asked for")
        elif path.startswith("/objects/"):  # a signed address, which takes no token
            self.hub.objects[path.removeprefix("/objects/")] = body
            self.answer({})
        elif self.headers.get("Authorization") not in (None, f"Bearer {self.hub.token}"):
            self.refuse(401, "Invalid username or password.")
        else:
            self.route(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815  (the names that http.server looks for)

    def route(self, path: str, body: bytes) -> None:
        routes = {
            r"/": self.greet,
            r"/api/validate-yaml": self.check_card,
            r"/api/repos/create": self.create,
            rf"{_API}(/revision/(?P<revision>[^/]+))?": self.describe,
            rf"{_API}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?": self.list_tree,
            rf"{_API}/paths-info/(?P<revision>[^/]+)": self.list_paths,
            rf"{_API}/preupload/(?P<revision>[^/]+)": self.choose_ways,
            rf"{_API}/commit/(?P<revision>[^/]+)": self.commit,
            rf"/{_REPO}\.git/info/lfs/objects/batch": self.list_missing,
            rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)": self.give_file,
        }
        for pattern, serve in routes.items():
            if match := re.fullmatch(pattern, path):
                serve(match.groupdict(), body)
                return
        self.refuse(404, f"no such route: {path}")

    def find(self, parts: Mapping[str, Any]) -> tuple[str, dict[str, bytes], Repo] | None:
        prefix = "datasets/" if parts.get("kind") == "datasets" else parts.get("prefix") or ""
        repo = self.hub.repos.get(f"{prefix}{parts['id']}")
        allowed = repo is not None and (not repo.private or self.headers.get("Authorization"))
        found = repo.find(parts.get("revision") or "main") if repo is not None and allowed else None
        if repo is None or found is None:
            self.refuse(404, "Repository not found", "RepoNotFound" if not allowed else "RevisionNotFound")
            return None
        return (*found, repo)

    def greet(self, parts: Mapping[str, Any], body: bytes) -> None:
        self.answer({})

    def check_card(self, parts: Mapping[str, Any], body: bytes) -> None:
        problem = find_card_problem(json.loads(body)["content"])
        errors = [] if problem is None else [{"message": problem}]
        self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def create(self, parts: Mapping[str, Any], body: bytes) -> None:
        asked = json.loads(body)
        prefix = "datasets/" if asked.get("type") == "dataset" else ""
        name = f"{prefix}{asked.get('organization') or 'me'}/{asked['name']}"
        if self.headers.get("Authorization") is None:
            self.refuse(401, "Invalid username or password.")
        elif name in self.hub.repos:
            self.answer({"error": "You already created this repo", "url": f"{self.hub.url}/{name}"}, 409)
        else:
            self.hub.repos[name] = Repo(private=asked.get("visibility") == "private")
            self.answer({"url": f"{self.hub.url}/{name}"})

    def describe(self, parts: Mapping[str, Any], body: bytes) -> None:
        if found := self.find(parts):
            sha, files, repo = found
            siblings = [{"rfilename": name} for name in files]
            self.answer(
                {"id": parts["id"], "sha": sha, "private": repo.private, "siblings": siblings, "gated": False}
                | {"disabled": False, "downloads": 0, "likes": 0, "tags": []}
            )

    def list_tree(self, parts: Mapping[str, Any], body: bytes) -> None:
        if not (found := self.find(parts)):
            return
        start = f"{parts['folder']}/" if parts["folder"] else ""
        below = {name: content for name, content in found[1].items() if name.startswith(start)}
        if "recursive=true" in self.path.lower():
            self.answer([self.show_file(name, content) for name, content in below.items()])
            return
        folders = {name[: name.index("/", len(start))] for name in below if "/" in name[len(start) :]}
        files = [self.show_file(name, content) for name, content in below.items() if "/" not in name[len(start) :]]
        self.answer([*({"type": "directory", "path": name, "oid": "0" * 40} for name in sorted(folders)), *files])

    def list_paths(self, parts: Mapping[str, Any], body: bytes) -> None:
        if found := self.find(parts):
            asked = json.loads(body)["paths"]
            folders = {
                "/".join(name.split("/")[:depth]) for name in found[1] for depth in range(1, name.count("/") + 1)
            }
            files = [self.show_file(name, found[1][name]) for name in asked if name in found[1]]
            named = [{"type": "directory", "path": name, "oid": "0" * 40} for name in asked if name in folders]
            self.answer([*files, *named])

    def show_file(self, name: str, content: bytes) -> dict[str, Any]:
        shown = {"type": "file", "path": name, "size": len(content), "oid": hash_blob(content)}
        digest = hashlib.sha256(content).hexdigest()
        return shown | ({"lfs": {"oid": digest, "size": len(content), "pointerSize": 130}} if is_large(name) else {})

    def choose_ways(self, parts: Mapping[str, Any], body: bytes) -> None:
        if found := self.find(parts):
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if is_large(one["path"]) else "regular",
                    "shouldIgnore": False,
                    "oid": self.name_kept(found[1], one["path"]),
                }
                for one in json.loads(body)["files"]
            ]
            self.answer({"files": files})

    def name_kept(self, files: Mapping[str, bytes], path: str) -> str | None:
        if path not in files:
            return None
        return hashlib.sha256(files[path]).hexdigest() if is_large(path) else hash_blob(files[path])

    def list_missing(self, parts: Mapping[str, Any], body: bytes) -> None:
        if self.find(parts):
            objects = json.loads(body)["objects"]
            for one in objects:
                if one["oid"] not in self.hub.objects:
                    one["actions"] = {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}", "header": {}}}
            self.answer({"transfer": "basic", "objects": objects})

    def commit(self, parts: Mapping[str, Any], body: bytes) -> None:
        if not (found := self.find(parts)):
            return
        sha, files, repo = found
        files = dict(files)
        for line in map(json.loads, body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header" and value.get("parentCommit") not in (None, sha):
                self.refuse(412, "A commit has happened since. Please refresh and try again.")
                return
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                content = self.hub.objects.get(value["oid"])
                if content is None or hashlib.sha256(content).hexdigest() != value["oid"]:
                    self.refuse(400, f"{value['path']}: no such object was uploaded")
                    return
                files[value["path"]] = content
            elif key == "deletedFile":
                del files[value["path"]]
        repo.commits.append(files)
        new = make_id(len(repo.commits) - 1)
        self.answer({"commitUrl": f"{self.hub.url}/{parts['id']}/commit/{new}", "commitOid": new, "success": True})

    def give_file(self, parts: Mapping[str, Any], body: bytes) -> None:
        if not (found := self.find(parts)):
            return
        sha, files, _ = found
        content = files.get(parts["file"])
        if content is None:
            self.refuse(404, "Entry not found", "EntryNotFound")
            return
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hash_blob(content)}"', "Accept-Ranges": "bytes"}
        if is_large(parts["file"]):
            headers |= {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        status, span = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span:
            first, last = int(span[1]), int(span[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        self.answer(content, status, headers)


@contextmanager
def serve_hub() -> Iterator[LoopbackHub]:
    """Serve a hub without repositories while the block runs."""
    hub = LoopbackHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def loopback_hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub that HF_ENDPOINT points to, with the right token, an empty cache, and no wait before a second try."""
    with serve_hub() as hub:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HARVEST_DISTILL_HUB"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        cache = tmp_path_factory.mktemp("hub-cache")
        # What the library read from the environment when it was imported. LFS: this server knows no Xet.
        settings = {"HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": True}
        for name, value in settings.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
        yield hub
