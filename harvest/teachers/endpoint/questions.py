"""From an example to the body of a request: the question is drawn and written, and its tokens are bounded."""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from harvest.chat.elicitation import Elicitation
from harvest.chat.pricing import CHAT_OVERHEAD_TOKENS, bound_image_tokens, bound_tokens, guess_tokens
from harvest.chat.prompts import build_prompt
from harvest.chat.scoring import LabelWords
from harvest.rendering import Layout, Page, render
from harvest.teachers.base import make_seed
from harvest.teachers.endpoint.config import EndpointConfig
from harvest.teachers.endpoint.elicitation import build_parameters, build_spelling, find_seed_field, limit_tokens
from shared.example import Example
from shared.tasks import Task


@dataclass(frozen=True, slots=True)
class Question:
    """A question ready to be sent but for the number of answers. `prompt_bound` is the most tokens it can have."""

    messages: str
    prompt_bound: int
    prompt_guess: int
    image_sha256: Sequence[str] | None


class Questions:
    """Makes the questions of a task, asked in one way. `max_tokens` is the longest that one answer may be.

    Pictures are drawn in `pool`. `pictures` False leaves them out: by what is written alone, which a probe compares
    with.
    """

    def __init__(
        self,
        task: Task,
        config: EndpointConfig,
        elicitation: Elicitation,
        words: LabelWords | None,
        pool: Executor,
        pictures: bool = True,
    ) -> None:
        self._task, self._config, self._elicitation, self._pool = task, config, elicitation, pool
        self.form = elicitation.make_form(words, numeric=task.kind == "regression", keep_topk=config.keep_topk)
        self.max_tokens = limit_tokens(elicitation, config)
        parameters = {**build_spelling(elicitation, config), **build_parameters(elicitation, config, words)}
        self._parameters = json.dumps(parameters, ensure_ascii=False)
        self._seed_field = find_seed_field(elicitation, config)
        self._pictures, self._layout = pictures, config.layout

    async def prepare(self, example: Example) -> Question:
        """The question about one example. Raises DataError where it cannot be drawn."""
        prompt = build_prompt(self._task.question, example, self._config.draw)
        layout = self._layout
        if layout is None or prompt.drawn is None or not self._pictures:
            text = prompt.written or "."  # servers refuse a message that says nothing
            bound = bound_tokens(text) + CHAT_OVERHEAD_TOKENS
            return Question(_write_messages(text), bound, guess_tokens(text), None)
        # Drawing takes milliseconds: in a thread, so that hundreds of connections do not wait for it.
        loop = asyncio.get_running_loop()
        pages, messages = await loop.run_in_executor(self._pool, self._draw, prompt.drawn, prompt.written, layout)
        image = bound_image_tokens(self._config.model, layout.width, layout.height) * len(pages)
        bound = bound_tokens(prompt.written) + image + CHAT_OVERHEAD_TOKENS
        return Question(messages, bound, bound, [page.sha256 for page in pages])

    def write_body(self, question: Question, key: str, answers: int) -> bytes:
        """The body of a request for so many answers, whose key is `key`."""
        several = f', "n": {answers}' if answers > 1 else ""
        seed = f', "{self._seed_field}": {make_seed(key)}' if self._seed_field else ""
        body = f'{self._parameters[:-1]}{several}{seed}, "messages": {question.messages}}}'
        if (write_request := self._elicitation.dialect.write_request) is not None:
            body = _encode(write_request(json.loads(body)))
        return body.encode("utf-8", "replace")

    def _draw(self, drawn: str, written: str, layout: Layout) -> tuple[list[Page], str]:
        pages = render(drawn, layout)
        parts: list[object] = [self._elicitation.dialect.make_image_part(page.png) for page in pages]
        if written:
            parts.append({"type": "text", "text": written})
        return pages, _write_messages(parts)


_encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps with options makes an encoder at every call


def _write_messages(content: object) -> str:
    return f'[{{"role": "user", "content": {_encode(content)}}}]'
