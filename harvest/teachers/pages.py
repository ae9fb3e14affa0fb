"""What vision teachers that compute in this process share: texts rendered ahead, and taken in batches."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeAlias, TypeVar

from harvest.chat.prompts import lay_out
from harvest.pictures import Shown, prepare_ahead
from harvest.rendering import Page, prepare_text
from harvest.rendering.ahead import RenderPool
from harvest.teachers.base import Reply, Request
from shared.errors import DataError
from shared.example import Example
from shared.options import Option, parse_size, show_size
from shared.schema import Answer, Status

PAGE_SIZE = Option(
    "Size of a page, WIDTHxHEIGHT in pixels.", at_least=32, metavar="WxH", parse=parse_size, show=show_size
)
KeepOption: TypeAlias = Annotated[bool, Option("Keep copies of the rows' own pictures beside the shards.")]
# Answers to texts, in their order, from the pages of each.
Compute: TypeAlias = Callable[[Sequence[Sequence[Page]]], Sequence[Answer]]
ComputeShown: TypeAlias = Callable[[Sequence[Sequence[Shown]]], Sequence[Answer]]
Picture = TypeVar("Picture", Page, Shown)


def describe_drawn(example: Example) -> Mapping[str, Any]:
    """Return the content of a request whose text is drawn. Raises DataError where a character of it cannot be."""
    text = lay_out(example)
    prepare_text(text)
    return {"draw": text}


def answer_pages(
    requests: AsyncIterator[Request], renderer: RenderPool, size: int, compute: Compute
) -> AsyncGenerator[Reply, None]:
    """Yield the replies of `compute`, which is called in a thread with up to `size` texts, one call at a time.

    While it computes, the pages of the next batch are rendered. A request that cannot be drawn fails alone. Pictures
    and bill are added here; the time of a batch is shared out evenly.
    """
    rendered = renderer.render_ahead(requests, _find_text, 2 * size)
    return _answer_batches(rendered, size, partial(_answer_batch, compute=compute))


def answer_pictures(
    requests: AsyncIterator[Request], size: int, compute: ComputeShown, *, keeps: bool
) -> AsyncGenerator[Reply, None]:
    """answer_pages of the rows' own pictures: those of the next batch are prepared meanwhile.

    `keeps` is whether copies of them go beside the shards.
    """
    prepared = prepare_ahead(requests, _find_example)
    return _answer_batches(prepared, size, partial(_answer_shown, compute=compute, keeps=keeps))


async def _answer_batches(
    shown: AsyncGenerator[tuple[Request, Sequence[Picture] | DataError], None],
    size: int,
    answer: Callable[[Sequence[tuple[Request, Sequence[Picture]]]], list[Reply]],
) -> AsyncGenerator[Reply, None]:
    """answer_pages of requests with what is shown for them, or why nothing can be; `answer` computes and bills."""
    batch: list[tuple[Request, Sequence[Picture]]] = []
    async with aclosing(shown):
        async for request, pictures in shown:
            if isinstance(pictures, DataError):
                yield Reply(request, Answer(Status.FAILED, error=str(pictures)))
                continue
            batch.append((request, pictures))
            if len(batch) == size:
                for reply in await asyncio.to_thread(answer, batch):
                    yield reply
                batch = []
        if batch:
            for reply in await asyncio.to_thread(answer, batch):
                yield reply


def _answer_shown(batch: Sequence[tuple[Request, Sequence[Shown]]], compute: ComputeShown, keeps: bool) -> list[Reply]:
    replies = _answer_batch(batch, compute)
    if not keeps:
        return replies
    originals = ({one.sha256: one.original for one in shown} for _, shown in batch)
    return [replace(reply, pictures=kept) for reply, kept in zip(replies, originals, strict=True)]


def _find_example(request: Request) -> Example:
    return request.example


def _find_text(request: Request) -> str:
    return lay_out(request.example)


def _answer_batch(
    batch: Sequence[tuple[Request, Sequence[Picture]]],
    compute: Callable[[Sequence[Sequence[Picture]]], Sequence[Answer]],
) -> list[Reply]:
    started, asked_at = time.perf_counter(), datetime.now(UTC)
    answers = compute([pages for _, pages in batch])
    latency_ms = (time.perf_counter() - started) * 1000 / len(batch)
    replies = []
    for (request, pages), answer in zip(batch, answers, strict=True):
        hashes = [page.sha256 for page in pages]
        bill = replace(answer, image_sha256=hashes, latency_ms=latency_ms, asked_at=asked_at, attempts=1)
        replies.append(Reply(request, bill))
    return replies
