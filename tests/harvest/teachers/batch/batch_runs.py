"""Runs of the batch teacher in tests: a task, its requests, and what came of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from harvest.teachers.base import Reply, Request
from harvest.teachers.batch.teacher import BatchTeacher
from harvest.teachers.endpoint.config import EndpointConfig
from shared.keys import RequestKeys
from tests.harvest.batch_server import BatchServer
from tests.harvest.teachers.endpoint.endpoint_runs import TASK, make_examples

PRICE_IN, PRICE_OUT = 2.0, 4.0  # US dollars a million tokens


async def confirm() -> None:
    """The folder is always this run's."""


def make_teacher(server: BatchServer, folder: Path, **options: Any) -> BatchTeacher:
    """A teacher for `server`, of the OpenAI dialect unless `options` say otherwise, that keeps its jobs in `folder`."""
    known: dict[str, Any] = {
        "dialect": "openai",
        "scoring": "top_logprobs",
        "batch": True,
        "job_rows": 4,
        "poll": 0.002,
        "attempts": 50,
        "price_in": PRICE_IN,
        "price_out": PRICE_OUT,
    }
    teacher = BatchTeacher(EndpointConfig((server.url,), "m", **(known | options)), TASK)
    teacher.use_folder(folder, confirm)
    return teacher


def make_requests(teacher: BatchTeacher, count: int) -> list[Request]:
    """The requests of so many texts, as an engine makes them."""
    keys = RequestKeys(teacher.recipe())
    return [Request(keys.key(teacher.content(example)), example) for example in make_examples(count)]


async def stream(requests: Sequence[Request]) -> AsyncIterator[Request]:
    for request in requests:
        yield request


async def ask_into(kept: dict[str, Reply], teacher: BatchTeacher, requests: Sequence[Request]) -> None:
    """Ask what is not in `kept`, by key, and keep each reply as it comes."""
    wanted = [request for request in requests if request.key not in kept]
    async with aclosing(teacher.answer(stream(wanted))) as replies:
        async for reply in replies:
            assert reply.request.key not in kept
            kept[reply.request.key] = reply


def ask_all(teacher: BatchTeacher, requests: Sequence[Request]) -> dict[str, Reply]:
    """All replies, by key."""
    kept: dict[str, Reply] = {}
    asyncio.run(ask_into(kept, teacher, requests))
    return kept
