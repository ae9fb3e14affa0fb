"""Anthropic's message batches. Source: docs.anthropic.com, "Batch processing", and the types of anthropic-sdk-python.

Half the price, within 24 hours, 100,000 requests or 256 MB a job. The requests are those of the native Messages route,
and are sent with the job; the replies are native, too, and the dialect reads them as chat completions. A job has
neither a file nor a tag: it is found again by its size and time, and by its results, which name the requests.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson

from harvest.teachers.batch.protocols.base import (
    LATE_SECONDS,
    PAGE,
    Http,
    Json,
    Line,
    RemoteJob,
    Terms,
    dump,
    read_pieces,
)

VERSION = "2023-06-01"
_BEGIN, _END = b'{"requests":[', b"]}"
# An error's type to the HTTP status that it has on the ordinary route ("Errors").
_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def translate_body(body: Json) -> dict[str, Any]:
    """A chat body as the parameters of a message."""
    said = {name: value for name, value in body.items() if name not in ("messages", "max_completion_tokens")}
    if "max_completion_tokens" in body:
        said["max_tokens"] = body["max_completion_tokens"]
    said["messages"] = [{**message, "content": _translate(message["content"])} for message in body["messages"]]
    return said


def _translate(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [_translate_picture(part) if part.get("type") == "image_url" else part for part in content]


def _translate_picture(part: Json) -> Json:
    kind, _, data = part["image_url"]["url"].removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


@dataclass(frozen=True, slots=True)
class AnthropicBatches:
    """See the module."""

    terms: Terms = Terms(rows=100_000, bytes=256 * 10**6)

    @staticmethod
    def headers(key: str, url: str) -> Mapping[str, str]:
        """The API key, and the version of the route."""
        return {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}

    def write_line(self, custom_id: str, body: bytes) -> bytes:
        """One of a job's requests."""
        return dump({"custom_id": custom_id, "params": translate_body(orjson.loads(body))})

    async def upload(self, http: Http, requests: Path, name: str) -> None:
        """Nothing: the requests are sent with the job."""

    async def create(self, http: Http, requests: Path, upload: str | None, name: str, key: str) -> RemoteJob:
        """Make a job of the requests."""
        # Between two lines a comma stands in the place of the line's end, and none behind the last.
        size = len(_BEGIN) + requests.stat().st_size - 1 + len(_END)
        made = await http.create(
            f"{http.base}/messages/batches",
            key,
            content=partial(_wrap, requests),
            headers={"Content-Type": "application/json", "Content-Length": str(size)},
        )
        return self._read(http, made)

    async def look(self, http: Http, remote: str) -> RemoteJob:
        """How it is with a job."""
        return self._read(http, await http.fetch("GET", f"{http.base}/messages/batches/{remote}"))

    async def list_jobs(self, http: Http, since: float) -> list[RemoteJob]:
        """The jobs of the workspace, the newest first, from about `since` on."""
        found: list[RemoteJob] = []
        after: dict[str, str] = {}
        while True:
            page = await http.fetch("GET", f"{http.base}/messages/batches?{urlencode({'limit': PAGE, **after})}")
            found += [self._read(http, job) for job in page["data"]]
            if not page.get("has_more") or (found and (found[-1].created or since) < since - LATE_SECONDS):
                return found
            after = {"after_id": page["last_id"]}

    def read_line(self, line: Json) -> Line:
        """A line of the results."""
        result = line["result"]
        if result["type"] == "succeeded":
            return Line(line["custom_id"], result["message"])
        if result["type"] != "errored":
            return Line(line["custom_id"], unrun=f"the request was {result['type']}")
        error = result["error"].get("error") or result["error"]
        return Line(line["custom_id"], {"error": error}, _STATUSES.get(error.get("type"), 400))

    def _read(self, http: Http, job: Json) -> RemoteJob:
        ended = job["processing_status"] == "ended"
        counts = job.get("request_counts") or {}
        created = job.get("created_at")
        return RemoteJob(
            name=job["id"],
            ended=ended,
            results=[f"{http.base}/messages/batches/{job['id']}/results"] if ended else (),
            requests=sum(counts.values()) if counts else None,
            done=counts.get("succeeded", 0) + counts.get("errored", 0),
            created=datetime.fromisoformat(created).timestamp() if created else None,
        )


async def _wrap(requests: Path) -> AsyncIterator[bytes]:
    """The lines of a file as the body of the request that makes a job."""
    yield _BEGIN
    left = requests.stat().st_size - 1
    async for piece in read_pieces(requests):
        yield piece[:left].replace(b"\n", b",")
        left -= len(piece)
    yield _END


ANTHROPIC = AnthropicBatches()
