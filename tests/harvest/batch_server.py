"""Batch routes of four providers over real HTTP that go wrong on purpose, from a seed, and count what was asked twice.

It runs in a thread with its own event loop. A job's requests are answered when it is made, and told once it has been
looked at a few times.
"""

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from time import sleep, time
from typing import Any, Self

from aiohttp import web

from tests.harvest.fault_server import make_reply, spread_logprobs

KEY_HEADERS = ("Authorization", "x-api-key", "x-goog-api-key")
# What becomes of a request to a route, and how often in a thousand; "lost" is carried out, and not answered.
ROUTE_FAULTS: Mapping[str, Mapping[str, int]] = {
    "upload": {"500": 100, "lost": 100, "429": 50},
    "create": {"500": 100, "lost": 200, "500 after": 100, "429": 50},
    "look": {"500": 50, "lost": 50},
    "list": {"500": 50, "lost": 50},
    "content": {"500": 100, "torn": 150, "cut": 100},
}
# What becomes of a job; the rest are completed.
JOB_FAULTS = {"expired": 80, "cancelled": 40, "queue full": 60, "failed": 20}
# What becomes of a request of a job that is worked on; the rest are answered.
LINE_FAULTS = {"400": 10, "500": 20, "content": 5, "missing": 5}
PROMPT_TOKENS, SAID_TOKENS = 40, 1
# In the custom ids of a job that another program makes, of the size and at the time of one whose answer is lost.
FOREIGN = "foreign"


@dataclass(slots=True)
class MadeJob:
    """One job as the server keeps it: what it brings, by custom id, and how many looks it is from its end."""

    name: str
    fate: str
    custom_ids: list[str]
    outcomes: dict[str, str]
    looks: int
    upload: str | None
    metadata: Mapping[str, str] | None
    created: float = field(default_factory=time)

    @property
    def ended(self) -> bool:
        return self.looks <= 0


@dataclass(slots=True)
class Count:
    """What the server has seen. `answered` counts the requests it ran, `replies` those that it bills for.

    `doubled` are requests that it was asked though they are in a job that is under way, or were answered.
    """

    calls: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    doubled: list[str] = field(default_factory=list)
    jobs: int = 0
    bodies: dict[str, Any] = field(default_factory=dict)
    largest: int = 0
    most_at_once: int = 0


class BatchServer:
    """A context manager; `url` is the base URL of the chat route of `dialect`.

    `faults` is whether anything goes wrong, and `looks` how often a job must be looked at. `stop_at` is the number of
    the call (from 0) after which the server falls silent, as for a client that is killed: it is carried out, and not
    answered. `revive` has it answer again. What is asked of the routes of a kind in `strange` is carried out, and the
    answer says nothing.
    """

    def __init__(self, dialect: str = "openai", faults: bool = False, seed: int = 0, looks: int = 2) -> None:
        self.count = Count()
        self.jobs: dict[str, MadeJob] = {}
        self.files: dict[str, bytes] = {}
        self.stop_at: int | None = None
        self.strange: set[str] = set()
        self.key = ""  # that was sent last
        self.on_silence: Callable[[], None] = lambda: None
        self._dialect, self._faults, self._seed, self._looks = dialect, faults, seed, looks
        self._random = random.Random(seed)
        self._calls = 0
        self._silent = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def revive(self) -> None:
        """Answer again, from call 0 on."""
        self._silent, self._calls, self.stop_at = False, 0, None

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        application = web.Application(client_max_size=2**30)
        provider = _PROVIDERS[self._dialect](self)
        application.add_routes(provider.list_routes())
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}{provider.paths['chat'][1].removesuffix('/chat/completions')}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def route(self, kind: str, work: "Work") -> "Handler":
        """A handler that does `work`, or goes wrong."""
        return partial(self._handle, kind, work)

    async def _handle(self, kind: str, work: "Work", request: web.Request) -> web.StreamResponse:
        self.count.calls[kind] += 1
        self.key = next((request.headers[name] for name in KEY_HEADERS if name in request.headers), "")
        number, self._calls = self._calls, self._calls + 1
        if self._silent:
            return self._fall_silent(request)
        fault = self._choose(ROUTE_FAULTS.get(kind, {}))
        if fault in ("500", "429"):
            await request.read()
            error = {"error": {"message": f"fault {fault}", "code": "server_error"}}
            return web.json_response(error, status=int(fault))
        response = await work(request)
        if number == self.stop_at:
            return self._fall_silent(request)
        if kind in self.strange:
            return web.json_response({})
        if fault == "500 after":
            return web.json_response({"error": {"message": "fault after"}}, status=500)
        if fault == "lost":
            if kind == "create":
                size = len(next(reversed(self.jobs.values())).custom_ids)
                self.make_job({f"{FOREIGN}-{number}-{each}": {} for each in range(size)}, None, None)
            return _drop(request)
        if fault == "cut" and isinstance(response.body, bytes):  # a download that ends early, and does not say so
            return web.Response(body=response.body[: len(response.body) * 2 // 3])
        if fault == "torn" and isinstance(response.body, bytes):
            return await _tear(request, response.body)
        return response

    def wait_for_jobs(self, jobs: int, then: Callable[[], None]) -> None:
        """Call `then` once so many jobs were made and looked at."""
        while len(self.jobs) < jobs or self.count.calls["look"] < 2 * jobs:
            sleep(0.005)
        then()

    def silence(self) -> None:
        """Answer nothing more, and carry nothing out."""
        self._silent = True

    def _fall_silent(self, request: web.Request) -> web.StreamResponse:
        if not self._silent:
            self.silence()
            self.on_silence()
        return _drop(request)

    def _choose(self, shares: Mapping[str, int]) -> str:
        point = self._random.randrange(1000) if self._faults else 1000
        for name, share in shares.items():
            point -= share
            if point < 0:
                return name
        return "ok"

    def make_job(self, requests: Mapping[str, Any], upload: str | None, metadata: Mapping[str, str] | None) -> MadeJob:
        """Make a job of requests, by custom id."""
        count = self.count
        fate = self._choose(JOB_FAULTS)
        if self._dialect == "anthropic" and fate in ("queue full", "failed"):  # refused when made, if at all
            fate = "ok"
        under_way = {each for job in self.jobs.values() if not job.ended for each in job.custom_ids}
        count.doubled += [each for each in requests if count.answered[each] or each in under_way]
        count.bodies.update(requests)
        count.largest = max(count.largest, len(requests))
        outcomes = {}
        for custom_id in requests if fate not in ("queue full", "failed") else ():
            outcome = "unrun" if fate != "ok" and self._random.random() < 0.5 else self._choose(LINE_FAULTS)
            outcomes[custom_id] = outcome
            if outcome in ("ok", "400", "content"):
                count.answered[custom_id] += 1
                count.replies[custom_id] += outcome == "ok"
        count.jobs += 1
        name = f"batches/b{count.jobs}" if self._dialect == "gemini" else f"batch_{count.jobs}"
        job = MadeJob(name, fate, list(requests), outcomes, self._looks, upload, metadata)
        self.jobs[name] = job
        count.most_at_once = max(count.most_at_once, sum(not each.ended for each in self.jobs.values()))
        return job

    def write_reply(self, custom_id: str) -> dict[str, Any]:
        """The chat completion of a request."""
        draw = random.Random(f"{self._seed} {custom_id}").random()
        reply = make_reply("positive" if draw > 0.5 else "negative", spread_logprobs(draw * 0.98 + 0.01))
        choices = self.count.bodies[custom_id].get("n", 1)
        return {**reply, "choices": reply["choices"] * choices}

    def shuffle(self, lines: list[Any]) -> bytes:
        """Lines in any order; with faults some of them doubled, and one that belongs to nobody."""
        if self._faults:
            lines = [*lines, *self._random.sample(lines, len(lines) // 10)]
            if lines:
                lines.append(json.loads(json.dumps(lines[0]).replace(lines[0]["custom_id"], "nobody")))
        self._random.shuffle(lines)
        return "".join(json.dumps(line) + "\n" for line in lines).encode()


Work = Callable[[web.Request], Awaitable[web.Response]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _drop(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response(status=500)


async def _tear(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(body) + 100)})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return _drop(request)


class _Files:
    """OpenAI's routes, from which the others' differ. `paths` are their methods and paths."""

    purpose = "batch"
    statuses: Mapping[str, str] = {"ok": "completed", "queue full": "failed"}
    paths: Mapping[str, tuple[str, str]] = {
        "chat": ("POST", "/v1/chat/completions"),
        "upload": ("POST", "/v1/files"),
        "content": ("GET", "/v1/files/{file}/content"),
        "create": ("POST", "/v1/batches"),
        "list": ("GET", "/v1/batches"),
        "look": ("GET", "/v1/batches/{job}"),
    }

    def __init__(self, server: BatchServer) -> None:
        self.server = server

    def list_routes(self) -> list[web.RouteDef]:
        works: Mapping[str, Work] = {
            **{"chat": self.chat, "upload": self.upload, "content": self.content},
            **{"create": self.create, "list": self.list_all, "look": self.look},
        }
        return [web.route(*where, self.server.route(kind, works[kind])) for kind, where in self.paths.items()]

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.server.count.bodies["probe"] = body
        return web.json_response(self.server.write_reply("probe"))

    async def upload(self, request: web.Request) -> web.Response:
        fields = read_form(request.headers["Content-Type"], await request.read())
        assert fields["purpose"] == self.purpose.encode()
        return web.json_response({"id": self.keep(fields["file"])})

    def keep(self, content: bytes) -> str:
        name = f"file-{len(self.server.files)}"
        self.server.files[name] = content
        return name

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        lines = [json.loads(line) for line in self.server.files[body["input_file_id"]].splitlines()]
        requests = {line["custom_id"]: line["body"] for line in lines}
        assert len(requests) == len(lines)
        job = self.server.make_job(requests, body["input_file_id"], body.get("metadata"))
        return web.json_response(self.wrap(self.describe(job)))

    def wrap(self, described: dict[str, Any]) -> dict[str, Any]:
        return described

    async def look(self, request: web.Request) -> web.Response:
        job = self.server.jobs[request.match_info["job"]]
        job.looks -= 1
        if job.ended:
            self.publish(job)
        return web.json_response(self.describe(job))

    async def list_all(self, request: web.Request) -> web.Response:
        jobs = [self.describe(job) for job in reversed(self.server.jobs.values())]
        names = [job["id"] for job in jobs]
        start = names.index(request.query["after"]) + 1 if "after" in request.query else 0
        page = jobs[start : start + 2]  # small pages, so that they are turned
        return web.json_response({"data": page, "has_more": start + 2 < len(jobs)})

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.server.files[request.match_info["file"]])

    def publish(self, job: MadeJob) -> None:
        output, errors = [], []
        for custom_id, outcome in job.outcomes.items():
            line: dict[str, Any] = {"id": f"r-{custom_id}", "custom_id": custom_id, "error": None}
            if outcome == "ok":
                body: Any = self.server.write_reply(custom_id)
                output.append({**line, "response": {"status_code": 200, "body": body}})
            elif outcome == "unrun":
                errors.append({**line, "response": None, "error": {"code": f"batch_{job.fate}", "message": job.fate}})
            elif outcome != "missing":
                code = "content_filter" if outcome == "content" else "x"
                body = {"error": {"message": f"line {outcome} of {self.server.key}", "code": code}}
                errors.append({**line, "response": {"status_code": 400 if code != "x" else int(outcome), "body": body}})
        for kind, lines in (("output", output), ("errors", errors)):
            if lines:
                self.server.files[f"{kind}-{job.name.replace('/', '-')}"] = self.server.shuffle(lines)

    def describe(self, job: MadeJob) -> dict[str, Any]:
        described: dict[str, Any] = {
            "id": job.name,
            "status": self.statuses.get(job.fate, job.fate) if job.ended else "in_progress",
            "input_file_id": job.upload,
            "created_at": int(job.created),
            "request_counts": {"total": len(job.custom_ids), "completed": 0, "failed": 0},
        }
        if job.metadata:
            described["metadata"] = job.metadata
        for kind, field_name in (("output", "output_file_id"), ("errors", "error_file_id")):
            name = f"{kind}-{job.name.replace('/', '-')}"
            described[field_name] = name if name in self.server.files else None
        if job.ended and job.fate in ("queue full", "failed"):
            code = "token_limit_exceeded" if job.fate == "queue full" else "invalid_request"
            described["errors"] = {"data": [{"code": code, "message": f"job {job.fate}"}]}
        if job.ended:
            told = [outcome for outcome in job.outcomes.values() if outcome != "missing"]
            described["request_counts"]["completed"] = told.count("ok")
            described["request_counts"]["failed"] = len(told) - told.count("ok") - told.count("unrun")
        return described


def read_form(kind: str, body: bytes) -> dict[str, bytes]:
    """The fields of a form (RFC 7578), by name."""
    boundary = kind.partition("boundary=")[2].encode()
    fields = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        fields[head.decode().partition('name="')[2].partition('"')[0]] = content.removesuffix(b"\r\n")
    return fields


class _Together(_Files):
    """Together's differences: another upload, capitals, a job inside an answer, one list, no tags, no counts."""

    statuses: Mapping[str, str] = {"ok": "COMPLETED", "queue full": "FAILED", "failed": "FAILED", "expired": "EXPIRED"}
    purpose = "batch-api"
    paths: Mapping[str, tuple[str, str]] = {**_Files.paths, "upload": ("POST", "/v1/files/upload")}

    async def create(self, request: web.Request) -> web.Response:
        assert "metadata" not in await request.json()
        return await super().create(request)

    def wrap(self, described: dict[str, Any]) -> dict[str, Any]:
        return {"job": described}

    async def list_all(self, request: web.Request) -> web.Response:
        return web.json_response([self.describe(job) for job in self.server.jobs.values()])

    def describe(self, job: MadeJob) -> dict[str, Any]:
        described = super().describe(job)
        errors = described.pop("errors", None)
        del described["request_counts"]
        status = described["status"].upper()
        more = {"created_at": stamp(job.created), "error": errors and errors["data"][0]["message"]}
        return {**described, "status": status, **more}


class _Gemini(_Files):
    """Gemini's: jobs by the compatible route and a bearer token, files and the list by the native one."""

    paths: Mapping[str, tuple[str, str]] = {
        "chat": ("POST", "/v1beta/openai/chat/completions"),
        "upload": ("POST", "/upload/v1beta/files"),
        "content": ("GET", "/download/v1beta/{file}"),
        "create": ("POST", "/v1beta/openai/batches"),
        "list": ("GET", "/v1beta/batches"),
        "look": ("GET", "/v1beta/openai/batches/{job:.+}"),
    }

    async def begin_upload(self, request: web.Request) -> web.Response:
        check_native(request)
        assert request.headers["X-Goog-Upload-Command"] == "start"
        there = f"{request.scheme}://{request.host}/upload/v1beta/files?upload_id=1"
        return web.json_response({}, headers={"X-Goog-Upload-URL": there})

    async def upload(self, request: web.Request) -> web.Response:
        if request.headers["X-Goog-Upload-Command"] == "start":
            return await self.begin_upload(request)
        check_native(request)
        content = await request.read()
        assert request.headers["Content-Length"] == str(len(content))
        return web.json_response({"file": {"name": self.keep(content)}})

    async def list_all(self, request: web.Request) -> web.Response:
        check_native(request)
        jobs = list(reversed(self.server.jobs.values()))
        start = int(request.query.get("pageToken", "0"))
        page = [{"name": job.name, "metadata": {"inputConfig": {"fileName": job.upload}}} for job in jobs]
        more = {"nextPageToken": str(start + 2)} if start + 2 < len(jobs) else {}
        return web.json_response({"operations": page[start : start + 2], **more})

    async def content(self, request: web.Request) -> web.Response:
        check_native(request)
        return web.Response(body=self.server.files[request.match_info["file"].removesuffix(":download")])


def check_native(request: web.Request) -> None:
    """The native routes take the key in a header of their own."""
    assert "Authorization" not in request.headers
    assert request.headers["x-goog-api-key"]


class _Anthropic(_Files):
    """Anthropic's message batches: requests and replies of the native route, a job without a file or a tag."""

    paths: Mapping[str, tuple[str, str]] = {
        "chat": ("POST", "/v1/chat/completions"),
        "content": ("GET", "/v1/messages/batches/{job}/results"),
        "create": ("POST", "/v1/messages/batches"),
        "list": ("GET", "/v1/messages/batches"),
        "look": ("GET", "/v1/messages/batches/{job}"),
    }

    async def create(self, request: web.Request) -> web.Response:
        assert request.headers["x-api-key"]
        assert request.headers["anthropic-version"]
        requests = {each["custom_id"]: each["params"] for each in (await request.json())["requests"]}
        assert all(len(custom_id) <= 64 and "max_tokens" in body for custom_id, body in requests.items())
        return web.json_response(self.describe(self.server.make_job(requests, None, None)))

    async def look(self, request: web.Request) -> web.Response:
        job = self.server.jobs[request.match_info["job"]]
        job.looks -= 1
        return web.json_response(self.describe(job))

    async def list_all(self, request: web.Request) -> web.Response:
        jobs = [self.describe(job) for job in reversed(self.server.jobs.values())]
        names = [job["id"] for job in jobs]
        start = names.index(request.query["after_id"]) + 1 if "after_id" in request.query else 0
        page = jobs[start : start + 2]
        more = {"has_more": start + 2 < len(jobs), "last_id": page[-1]["id"] if page else None}
        return web.json_response({"data": page, **more})

    async def content(self, request: web.Request) -> web.Response:
        job = self.server.jobs[request.match_info["job"]]
        told = {each: outcome for each, outcome in job.outcomes.items() if outcome != "missing"}
        lines = [{"custom_id": each, "result": self.write_result(each, outcome)} for each, outcome in told.items()]
        return web.Response(body=self.server.shuffle(lines))

    def write_result(self, custom_id: str, outcome: str) -> dict[str, Any]:
        if outcome == "ok":
            said = self.server.write_reply(custom_id)["choices"][0]["message"]["content"]
            usage = {"input_tokens": PROMPT_TOKENS, "output_tokens": SAID_TOKENS}
            message = {"type": "message", "model": "fault", "stop_reason": "end_turn", "usage": usage}
            return {"type": "succeeded", "message": {**message, "content": [{"type": "text", "text": said}]}}
        if outcome == "unrun":
            return {"type": "expired"}
        key = self.server.key
        kind = "api_error" if outcome == "500" else "invalid_request_error"
        error = {"type": kind, "message": f"line {outcome} of {key}"}
        return {"type": "errored", "error": {"type": "error", "error": error}}

    def describe(self, job: MadeJob) -> dict[str, Any]:
        kinds = ("processing", "succeeded", "errored", "expired", "canceled")
        counts = dict.fromkeys(kinds, 0) | {"processing": len(job.custom_ids)}
        if job.ended:
            told = list(job.outcomes.values())
            wrong = len(told) - told.count("ok") - told.count("unrun") - told.count("missing")
            counts |= {"processing": 0, "succeeded": told.count("ok"), "errored": wrong}
            counts["expired"] = told.count("unrun") + told.count("missing")
        return {
            "id": job.name,
            "type": "message_batch",
            "processing_status": "ended" if job.ended else "in_progress",
            "request_counts": counts,
            "created_at": stamp(job.created),
            "results_url": "https://elsewhere.example/results" if job.ended else None,  # never followed
        }


_PROVIDERS: Mapping[str, type[_Files]] = {
    "openai": _Files,
    "together": _Together,
    "gemini": _Gemini,
    "anthropic": _Anthropic,
}


def stamp(seconds: float) -> str:
    """A time as the providers write it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
