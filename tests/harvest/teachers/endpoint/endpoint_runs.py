"""Runs of the endpoint teacher in tests: a task, its requests, and what came of them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import polars as pl

from harvest.teachers.base import Reply, Request
from harvest.teachers.endpoint import EndpointConfig, EndpointTeacher
from shared.example import Example
from shared.keys import RequestKeys
from shared.tasks import Task
from tests.harvest.fault_server import WORDS, FaultServer
from tests.harvest.spellings import list_halves

TASK = Task(
    "reviews",
    "classification",
    (),
    labels=WORDS,
    label_words=WORDS,
    question="Is the review positive or negative? Answer with one word.",
)
CANARY = "sk-canary-0123456789abcdef"


def make_teacher(
    server: FaultServer | str | Sequence[FaultServer | str], task: Task = TASK, **options: Any
) -> EndpointTeacher:
    """A teacher for a server, or several, whose means are known without a probe, unless `options` say otherwise."""
    servers = [server] if isinstance(server, FaultServer | str) else server
    urls = tuple(one if isinstance(one, str) else one.url for one in servers)
    known: dict[str, Any] = {
        "dialect": "openai",
        "scoring": "top_logprobs",
        "concurrency": 32,
        "read_timeout": 5.0,
        "body_timeout": 1.0,
    }
    return EndpointTeacher(EndpointConfig(urls, "m", **(known | options)), task)


def make_examples(count: int) -> list[Example]:
    """`count` different texts."""
    return [Example(str(i), f"review number {i}") for i in range(count)]


async def stream_requests(teacher: EndpointTeacher, examples: Iterable[Example]) -> AsyncIterator[Request]:
    """The requests of `examples`, as an engine makes them."""
    keys = RequestKeys(teacher.recipe())
    for example in examples:
        yield Request(keys.key(teacher.content(example)), example)


async def ask_all(teacher: EndpointTeacher, examples: Iterable[Example]) -> list[Reply]:
    """All replies to `examples`."""
    async with aclosing(teacher.answer(stream_requests(teacher, examples))) as replies:
        return [reply async for reply in replies]


def run_all(teacher: EndpointTeacher, examples: Iterable[Example]) -> list[Reply]:
    """`ask_all` in an event loop of its own."""
    return asyncio.run(ask_all(teacher, examples))


def check_no_file_shows(secret: str, folder: Path) -> None:
    """Fail where a file below `folder`, or a row of a shard, holds `secret`, or half of it in any spelling."""
    pieces = [secret.encode(), *list_halves(secret)]
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [piece for piece in pieces if piece in content], path
    for path in folder.rglob("*.parquet"):  # its pages are compressed
        for column in pl.read_parquet(path):
            for value in column.drop_nulls().to_list():
                data = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
                assert not [piece for piece in pieces if piece in data], (path, column.name)
