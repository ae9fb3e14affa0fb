"""Rows whose reply is given: prompt and reply as token ids, and the answer that their scores make.

Shared by the teachers that score such rows, so that the same row is the same tokens for each of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from harvest.chat.pricing import guess_tokens
from harvest.teachers.base import Estimate, Request, estimate_bytes
from harvest.teachers.given import FINISH_REASON, GivenTexts
from harvest.teachers.local_config import LocalConfig
from harvest.teachers.tokenizers import PromptTokenizer
from shared.errors import DataError
from shared.example import Example
from shared.schema import Answer, Status
from shared.tasks import Task
from shared.templates import find_template
from shared.topk import estimate_topk_bytes

LEAST = -100.0  # of a log-probability, of the tail too: as good as none

Array: TypeAlias = np.ndarray[Any, Any]


class Given(NamedTuple):
    """A text, and token ids: of what stands before it, at least one, and of what is scored, the end token included."""

    text: str
    prompt: Sequence[int]
    scored: Sequence[int]

    @property
    def tokens(self) -> int:
        """How many tokens it has, prompt included."""
        return len(self.prompt) + len(self.scored)


class Scores(NamedTuple):
    """Natural log-probabilities of n given tokens: `given` and `tail` of shape (n,), `ids` and `logprobs` of (n, K).

    `tail` is of all tokens beside those K together.
    """

    given: Array
    ids: Array
    logprobs: Array
    tail: Array


class GivenRows:
    """The rows of `task` as tokens: what `score_given` gives each, after a prompt by `template`."""

    def __init__(
        self, score_given: str, template: str, topk: int, task: Task, tokenizer: PromptTokenizer, *, score_end: bool
    ) -> None:
        self._texts = GivenTexts(score_given, task)
        self._template = find_template(template, task.name)
        self._topk, self._task, self._tokenizer, self._score_end = topk, task, tokenizer, score_end

    @property
    def why_no_draws(self) -> str | None:
        """Why a second draw would be no other than the first; None where it may be."""
        return None if self._texts.has_draws else "the text that it scores is the same in each; --score-given FOLDER"

    def describe(self) -> Mapping[str, Any]:
        """What a recipe says of them. Loads the tokenizer."""
        prompt: Mapping[str, Any]
        if self._texts.has_prompt:
            prompt = {"question": self._task.question, "template": self._template.describe()}
        else:
            prompt = {"start": self._tokenizer.start}
        return {
            "score_given": self._texts.describe(),
            "prompt": prompt,
            "layout": None,
            "parameters": {"top_logprobs": self._topk, "score_end": self._score_end},
        }

    def content(self, example: Example) -> Mapping[str, Any]:
        """The prompt and the text that is scored; of another folder's replies the row. Raises DataError without one."""
        if not self._texts.has_prompt:
            return {"text": example.text}
        said = {"prompt": self._template.render(example, self._task.question).describe()}
        if self._texts.has_draws:
            return {**said, "sample_id": example.sample_id}
        return {**said, "text": self._texts.find(example)}

    def estimate(self, example: Example) -> Estimate:
        """Free; about how many tokens are computed, and the bytes of their scores."""
        try:
            scored = guess_tokens(self._texts.find(example))
        except DataError:
            scored = 0
        prompt = guess_tokens(f"{self._task.question}{example.text}") if self._texts.has_prompt else 1
        return Estimate(prompt, 0, scored, 0.0, estimate_bytes(example, estimate_topk_bytes(scored, self._topk)))

    def encode(self, request: Request) -> Given:
        """Encode prompt and text apart, so that the text's tokens do not depend on the prompt. Raises DataError."""
        tokenizer, example = self._tokenizer, request.example
        text = self._texts.find(example, request.draw)
        if self._texts.has_prompt:
            rendered = self._template.render(example, self._task.question)
            prompt = tokenizer.encode_prompt(rendered)
            text = self._template.completion(example, text, self._task.question)
            end = tokenizer.end_of_text if rendered.messages is None else tokenizer.end_of_turn
        else:
            prompt, end = [tokenizer.start], tokenizer.end_of_text
        scored = [*tokenizer.encode(text), *([end] if self._score_end else [])]
        if not scored:
            raise DataError("the text has no tokens")
        return Given(text, prompt, scored)

    def close(self) -> None:
        """Let go of the replies that were read."""
        self._texts.close()


def make_given_rows(config: LocalConfig, task: Task, tokenizer: PromptTokenizer) -> GivenRows | None:
    """The rows whose reply is given, as `config` says; None where the model says it. Raises UsageError as they do."""
    if config.score_given is None:
        return None
    template, topk = config.template or "chat", config.topk or 0
    return GivenRows(config.score_given, template, topk, task, tokenizer, score_end=config.score_end)


def make_answer(given: Given, scores: Scores) -> Answer:
    """The answer of a row whose reply was given, without its time: no `raw`, for nothing was said to be read again."""
    return Answer(
        Status.OK,
        reply=given.text,
        finish_reason=FINISH_REASON,
        reply_ids=given.scored,
        reply_logprobs=scores.given.tolist(),
        topk_ids=scores.ids.tolist(),
        topk_logprobs=scores.logprobs.tolist(),
        topk_tail=scores.tail.tolist(),
        prompt_tokens=len(given.prompt),
        completion_tokens=len(given.scored),
    )
