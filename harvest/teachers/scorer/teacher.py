"""Scores given texts with a causal language model: the teacher of a student that learns tokens from their top K."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, NamedTuple

from harvest.teachers.base import Estimate, Reply, Request
from harvest.teachers.given_rows import Given, GivenRows, make_answer
from harvest.teachers.scorer.config import ScorerConfig
from harvest.teachers.scorer.model import ScoringModel
from harvest.teachers.tokenizers import PromptTokenizer
from shared.errors import DataError, require_extra
from shared.example import Example
from shared.keys import TOKENIZER
from shared.schema import Answer, Status
from shared.tasks import Task

WINDOW_ROWS = 256  # sorted by length, so that a batch holds little padding
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 1024, 8192


class _Ready(NamedTuple):
    """A request as token ids."""

    request: Request
    given: Given


class ScorerTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    remote = None

    def __init__(self, config: ScorerConfig, task: Task, *, name: str = "scorer") -> None:
        require_extra("distill", "torch", "transformers")
        self.name = name
        self._config = config
        self._tokenizer = PromptTokenizer(config.model)
        self._rows = GivenRows(
            config.score_given or "",
            config.template,
            config.top_logprobs,
            task,
            self._tokenizer,
            score_end=config.score_end,
        )
        self._model = ScoringModel(config.model, config.device, config.dtype)

    @property
    def why_no_draws(self) -> str | None:
        """Why a second draw would be no other than the first; None where it may be."""
        return self._rows.why_no_draws

    def recipe(self) -> Mapping[str, Any]:
        """Model, tokenizer, prompt and what is scored. Loads the tokenizer, and no weights."""
        return {
            "teacher": "scorer",
            "model": self._model.files.fingerprint,
            "dtype": self._model.dtype,
            TOKENIZER: self._tokenizer.description,
            **self._rows.describe(),
        }

    def content(self, example: Example) -> Mapping[str, Any]:
        """The prompt and the text that is scored; of another folder's replies the row. Raises DataError without one."""
        return self._rows.content(example)

    def estimate(self, example: Example) -> Estimate:
        """Free; about how many tokens it computes, and the bytes of their scores."""
        return self._rows.estimate(example)

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Score in batches of about the same length; one row that cannot be scored does not stop the others."""
        window: list[Request] = []
        async for request in requests:
            window.append(request)
            if len(window) == WINDOW_ROWS:
                async with aclosing(self._answer_window(window)) as replies:
                    async for reply in replies:
                        yield reply
                window = []
        async with aclosing(self._answer_window(window)) as replies:
            async for reply in replies:
                yield reply

    async def aclose(self) -> None:
        """Let go of the model and of the replies that were read."""
        self._model.close()
        self._rows.close()

    async def _answer_window(self, requests: Sequence[Request]) -> AsyncGenerator[Reply, None]:
        ready: list[_Ready] = []
        for request in requests:
            try:
                ready.append(await asyncio.to_thread(self._prepare, request))
            except DataError as error:
                yield Reply(request, Answer(Status.FAILED, error=str(error)))
        for batch in self._make_batches(ready):
            for reply in await asyncio.to_thread(self._score, batch):
                yield reply

    def _prepare(self, request: Request) -> _Ready:
        """Raise DataError where there is no text, or more than the model takes."""
        given = self._rows.encode(request)
        if given.tokens > self._model.context:
            raise DataError(f"prompt and text have {given.tokens} tokens; the model takes {self._model.context}")
        return _Ready(request, given)

    def _make_batches(self, ready: Sequence[_Ready]) -> Iterator[list[_Ready]]:
        """The rows by length, as many at a time as the batch's tokens allow, padding included."""
        device = self._model.device
        most = self._config.batch_tokens or (CPU_BATCH_TOKENS if device == "cpu" else GPU_BATCH_TOKENS)
        batch: list[_Ready] = []
        for one in sorted(ready, key=lambda one: one.given.tokens):
            if batch and (len(batch) + 1) * one.given.tokens > most:
                yield batch
                batch = []
            batch.append(one)
        if batch:
            yield batch

    def _score(self, batch: Sequence[_Ready]) -> list[Reply]:
        asked_at, started = datetime.now(UTC), time.perf_counter()
        scores = self._model.score([one.given for one in batch], self._config.top_logprobs)
        latency_ms = (time.perf_counter() - started) * 1000 / len(batch)
        return [
            Reply(one.request, make_answer(one.given, found, latency_ms, asked_at))
            for one, found in zip(batch, scores, strict=True)
        ]
