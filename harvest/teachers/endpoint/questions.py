"""From an example to the body of a request: the question is drawn and written, and its tokens are bounded."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from harvest.chat.elicitation import Elicitation
from harvest.chat.pricing import CHAT_OVERHEAD_TOKENS, bound_image_tokens, bound_tokens, guess_tokens
from harvest.chat.prompts import build_prompt
from harvest.chat.scoring import LabelWords
from harvest.pictures import prepare_row
from harvest.rendering import render
from harvest.teachers.base import make_seed
from harvest.teachers.endpoint.config import EndpointConfig
from harvest.teachers.endpoint.elicitation import build_parameters, build_spelling, find_seed_field, limit_tokens
from shared.example import Example
from shared.tasks import Task


@dataclass(frozen=True, slots=True)
class Question:
    """A question ready to be sent but for the number of answers. `prompt_bound` is the most tokens it can have.

    `originals` are the row's own pictures by their sha256, where they are to be kept.
    """

    messages: str
    prompt_bound: int
    prompt_guess: int
    image_sha256: Sequence[str] | None = None
    originals: Mapping[str, bytes] = field(default_factory=dict)


class Questions:
    """Makes the questions of a task, asked in one way. `max_tokens` is the longest that one answer may be.

    Pictures are drawn and prepared in `pool`. `pictures` False leaves them out: by what is written alone, which a probe
    compares with.
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
        """The question about one example. Raises DataError where its text or a picture of its own cannot be shown."""
        prompt = build_prompt(self._task.question, example, self._config.draw)
        drawn = None if self._layout is None else prompt.drawn
        own = example if self._config.pictures and example.pictures else None
        if not self._pictures or (drawn is None and own is None):
            text = prompt.written or "."  # servers refuse a message that says nothing
            bound = bound_tokens(text) + CHAT_OVERHEAD_TOKENS
            return Question(_write_messages(text), bound, guess_tokens(text))
        # Drawing takes milliseconds: in a thread, so that hundreds of connections do not wait for it.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._show, own, drawn, prompt.written)

    def write_body(self, question: Question, key: str, answers: int) -> bytes:
        """The body of a request for so many answers, whose key is `key`."""
        several = f', "n": {answers}' if answers > 1 else ""
        seed = f', "{self._seed_field}": {make_seed(key)}' if self._seed_field else ""
        body = f'{self._parameters[:-1]}{several}{seed}, "messages": {question.messages}}}'
        if (write_request := self._elicitation.dialect.write_request) is not None:
            body = _encode(write_request(json.loads(body)))
        return body.encode("utf-8", "replace")

    def _show(self, own: Example | None, drawn: str | None, written: str) -> Question:
        """The question with the pictures of its row, and the pages that are drawn behind them."""
        config, layout = self._config, self._layout
        shown = () if own is None else prepare_row(own, config.longest_side)
        pages = [] if drawn is None or layout is None else render(drawn, layout)
        contents = [*(one.content for one in shown), *(page.png for page in pages)]
        parts: list[object] = [self._elicitation.dialect.make_image_part(content) for content in contents]
        if written:
            parts.append({"type": "text", "text": written})
        sizes = [(one.width, one.height) for one in shown] + [(layout.width, layout.height) for _ in pages if layout]
        images = sum(bound_image_tokens(config.model, *size) for size in sizes)
        bound = bound_tokens(written) + images + CHAT_OVERHEAD_TOKENS
        hashes = [*(one.sha256 for one in shown), *(page.sha256 for page in pages)]
        originals = {one.sha256: one.original for one in shown} if config.keep_images else {}
        return Question(_write_messages(parts), bound, bound, hashes, originals)


_encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps with options makes an encoder at every call


def _write_messages(content: object) -> str:
    return f'[{{"role": "user", "content": {_encode(content)}}}]'
