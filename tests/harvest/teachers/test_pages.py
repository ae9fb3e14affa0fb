"""Texts that are rendered ahead, and answered in batches of their pages."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from harvest.rendering import Layout, Page, render
from harvest.rendering.ahead import RenderPool
from harvest.teachers.base import Reply, Request
from harvest.teachers.pages import answer_pages, describe_drawn
from shared.errors import DataError
from shared.example import Example
from shared.schema import Answer, Status
from tests.harvest.asking_teachers import stream


@pytest.fixture(scope="module")
def renderer() -> Iterator[RenderPool]:
    renderer = RenderPool(Layout())
    yield renderer
    renderer.close()


def make_requests(texts: Sequence[str]) -> list[Request]:
    return [Request(str(number), Example(str(number), text)) for number, text in enumerate(texts)]


def answer(renderer: RenderPool, requests: Sequence[Request], size: int) -> tuple[dict[str, Answer], list[int]]:
    sizes = []

    def compute(texts: Sequence[Sequence[Page]]) -> list[Answer]:
        sizes.append(len(texts))
        return [Answer(Status.OK, reply=str(len(pages))) for pages in texts]

    async def collect() -> list[Reply]:
        return [reply async for reply in answer_pages(stream(requests), renderer, size, compute)]

    return {reply.request.key: reply.answer for reply in asyncio.run(collect())}, sizes


def test_answers_carry_the_hashes_of_their_pages(renderer: RenderPool) -> None:
    example = Example("a", "a premise", text_pair="a hypothesis")
    answers, _ = answer(renderer, [Request("pair", example), *make_requests(["long " * 900])], 4)
    assert answers["pair"].image_sha256 == [page.sha256 for page in render("a premise\n\na hypothesis", Layout())]
    assert answers["0"].image_sha256 is not None
    assert str(len(answers["0"].image_sha256)) == answers["0"].reply != "1"
    assert {one.attempts for one in answers.values()} == {1}


def test_a_request_that_cannot_be_drawn_fails_alone(renderer: RenderPool) -> None:
    answers, sizes = answer(renderer, make_requests(["good", "bad 😀", "fine", "well", "right"]), 2)
    assert [answers[key].status for key in "01234"] == ["ok", "failed", "ok", "ok", "ok"]
    assert "U+1F600 GRINNING FACE" in (answers["1"].error or "")
    assert sizes == [2, 2]


def test_the_content_is_what_is_drawn() -> None:
    assert describe_drawn(Example("a", "one", text_pair="two")) == {"draw": "one\n\ntwo"}
    with pytest.raises(DataError, match="GRINNING FACE"):
        describe_drawn(Example("a", "😀"))
