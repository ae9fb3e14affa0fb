"""What differs between the providers' batch routes, what the room needs of each, and what they share."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

Json = Mapping[str, Any]
PAGE = 100  # jobs on a page of a list
PIECE = 2**20
LATE_SECONDS = 3600.0  # how far a provider's clock may be behind
# What reading an answer raises that is not as its provider describes it.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
# Of a job's error, or of a refusal to make one: the queue has no room for so many tokens, or jobs, now.
QUEUE_FULL = frozenset({"token_limit_exceeded", "batch_queue_full", "rate_limit_exceeded", "too_many_batches"})


@dataclass(frozen=True, slots=True)
class Terms:
    """A provider's published terms: the share of the usual price, and what one job may hold.

    `certain` is whether each of its models has that share: else a cap on the cost counts the usual price.
    """

    rows: int
    bytes: int
    share: float = 0.5
    hours: float = 24.0
    certain: bool = True


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A job as its provider describes it.

    `results` are the URLs of its lines once it has `ended`, some or none of them. `problem` says why none of it was
    worked on, and `queue_full` whether that was only for want of room; `bad_lines` are the lines (from 1) that were the
    reason, and what was wrong with them. `requests` and `done` are counts, None where none are told; `created` is a
    time in seconds. `upload` is its file.
    """

    name: str
    ended: bool
    results: Sequence[str] = ()
    problem: str | None = None
    queue_full: bool = False
    bad_lines: Mapping[int, str] = field(default_factory=dict)
    requests: int | None = None
    done: int | None = None
    created: float | None = None
    upload: str | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a job's results. Its request was answered with `body` under the HTTP `status`; or was not run.

    `unrun` says why not.
    """

    custom_id: str
    body: Any = None
    status: int = 200
    unrun: str | None = None


class Http(Protocol):
    """Sends requests with the API key, as often as it takes (harvest.teachers.batch.http)."""

    base: str

    async def fetch(self, method: str, url: str, **request: Any) -> Any:
        """The JSON of the reply; sent again where it may have been lost."""

    async def fetch_headers(self, method: str, url: str, **request: Any) -> Mapping[str, str]:
        """The headers of the reply; sent again where it may have been lost."""

    async def create(self, url: str, key: str, **request: Any) -> Any:
        """The JSON of the reply; sent once. Raises LostAnswerError where it may have been carried out all the same."""


class BatchProtocol(Protocol):
    """One provider's batch route. What reads an answer raises one of MALFORMED where it is none of the provider's."""

    @property
    def terms(self) -> Terms:
        """The provider's published terms."""

    @property
    def headers(self) -> Callable[[str, str], Mapping[str, str]]:
        """What makes the headers of a request from the API key and the URL."""

    def write_line(self, custom_id: str, body: bytes) -> bytes:
        """The line of a request whose chat body is `body`; it has no line end."""

    async def upload(self, http: Http, requests: Path, name: str) -> str | None:
        """Give the provider the lines of a job; its name for them, None where they are sent with the job itself."""

    async def create(self, http: Http, requests: Path, upload: str | None, name: str, key: str) -> RemoteJob:
        """Make a job of what was uploaded, tagged `name`; once. `key` is that of idempotency."""

    async def look(self, http: Http, remote: str) -> RemoteJob:
        """How it is with a job."""

    async def list_jobs(self, http: Http, since: float) -> list[RemoteJob]:
        """The jobs that were made at or after a time, the newest first."""

    def read_line(self, line: Json) -> Line:
        """Read one line of the results."""


async def read_pieces(path: Path) -> AsyncIterator[bytes]:
    """A file in pieces."""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def dump(body: Any) -> bytes:
    """JSON of a part of a line: orjson's bytes, or those of what it refuses (half a surrogate pair)."""
    try:
        return orjson.dumps(body)
    except (TypeError, ValueError):
        return json.dumps(body).encode()
