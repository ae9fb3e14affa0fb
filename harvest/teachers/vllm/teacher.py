"""Asks a model that vLLM runs on this machine.

The engine never waits: pictures are drawn ahead of it, and it holds more requests than it computes at a time.

With `vector` the model gives its hidden state instead of an answer: a second pass, over another runner of vLLM, into
rows of its own.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from harvest.chat.dialects import DIALECTS, Scoring
from harvest.chat.pricing import guess_image_tokens, guess_tokens
from harvest.chat.prompts import build_prompt, describe_prompt
from harvest.chat.reply import Form, parse
from harvest.chat.scoring import LabelWords
from harvest.rendering import prepare_text
from harvest.rendering.ahead import Drawers, DrawnPage
from harvest.teachers.base import Estimate, Reply, Request, estimate_bytes
from harvest.teachers.vllm.config import Vector, VllmConfig
from harvest.teachers.vllm.engine import EngineProcess
from harvest.teachers.vllm.messages import Job, Picture, Ready, Result, Settings
from shared.console import say
from shared.errors import DataError, require_extra
from shared.example import Example
from shared.frozen_models import FrozenModel
from shared.schema import Answer, Status
from shared.tasks import Task

DRAWN_AHEAD = 64
_MAX_TOKENS = {Scoring.TOKEN_IDS: 1, Scoring.TEXT: 512}
_POOLING = {Vector.LAST: "LAST", Vector.MEAN: "MEAN"}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request in the engine."""

    request: Request
    image_sha256: tuple[str, ...] | None
    asked_at: datetime
    started: float


class VllmTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher. Raises MissingExtraError without vLLM."""

    def __init__(self, config: VllmConfig, task: Task, *, name: str = "vllm") -> None:
        require_extra("vllm", "vllm")
        self.name = name
        self._config, self._task = config, task
        self._layout = config.layout
        self._words = None
        if task.kind == "classification" and config.vector is None:
            self._words = LabelWords(task.label_words)
        self._scoring = Scoring.TEXT if self._words is None else Scoring.TOKEN_IDS
        self._source = FrozenModel(config.model)
        self._drawers = None if self._layout is None else Drawers(self._layout)
        self._engine: EngineProcess | None = None
        self._ready: Ready | None = None

    def recipe(self) -> Mapping[str, Any]:
        """Model, tokenizer, prompt, layout, and what is had of them. Reads the model's small files; loads nothing."""
        config = self._config
        recipe = {
            "teacher": "vllm",
            "model": self._source.fingerprint,
            "tokenizer_sha256": hash_tokenizer(self._source),
            "engine": config.describe_engine(),
            "prompt": describe_prompt(self._task, config.draw),
            "layout": None if self._layout is None else self._layout.fingerprint(),
        }
        if config.vector is not None:
            return {**recipe, "vector": {"layer": "last, after the final norm", "pooling": str(config.vector)}}
        parameters = {"max_tokens": self._max_tokens, "temperature": config.temperature}
        if config.topk is not None:
            parameters["topk"] = config.topk
        return {**recipe, "scoring": {"mode": str(self._scoring)}, "parameters": parameters}

    def content(self, example: Example) -> Mapping[str, Any]:
        """All of one request that changes its answer. Raises DataError for a character that cannot be drawn."""
        prompt = build_prompt(self._task.question, example, self._config.draw)
        return {"text": prompt.written} if prompt.drawn is None else {"draw": prepare_text(prompt.drawn)}

    def estimate(self, example: Example) -> Estimate:
        """Free; about how many tokens it computes, and the bytes of the answer or the vector."""
        config, layout = self._config, self._layout
        prompt = build_prompt(self._task.question, example, config.draw)
        images = 0
        if layout is not None and prompt.drawn is not None:
            images = layout.guess_pages(prompt.drawn) * guess_image_tokens(config.model, layout.width, layout.height)
        said = 0 if config.vector is not None else self._max_tokens
        answer = 2 * self._source.width if config.vector is not None else 4 * said
        return Estimate(guess_tokens(prompt.written), images, said, 0.0, estimate_bytes(example, answer))

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Ask, and yield replies as they come; the engine is started with the first request, and stays for later calls.

        Raises TeacherError where the engine cannot be started, dies or hangs, and UsageError for label words that begin
        with the same token.
        """
        asked: dict[int, _Asked] = {}
        number = 0
        async with aclosing(self._prepare(requests)) as prepared:
            room, more = 1, True
            while more or asked:
                while more and len(asked) < room:
                    following = await anext(prepared, None)
                    if following is None:
                        more = False
                        break
                    request, pages, problem = following
                    if problem is not None:
                        yield Reply(request, Answer(Status.FAILED, error=problem))
                        continue
                    engine, ready = await self._start()
                    room = ready.room
                    number += 1
                    asked[number] = self._note(request, pages)
                    await engine.submit(self._make_job(number, request, pages))
                    if engine.has_news:
                        break
                if asked:
                    for result in await self._receive():
                        yield self._reply(asked.pop(result.number), result)

    def close(self) -> None:
        """End the engine and what draws for it. Done by itself when the teacher is dropped."""
        if self._drawers is not None:
            self._drawers.close()
        self._end_engine()

    def _end_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    @property
    def _max_tokens(self) -> int:
        return self._config.max_tokens or _MAX_TOKENS[self._scoring]

    async def _start(self) -> tuple[EngineProcess, Ready]:
        """The engine, with its model loaded."""
        if self._engine is None or self._ready is None:
            config, place = self._config, self._source.resolved
            settings = Settings(
                model=place.location,
                revision=place.revision,
                engine=config.engine,
                label_words=() if self._words is None else self._words.words,
                vector=None if config.vector is None else _POOLING[config.vector],
                max_tokens=self._max_tokens,
                temperature=config.temperature,
                topk=config.topk,
            )
            say(f"vLLM loads {config.model}")
            started = time.monotonic()
            self._engine = EngineProcess(settings, config.patience)
            try:
                self._ready = await self._engine.wait_until_ready()
            except BaseException:
                self._end_engine()
                raise
            say(f"vLLM {self._ready.version} has loaded it in {time.monotonic() - started:.0f} s")
        return self._engine, self._ready

    async def _receive(self) -> list[Result]:
        assert self._engine is not None
        try:
            return await self._engine.receive()
        except BaseException:
            self._end_engine()  # it is of no more use, or nobody waits for it
            raise

    async def _prepare(
        self, requests: AsyncIterator[Request]
    ) -> AsyncGenerator[tuple[Request, list[DrawnPage], str | None]]:
        """The requests with their pages, or with what is wrong with them."""
        if self._drawers is None:
            async for request in requests:
                yield request, [], None
            return
        async with aclosing(self._drawers.draw_ahead(requests, self._find_drawn, DRAWN_AHEAD)) as drawn:
            async for request, pages in drawn:
                yield (request, [], pages) if isinstance(pages, str) else (request, pages, None)

    def _find_drawn(self, request: Request) -> str:
        return build_prompt(self._task.question, request.example, self._config.draw).drawn or ""

    def _make_job(self, number: int, request: Request, pages: list[DrawnPage]) -> Job:
        written = build_prompt(self._task.question, request.example, self._config.draw).written
        return Job(number, tuple(Picture(page.width, page.height, page.pixels) for page in pages), written)

    def _note(self, request: Request, pages: list[DrawnPage]) -> _Asked:
        hashes = tuple(page.sha256 for page in pages) or None
        return _Asked(request, hashes, datetime.now(UTC), time.perf_counter())

    def _reply(self, asked: _Asked, result: Result) -> Reply:
        if result.problem is not None:
            answer = Answer(Status.FAILED, error=result.problem)
        elif result.reply is not None:
            answer = self._parse(result.reply)
        else:
            answer = Answer(Status.OK, embedding=result.vector, prompt_tokens=result.prompt_tokens)
        answer = replace(
            answer,
            image_sha256=asked.image_sha256,
            latency_ms=(time.perf_counter() - asked.started) * 1000,
            asked_at=asked.asked_at,
            attempts=1,
        )
        return Reply(asked.request, answer)

    def _parse(self, reply: bytes) -> Answer:
        """As the endpoint teacher reads the same model's server."""
        assert self._ready is not None
        most = self._config.topk
        form = Form(
            DIALECTS["vllm"],
            self._scoring,
            self._words,
            self._ready.first_tokens,
            numeric=self._words is None,
            keep_topk=most is not None,
        )
        answer = parse(reply, form).answer
        if most is None or answer.topk_ids is None or answer.topk_logprobs is None:
            return answer
        # At the first position lie the labels' tokens too, however improbable they are.
        tops = [
            sorted(zip(logprobs, ids, strict=True), reverse=True)[:most]
            for ids, logprobs in zip(answer.topk_ids, answer.topk_logprobs, strict=True)
        ]
        return replace(
            answer,
            topk_ids=[[token for _, token in top] for top in tops],
            topk_logprobs=[[logprob for logprob, _ in top] for top in tops],
        )


def hash_tokenizer(model: FrozenModel) -> str:
    """The sha256, in hexadecimal, of the files that turn text into token ids: whose ids `topk_ids` are.

    Raises DataError where the model has none.
    """
    digest = sha256()
    found = False
    for name in _TOKENIZER_FILES:
        content = model.read_bytes(name)
        if content is not None:
            found = True
            digest.update(b"%s\0%d\0" % (name.encode(), len(content)) + content)
    if not found:
        raise DataError(f"{model.resolved.source} has no tokenizer files: {', '.join(_TOKENIZER_FILES[:3])}, ...")
    return digest.hexdigest()
