"""Scores given texts with a causal language model: the teacher of a student that learns tokens from their top K."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, NamedTuple

from harvest.chat.pricing import guess_tokens
from harvest.teachers.base import Estimate, Reply, Request, estimate_bytes
from harvest.teachers.given import FINISH_REASON, GivenTexts
from harvest.teachers.scorer.config import ScorerConfig
from harvest.teachers.scorer.model import Given, Scores, ScoringModel
from shared.errors import DataError, require_extra
from shared.example import Example
from shared.fingerprints import fingerprint_tokenizer
from shared.schema import Answer, Status
from shared.tasks import Task
from shared.templates import find_template
from shared.topk import estimate_topk_bytes

WINDOW_ROWS = 256  # sorted by length, so that a batch holds little padding
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 1024, 8192


class _Ready(NamedTuple):
    """A request as token ids, and the text that is scored."""

    request: Request
    text: str
    given: Given


class ScorerTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    remote = None

    def __init__(self, config: ScorerConfig, task: Task, *, name: str = "scorer") -> None:
        require_extra("distill", "torch", "transformers")
        self.name = name
        self._config, self._task = config, task
        self._given = GivenTexts(config.score_given or "", task)
        self._template = find_template(config.template, task.name)
        self._model = ScoringModel(config.model, config.device, config.dtype)

    @property
    def why_no_draws(self) -> str | None:
        """Why a second draw would be no other than the first; None where it may be."""
        return None if self._given.has_draws else "the text that it scores is the same in each; --score-given FOLDER"

    def recipe(self) -> Mapping[str, Any]:
        """Model, tokenizer, prompt and what is scored. Loads the tokenizer, and no weights."""
        config, model = self._config, self._model
        prompt: Mapping[str, Any] = {"start": model.start}
        if self._given.has_prompt:
            prompt = {"question": self._task.question, "template": self._template.describe()}
        return {
            "teacher": "scorer",
            "model": model.files.fingerprint,
            "dtype": model.dtype,
            "tokenizer": {"name": config.model, "sha256": fingerprint_tokenizer(model.tokenizer.get_vocab())},
            "score_given": self._given.describe(),
            "prompt": prompt,
            "layout": None,
            "parameters": {"top_logprobs": config.top_logprobs, "score_end": config.score_end},
        }

    def content(self, example: Example) -> Mapping[str, Any]:
        """The prompt and the text that is scored; of another folder's replies the row. Raises DataError without one."""
        if not self._given.has_prompt:
            return {"text": example.text}
        rendered = self._template.render(example, self._task.question)
        messages = None if rendered.messages is None else [message._asdict() for message in rendered.messages]
        said = {"prompt": rendered.text if messages is None else messages}
        if self._given.has_draws:
            return {**said, "sample_id": example.sample_id}
        return {**said, "text": self._given.find(example)}

    def estimate(self, example: Example) -> Estimate:
        """Free; about how many tokens it computes, and the bytes of their scores."""
        try:
            scored = guess_tokens(self._given.find(example))
        except DataError:
            scored = 0
        prompt = guess_tokens(f"{self._task.question}{example.text}") if self._given.has_prompt else 1
        return Estimate(
            prompt, 0, scored, 0.0, estimate_bytes(example, estimate_topk_bytes(scored, self._config.top_logprobs))
        )

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
        self._given.close()

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
        """Encode prompt and text apart, so that the text's tokens do not depend on the prompt. Raises DataError."""
        model, example = self._model, request.example
        text = self._given.find(example, request.draw)
        if self._given.has_prompt:
            rendered = self._template.render(example, self._task.question)
            prompt = model.encode_prompt(rendered)
            written = self._template.completion(example, text, self._task.question)
            end = model.end_of_text if rendered.messages is None else model.end_of_turn
        else:
            prompt, written, end = [model.start], text, model.end_of_text
        scored = [*model.encode(written), *([end] if self._config.score_end else [])]
        if len(prompt) + len(scored) > model.context:
            raise DataError(f"prompt and text have {len(prompt) + len(scored)} tokens; the model takes {model.context}")
        if not scored:
            raise DataError("the text has no tokens")
        return _Ready(request, written, Given(prompt, scored))

    def _make_batches(self, ready: Sequence[_Ready]) -> Iterator[list[_Ready]]:
        """The rows by length, as many at a time as the batch's tokens allow, padding included."""
        device = self._model.device
        most = self._config.batch_tokens or (CPU_BATCH_TOKENS if device == "cpu" else GPU_BATCH_TOKENS)
        batch: list[_Ready] = []
        for one in sorted(ready, key=lambda one: len(one.given)):
            if batch and (len(batch) + 1) * len(one.given) > most:
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
            Reply(one.request, make_answer(one.text, one.given, found, latency_ms, asked_at))
            for one, found in zip(batch, scores, strict=True)
        ]


def make_answer(text: str, given: Given, scores: Scores, latency_ms: float, asked_at: datetime) -> Answer:
    """The answer of a row whose reply was given: no `raw`, for nothing was said that could be read again."""
    return Answer(
        Status.OK,
        reply=text,
        finish_reason=FINISH_REASON,
        reply_ids=given.scored,
        reply_logprobs=scores.given.tolist(),
        topk_ids=scores.ids.tolist(),
        topk_logprobs=scores.logprobs.tolist(),
        topk_tail=scores.tail.tolist(),
        prompt_tokens=len(given.prompt),
        completion_tokens=len(given.scored),
        latency_ms=latency_ms,
        asked_at=asked_at,
        attempts=1,
    )
