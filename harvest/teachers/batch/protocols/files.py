"""Jobs made of an uploaded file of chat requests: OpenAI's protocol, which others speak with differences.

Source: platform.openai.com, "Batch API" and the API reference of Files and Batch, and the types of openai-python.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from harvest.teachers.batch.protocols.base import LATE_SECONDS, PAGE, QUEUE_FULL, Http, Json, Line, RemoteJob, Terms

CHAT = "/v1/chat/completions"
TAG = "harvest_job"
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_NOT_RUN = frozenset({"batch_expired", "batch_cancelled", "batch_canceled"})


def send_bearer(key: str, url: str) -> Mapping[str, str]:
    """The API key as a bearer token."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def find_content(http: Http, file: str) -> str:
    """Where the bytes of an output file are."""
    return f"{http.base}/files/{file}/content"


async def upload_form(http: Http, requests: Path, name: str) -> str:
    """Upload by a form, as OpenAI takes it."""
    with requests.open("rb") as file:
        made = await http.fetch(
            "POST", f"{http.base}/files", data={"purpose": "batch"}, files={"file": (f"{name}.jsonl", file)}
        )
    return str(made["id"])


async def list_pages(http: Http, since: float) -> list[Json]:
    """The descriptions of jobs, page by page, until one is older than `since`."""
    found: list[Json] = []
    after: dict[str, str] = {}
    while True:
        page = await http.fetch("GET", f"{http.base}/batches?{urlencode({'limit': PAGE, **after})}")
        found += page["data"]
        if not page.get("has_more") or not page["data"] or page["data"][-1].get("created_at", since) < since:
            return found
        after = {"after": page["data"][-1]["id"]}


@dataclass(frozen=True, slots=True)
class FileBatches:
    """A provider of OpenAI's protocol. `extra` are fields of the request that makes a job, `tags` whether it may be
    tagged, `method_lines` whether a line names method and path.
    """

    terms: Terms
    headers: Callable[[str, str], Mapping[str, str]] = send_bearer
    upload_file: Callable[[Http, Path, str], Awaitable[str]] = upload_form
    find_content: Callable[[Http, str], str] = find_content
    list_all: Callable[[Http, float], Awaitable[list[Json]]] = list_pages
    tags: bool = False
    method_lines: bool = True

    def write_line(self, custom_id: str, body: bytes) -> bytes:
        """A line of the input file; `body` is put in as it is."""
        where = f'"method": "POST", "url": "{CHAT}", ' if self.method_lines else ""
        return b'{"custom_id": "%s", %s"body": %s}' % (custom_id.encode(), where.encode(), body)

    async def upload(self, http: Http, requests: Path, name: str) -> str:
        """Upload the input file; its id."""
        return await self.upload_file(http, requests, name)

    async def create(self, http: Http, requests: Path, upload: str | None, name: str, key: str) -> RemoteJob:
        """Make a job of the uploaded file."""
        body: dict[str, Any] = {"input_file_id": upload, "endpoint": CHAT, "completion_window": "24h"}
        if self.tags:
            body["metadata"] = {TAG: name}
        return self._read(http, await http.create(f"{http.base}/batches", key, json=body))

    async def look(self, http: Http, remote: str) -> RemoteJob:
        """How it is with a job."""
        return self._read(http, await http.fetch("GET", f"{http.base}/batches/{remote}"))

    async def list_jobs(self, http: Http, since: float) -> list[RemoteJob]:
        """The jobs of the account, the newest first, from about `since` on."""
        return [self._read(http, job) for job in await self.list_all(http, since - LATE_SECONDS)]

    def read_line(self, line: Json) -> Line:
        """A line of the output file or of the error file."""
        custom_id = line["custom_id"]
        error, response = line.get("error"), line.get("response")
        if response is not None and response.get("body") is not None:
            return Line(custom_id, response["body"], int(response.get("status_code") or 200))
        if not isinstance(error, dict):
            error = {"message": str(error)}
        if error.get("code") in _NOT_RUN:
            return Line(custom_id, unrun=str(error.get("message") or error["code"]))
        status = error.get("status_code") or error.get("code")
        return Line(custom_id, {"error": error}, status if isinstance(status, int) else 400)

    def _read(self, http: Http, job: Json) -> RemoteJob:
        job = job.get("job") or job  # Together's answer to the request that made it
        status = str(job["status"]).lower()
        errors = (job.get("errors") or {}).get("data") or ()
        if not errors and job.get("error"):
            errors = ({"message": job["error"]},)
        counts = job.get("request_counts") or {}
        files = [job[name] for name in ("output_file_id", "error_file_id") if job.get(name)]
        failed = status == "failed"
        return RemoteJob(
            name=str(job["id"]),
            ended=status in _ENDED,
            results=[self.find_content(http, file) for file in files],
            problem=_describe(errors) if failed else None,
            queue_full=failed and any(str(error.get("code")) in QUEUE_FULL for error in errors),
            bad_lines={error["line"]: str(error.get("message")) for error in errors if error.get("line")},
            requests=counts.get("total"),
            done=counts.get("completed", 0) + counts.get("failed", 0) if counts else None,
            upload=job.get("input_file_id"),
            tag=(job.get("metadata") or {}).get(TAG),
        )


def _describe(errors: Any) -> str:
    told = [str(error.get("message") or error.get("code")) for error in errors]
    return "; ".join(told[:3]) or "it failed, and the provider does not say why"
