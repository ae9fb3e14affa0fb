"""Asks a model that vLLM runs on this machine.

The engine never waits: pages are rendered ahead of it, and it holds more requests than it computes at a time.

With `vector` the model gives its hidden state instead of an answer: a second pass, over another runner of vLLM, into
rows of its own. With `score_given` it says of each token of a given text how probable it is, in the rows of `scorer`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any

from harvest.chat.dialects import Scoring
from harvest.chat.elicitation import (
    explain_draws,
    is_scored,
    limit_local_tokens,
    make_local_form,
    make_words,
    read_words,
    reread,
    wants_number,
)
from harvest.chat.label_trie import LabelScorer
from harvest.chat.prompts import build_prompt, describe_prompt
from harvest.chat.reply import FIRST_TOKENS, Form, parse
from harvest.pictures import Shown, describe_preparing, prepare_ahead
from harvest.rendering import Page
from harvest.rendering.ahead import RenderPool
from harvest.teachers.answering import describe_question, estimate_local
from harvest.teachers.base import Estimate, Reply, Request, Reread, make_seed
from harvest.teachers.given_rows import Given, make_answer, make_given_rows
from harvest.teachers.local_config import HiddenPosition
from harvest.teachers.tokenizers import PromptTokenizer, hash_tokenizer
from harvest.teachers.vllm.config import VllmConfig
from harvest.teachers.vllm.engine import EngineProcess
from harvest.teachers.vllm.messages import Question, Ready, Result, Settings
from shared.console import say
from shared.errors import DataError, require_extra
from shared.example import Example
from shared.frozen_models import FrozenModel
from shared.keys import TOKENIZER
from shared.schema import Answer, Status
from shared.tasks import Task
from shared.templates import find_template

RENDERED_AHEAD = 64
_POOLING = {HiddenPosition.LAST: "LAST", HiddenPosition.MEAN: "MEAN"}
_OF_LABELS = frozenset({"status", "error", "label_logprobs", "residual_mass"})


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A request as it is asked: its row's pictures and its pages, or the tokens of its prompt with those that are
    scored; or what is wrong.
    """

    request: Request
    shown: Sequence[Shown] = ()
    pages: Sequence[Page] = ()
    tokens: Sequence[int] = ()
    given: Given | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request in the engine."""

    request: Request
    given: Given | None
    shown: Sequence[Shown]
    image_sha256: tuple[str, ...] | None
    asked_at: datetime
    started: float


class VllmTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher. Raises MissingExtraError without vLLM."""

    remote = None

    def __init__(self, config: VllmConfig, task: Task, *, name: str = "vllm") -> None:
        require_extra("vllm", "vllm")
        self.name = name
        if config.max_tokens is None and config.vector is None and task.max_reply_tokens is not None:
            config = replace(config, max_tokens=task.max_reply_tokens)
        self._config, self._task = config, task
        self._layout = config.layout
        self._tokenizer = PromptTokenizer(config.engine.get("tokenizer", config.model))
        self._rows = make_given_rows(config, task, self._tokenizer)
        self._template = None if config.template is None else find_template(config.template, task.name)
        self._words = make_words(task) if config.vector is None and self._rows is None else None
        self._labels = LabelScorer(self._words, config.scoring, self._tokenizer.encode)
        self._source = FrozenModel(config.model)
        self._renderer = None if self._layout is None else RenderPool(self._layout)
        self._engine: EngineProcess | None = None
        self._ready: Ready | None = None

    @staticmethod
    def make_reread(recipe: Mapping[str, Any]) -> Reread | None:
        """What reads a kept reply of `recipe` again; None where nothing was said: of vectors, and of given texts."""
        if "vector" in recipe or "score_given" in recipe:
            return None
        scoring, topk = Scoring(recipe["scoring"]["mode"]), recipe["parameters"].get("topk")
        form = make_local_form(scoring, read_words(recipe), numeric=wants_number(recipe), topk=topk)
        return partial(_reread, form=form)

    @property
    def sees_pictures(self) -> bool:
        """Whether it is shown the pictures that rows have of their own: not where given texts are scored."""
        return self._task.has_pictures and self._config.pictures and self._rows is None and self._template is None

    @property
    def why_no_draws(self) -> str | None:
        """Why a second draw would be no other than the first; None where it may be."""
        if self._rows is not None:
            return self._rows.why_no_draws
        return explain_draws(self._config.temperature, is_scored(self._words) or self._config.vector is not None)

    def recipe(self) -> Mapping[str, Any]:
        """Model, tokenizer, prompt, layout, and what is had of them. Loads the tokenizer at most, and no weights."""
        config = self._config
        recipe: dict[str, Any] = {
            "teacher": "vllm",
            "model": self._source.fingerprint,
            "tokenizer_sha256": hash_tokenizer(self._source),
            "engine": config.describe_engine(),
            "prompt": describe_prompt(self._task, config.draw),
            "layout": None if self._layout is None else self._layout.fingerprint(),
            **describe_preparing(self.sees_pictures),
        }
        if config.topk is not None:
            recipe[TOKENIZER] = self._tokenizer.description
        if self._rows is not None:
            return {**recipe, **self._rows.describe()}
        if self._template is not None:
            recipe["prompt"] = {**recipe["prompt"], "template": self._template.describe()}
        if config.vector is not None:
            return {**recipe, "vector": {"layer": "last, after the final norm", "pooling": str(config.vector)}}
        parameters = {"max_tokens": self._max_tokens, "temperature": config.temperature}
        if config.top_p is not None:
            parameters["top_p"] = config.top_p
        if config.topk is not None:
            parameters["topk"] = config.topk
        return {**recipe, "scoring": {"mode": str(self._labels.scoring)}, "parameters": parameters}

    def content(self, example: Example) -> Mapping[str, Any]:
        """All of one request that changes its answer.

        Raises DataError for a character that cannot be drawn, a picture that cannot be shown, a row without the text
        that is to be scored, and a template that does not fit the row.
        """
        if self._rows is not None:
            return self._rows.content(example)
        if self._template is not None:
            return {"prompt": self._template.render(example, self._task.question).describe()}
        return describe_question(self._task, example, self._config.draw, sees_pictures=self.sees_pictures)

    def estimate(self, example: Example) -> Estimate:
        """Free; about how many tokens it computes, and the bytes of the answer or the vector."""
        if self._rows is not None:
            return self._rows.estimate(example)
        gives_vector = self._config.vector is not None
        return estimate_local(
            self._config,
            self._task,
            example,
            self._config.draw,
            sees_pictures=self.sees_pictures,
            said=0 if gives_vector else self._max_tokens,
            width=self._source.width if gives_vector else 0,
        )

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
                    if following.problem is not None:
                        yield Reply(following.request, Answer(Status.FAILED, error=following.problem))
                        continue
                    engine, ready = await self._start()
                    room = ready.room
                    number += 1
                    asked[number] = _note(following)
                    await engine.submit(self._make_question(number, following))
                    if engine.has_news:
                        break
                if asked:
                    for result in await self._receive():
                        yield self._reply(asked.pop(result.number), result)

    async def aclose(self) -> None:
        """End the engine and what renders for it. Done by itself when the teacher is dropped."""
        if self._renderer is not None:
            self._renderer.close()
        if self._rows is not None:
            self._rows.close()
        await asyncio.to_thread(self._end_engine)

    def _end_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    @property
    def _max_tokens(self) -> int:
        return self._config.max_tokens or limit_local_tokens(self._labels.scoring)

    @cached_property
    def _form(self) -> Form:
        is_number = self._task.kind == "regression"
        return make_local_form(self._labels.scoring, self._words, numeric=is_number, topk=self._config.topk)

    async def _start(self) -> tuple[EngineProcess, Ready]:
        """The engine, with its model loaded."""
        if self._engine is None or self._ready is None:
            config, place = self._config, self._source.resolved
            settings = Settings(
                model=place.location,
                revision=place.revision,
                engine=config.engine,
                label_words=self._labels.words,
                whole_words=self._labels.scoring is Scoring.WORDS,
                vector=None if config.vector is None else _POOLING[config.vector],
                max_tokens=self._max_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                topk=config.topk,
                scores_given=self._rows is not None,
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

    async def _prepare(self, requests: AsyncIterator[Request]) -> AsyncGenerator[_Prepared, None]:
        """The requests as they are asked, or with what is wrong with them."""
        if not self.sees_pictures:
            async for one in self._draw(requests):
                yield one
            return
        async with aclosing(self._draw(requests)) as drawn, aclosing(prepare_ahead(drawn, _find_example)) as prepared:
            async for one, shown in prepared:
                problem = str(shown) if isinstance(shown, DataError) else one.problem
                yield replace(one, shown=() if isinstance(shown, DataError) else shown, problem=problem)

    async def _draw(self, requests: AsyncIterator[Request]) -> AsyncGenerator[_Prepared, None]:
        """The requests with the pages that are drawn for them, or their tokens."""
        if self._renderer is None:
            async for request in requests:
                yield await asyncio.to_thread(self._encode, request)
            return
        async with aclosing(self._renderer.render_ahead(requests, self._find_drawn, RENDERED_AHEAD)) as rendered:
            async for request, pages in rendered:
                if isinstance(pages, DataError):
                    yield _Prepared(request, problem=str(pages))
                else:
                    yield _Prepared(request, pages=pages)

    def _encode(self, request: Request) -> _Prepared:
        """A request without pages."""
        try:
            if self._rows is not None:
                given = self._rows.encode(request)
                return _Prepared(request, tokens=(*given.prompt, *given.scored), given=given)
            if self._template is not None:
                rendered = self._template.render(request.example, self._task.question)
                return _Prepared(request, tokens=self._tokenizer.encode_prompt(rendered))
        except DataError as error:
            return _Prepared(request, problem=str(error))
        return _Prepared(request)

    def _find_drawn(self, request: Request) -> str:
        return build_prompt(self._task.question, request.example, self._config.draw).drawn or ""

    def _make_question(self, number: int, prepared: _Prepared) -> Question:
        request, given = prepared.request, prepared.given
        tokens, draw = prepared.tokens, self._config.draw
        return Question(
            number,
            (*(one.content for one in prepared.shown), *(page.pixels for page in prepared.pages)),
            "" if tokens else build_prompt(self._task.question, request.example, draw).written,
            make_seed(request.key) if self._config.temperature > 0 else None,
            tokens,
            0 if given is None else len(given.scored),
        )

    def _reply(self, asked: _Asked, result: Result) -> Reply:
        latency_ms = (time.perf_counter() - asked.started) * 1000
        if result.problem is not None:
            answer = Answer(Status.FAILED, error=result.problem)
        elif asked.given is not None and result.scores is not None:
            answer = make_answer(asked.given, result.scores)
        elif result.reply is not None:
            answer = parse(result.reply, self._form).answer
        else:
            answer = Answer(Status.OK, embedding=result.vector, prompt_tokens=result.prompt_tokens)
        answer = replace(
            answer,
            image_sha256=asked.image_sha256,
            latency_ms=latency_ms,
            asked_at=asked.asked_at,
            attempts=1,
        )
        kept = {one.sha256: one.original for one in asked.shown} if self._config.keep_images else {}
        return Reply(asked.request, answer, kept)


def _find_example(prepared: _Prepared) -> Example:
    return prepared.request.example


def _note(prepared: _Prepared) -> _Asked:
    hashes = (*(one.sha256 for one in prepared.shown), *(page.sha256 for page in prepared.pages)) or None
    return _Asked(prepared.request, prepared.given, prepared.shown, hashes, datetime.now(UTC), time.perf_counter())


def _reread(raw: bytes, form: Form) -> Mapping[str, Any]:
    said = reread(raw, form)
    if form.scoring is not Scoring.TOKEN_IDS or b'"%s"' % FIRST_TOKENS.encode() in raw:
        return said
    # Replies of schema 1 do not say which tokens begin the label words: the labels' scores stay as they were read then.
    return {name: value for name, value in said.items() if name not in _OF_LABELS}
