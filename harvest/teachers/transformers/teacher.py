"""Asks a model of transformers in this process: replies, label scores, top K and the hidden vector in one pass.

With `score_given` it writes nothing and says of each token of a given text how probable it is.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
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
from harvest.chat.prompts import Draw, build_prompt, describe_prompt
from harvest.chat.reply import Form
from harvest.pictures import (
    Prepared,
    describe_preparing,
    prepare_ahead,
    prepare_row,
)
from harvest.rendering import Page
from harvest.rendering.ahead import RenderPool
from harvest.teachers.answering import describe_question, estimate_local
from harvest.teachers.base import Estimate, Reply, Request, Reread
from harvest.teachers.given_rows import make_answer, make_given_rows
from harvest.teachers.tokenizers import PromptTokenizer, hash_tokenizer
from harvest.teachers.transformers.asking import Asker, find_length_problem
from harvest.teachers.transformers.config import TransformersConfig
from harvest.teachers.transformers.model import LocalModel
from harvest.teachers.transformers.prompts import Prompts, Ready
from harvest.teachers.transformers.scores import score_given
from shared.errors import DataError, UsageError, require_extra
from shared.example import Example
from shared.keys import TOKENIZER
from shared.schema import Answer, Status
from shared.tasks import Task

SCORER = "scorer"  # rows of given texts are kept under this name: they had a teacher of their own
WINDOW_ROWS = 256  # sorted by length, so that a batch holds little padding
WINDOW_DRAWN = 64  # with their pages
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 1024, 8192


class TransformersTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    remote = None

    def __init__(self, config: TransformersConfig, task: Task, *, name: str = "transformers") -> None:
        require_extra("distill", "torch", "transformers")
        self.name = name
        if config.max_tokens is None and config.score_given is None and task.max_reply_tokens is not None:
            config = replace(config, max_tokens=task.max_reply_tokens)
        self._config, self._task = config, task
        self._tokenizer = PromptTokenizer(config.model)
        if config.quantize is not None:
            config.quantize.require()
        self._model = LocalModel(config.model, config.device, config.dtype, config.quantize)
        self._rows = make_given_rows(config, task, self._tokenizer)
        self._words = make_words(task) if self._rows is None else None
        self._labels = LabelScorer(self._words, config.scoring, self._tokenizer.encode)
        self._renderer: RenderPool | None = None

    @staticmethod
    def make_reread(recipe: Mapping[str, Any]) -> Reread | None:
        """What reads a kept reply of `recipe` again; None where nothing was said: of given texts."""
        if recipe["teacher"] == SCORER or "scoring" not in recipe:
            return None
        topk = recipe["parameters"].get("topk")
        form = make_local_form(
            Scoring(recipe["scoring"]["mode"]), read_words(recipe), numeric=wants_number(recipe), topk=topk
        )
        return partial(reread, form=form)

    @property
    def sees_pictures(self) -> bool:
        """Whether it is shown the pictures that rows have of their own: not where given texts are scored."""
        asks = self._rows is None and self._config.template is None
        return self._task.has_pictures and self._config.pictures and asks and self._model.sees_pictures

    @property
    def why_no_draws(self) -> str | None:
        """Why a second draw would be no other than the first; None where it may be."""
        if self._rows is not None:
            return self._rows.why_no_draws
        return explain_draws(self._config.temperature, is_scored(self._words))

    def recipe(self) -> Mapping[str, Any]:
        """Model, tokenizer, prompt, layout, and what is had of them. Loads the tokenizer, and no weights.

        Raises UsageError for pictures that the model does not see, a layer that it has not, and words that are alike.
        """
        config = self._config
        common = {"model": self._model.files.fingerprint, "dtype": self._model.dtype}
        if config.quantize is not None:
            common["quantized"] = str(config.quantize)
        if self._rows is not None:
            return {
                "teacher": SCORER,
                **common,
                TOKENIZER: self._tokenizer.description,
                **self._rows.describe(),
            }
        layout = config.make_layout(self._draw)
        prompt = describe_prompt(self._task, self._draw)
        if self._prompts.template is not None:
            prompt = {**prompt, "template": self._prompts.template.describe()}
        parameters = {"max_tokens": self._max_tokens, "temperature": config.temperature}
        if config.top_p is not None:
            parameters["top_p"] = config.top_p
        if config.topk is not None:
            parameters["topk"] = config.topk
        recipe = {
            "teacher": "transformers",
            **common,
            "tokenizer_sha256": hash_tokenizer(self._model.files),
            "prompt": prompt,
            "layout": None if layout is None else layout.fingerprint(),
            **describe_preparing(self.sees_pictures),
            "scoring": self._labels.describe(),
            "parameters": parameters,
        }
        if config.topk is not None:
            recipe[TOKENIZER] = self._tokenizer.description
        if config.vector is not None:
            layer = self._model.describe_layer(config.layer)
            recipe["vector"] = {"layer": layer, "pooling": str(config.vector)}
        return recipe

    def content(self, example: Example) -> Mapping[str, Any]:
        """All of one request that changes its answer.

        Raises DataError for a character that cannot be drawn, a picture that cannot be shown, a row without the text
        that is to be scored, and a template that does not fit the row.
        """
        if self._rows is not None:
            return self._rows.content(example)
        if self._prompts.template is not None:
            return {"prompt": self._prompts.template.render(example, self._task.question).describe()}
        return describe_question(self._task, example, self._draw, sees_pictures=self.sees_pictures)

    def estimate(self, example: Example) -> Estimate:
        """Free; about how many tokens it computes, and the bytes of what is kept."""
        if self._rows is not None:
            return self._rows.estimate(example)
        return estimate_local(
            self._config,
            self._task,
            example,
            self._draw,
            sees_pictures=self.sees_pictures,
            said=self._max_tokens,
            width=0 if self._config.vector is None else self._model.width,
        )

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Answer in batches of about the same length; one row that cannot be asked does not stop the others."""
        most = WINDOW_ROWS if self._draw is Draw.NONE and not self.sees_pictures else WINDOW_DRAWN
        window: list[Ready] = []
        async with aclosing(self._prepare(requests)) as prepared:
            async for one in prepared:
                if isinstance(one, Reply):
                    yield one
                    continue
                window.append(one)
                if len(window) == most:
                    for batch in self._make_batches(window):
                        for reply in await asyncio.to_thread(self._answer_batch, batch):
                            yield reply
                    window = []
        for batch in self._make_batches(window):
            for reply in await asyncio.to_thread(self._answer_batch, batch):
                yield reply

    async def aclose(self) -> None:
        """Let go of the model, of the replies that were read, and of what renders."""
        if self._renderer is not None:
            self._renderer.close()
        self._model.close()
        if self._rows is not None:
            self._rows.close()

    @cached_property
    def _draw(self) -> Draw:
        """What is drawn. Raises UsageError where the model sees no pictures."""
        config = self._config
        if config.draw is None:
            wants_text = config.template is not None or config.score_given is not None or self._task.has_pictures
            return Draw.NONE if wants_text or not self._model.sees_pictures else Draw.FIELDS
        if config.draw is not Draw.NONE and not self._model.sees_pictures:
            raise UsageError(f"--draw {config.draw}: {config.model} sees no pictures; leave --draw out")
        return config.draw

    @cached_property
    def _prompts(self) -> Prompts:
        return Prompts(self._config, self._draw, self._task, self._model, self._tokenizer)

    @cached_property
    def _asker(self) -> Asker:
        return Asker(self._config, self._model, self._prompts, self._tokenizer, self._labels, self._form)

    @property
    def _form(self) -> Form:
        is_number = self._task.kind == "regression"
        return make_local_form(self._labels.scoring, self._words, numeric=is_number, topk=self._config.topk)

    @property
    def _max_tokens(self) -> int:
        return self._config.max_tokens or limit_local_tokens(self._labels.scoring)

    async def _prepare(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Ready | Reply, None]:
        """The requests as they are asked, or the replies of those that cannot be."""
        layout = None if self._rows is not None else self._config.make_layout(self._draw)
        if layout is None and self.sees_pictures:
            async with aclosing(prepare_ahead(requests, _find_example)) as prepared:
                async for request, shown in prepared:
                    yield await asyncio.to_thread(self._show, request, shown)
            return
        if layout is None:
            async for request in requests:
                yield await asyncio.to_thread(self._write, request)
            return
        if self._renderer is None:
            self._renderer = RenderPool(layout)
        async with aclosing(self._renderer.render_ahead(requests, self._find_drawn, WINDOW_DRAWN)) as rendered:
            async for request, pages in rendered:
                if isinstance(pages, DataError):
                    yield _fail(request, str(pages))
                else:
                    yield await asyncio.to_thread(self._show_drawn, request, pages)

    def _show(self, request: Request, shown: Prepared) -> Ready | Reply:
        """A request by its row's pictures, and in writing."""
        if isinstance(shown, DataError):
            return _fail(request, str(shown))
        return self._prompts.show(request, shown) if shown else self._write(request)

    def _show_drawn(self, request: Request, pages: Sequence[Page]) -> Ready | Reply:
        """A request by its row's pictures, where those are shown, and its pages."""
        try:
            shown = prepare_row(request.example) if self.sees_pictures else ()
        except DataError as error:
            return _fail(request, str(error))
        return self._prompts.show(request, shown, pages)

    def _find_drawn(self, request: Request) -> str:
        return build_prompt(self._task.question, request.example, self._draw).drawn or ""

    def _write(self, request: Request) -> Ready | Reply:
        """A request without pages."""
        try:
            if self._rows is None:
                ready = self._prompts.write(request)
                problem = find_length_problem(ready.length, self._model.context, self._labels.longest)
                return ready if problem is None else _fail(request, problem)
            given = self._rows.encode(request)
        except DataError as error:
            return _fail(request, str(error))
        if given.tokens > self._model.context:
            return _fail(request, f"prompt and text have {given.tokens} tokens; the model takes {self._model.context}")
        return Ready(request, given.tokens, given=given)

    def _make_batches(self, ready: Sequence[Ready]) -> Iterator[list[Ready]]:
        """The rows by length, as many at a time as the batch's tokens allow, padding included.

        Those without pictures go before those with some.
        """
        device = self._model.device
        most = self._config.batch_tokens or (CPU_BATCH_TOKENS if device == "cpu" else GPU_BATCH_TOKENS)
        batch: list[Ready] = []
        for one in sorted(ready, key=lambda one: (one.has_pictures, one.length)):
            if batch and ((len(batch) + 1) * one.length > most or one.has_pictures != batch[0].has_pictures):
                yield batch
                batch = []
            batch.append(one)
        if batch:
            yield batch

    def _answer_batch(self, batch: Sequence[Ready]) -> list[Reply]:
        asked_at, started = datetime.now(UTC), time.perf_counter()
        if self._rows is None:
            answers = self._asker.ask(batch)
        else:
            given = [one.given for one in batch if one.given is not None]
            scores = score_given(self._model, given, self._config.topk or 0)
            answers = [make_answer(one, found) for one, found in zip(given, scores, strict=True)]
        latency_ms = (time.perf_counter() - started) * 1000 / len(batch)
        replies = []
        for one, answer in zip(batch, answers, strict=True):
            hashes = (*(own.sha256 for own in one.shown), *(page.sha256 for page in one.pages)) or None
            bill = replace(answer, image_sha256=hashes, latency_ms=latency_ms, asked_at=asked_at, attempts=1)
            kept = {own.sha256: own.original for own in one.shown} if self._config.keep_images else {}
            replies.append(Reply(one.request, bill, kept))
        return replies


def _find_example(request: Request) -> Example:
    return request.example


def _fail(request: Request, problem: str) -> Reply:
    return Reply(request, Answer(Status.FAILED, error=problem))
