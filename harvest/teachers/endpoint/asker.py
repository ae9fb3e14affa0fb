"""One example at one endpoint: the question is drawn and written, asked, read and billed."""

import asyncio
import json
import re
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from harvest.chat.dialects import Scoring
from harvest.chat.elicitation import Elicitation
from harvest.chat.errors import shorten
from harvest.chat.pricing import CHAT_OVERHEAD_TOKENS, bound_image_tokens, bound_tokens, guess_tokens
from harvest.chat.prompts import build_prompt
from harvest.chat.reply import BROKEN, Reading, join_votes, parse
from harvest.chat.scoring import LabelWords
from harvest.rendering import Layout, Page, render
from harvest.teachers.base import make_seed
from harvest.teachers.endpoint.bill import Bill
from harvest.teachers.endpoint.budget import Budget
from harvest.teachers.endpoint.client import ChatRequest, Client, Exchange
from harvest.teachers.endpoint.config import EndpointConfig
from harvest.teachers.endpoint.elicitation import build_parameters, build_spelling, limit_tokens, takes_seed
from harvest.teachers.endpoint.limiter import Slot
from shared.console import say
from shared.errors import DataError, TeacherError
from shared.example import Example
from shared.schema import Answer, Status, sum_costs
from shared.tasks import Task

_DATE = re.compile(r"[-@:_]\d{3,}(?!\w)")  # or the number of a build, behind a model's name


class ModelCheck:
    """Says once, of each model, that it answered in the place of the one that was asked."""

    def __init__(self, asked: str) -> None:
        self._asked, self._said = asked, {None, asked}

    def see(self, answered: str | None) -> None:
        """Look at the model that a reply names. A dated version of the one that was asked is that one."""
        if answered in self._said:
            return
        self._said.add(answered)
        ours, theirs = (name.lower().rpartition("/")[2] for name in (self._asked, answered or ""))
        if theirs != ours and not (theirs.startswith(ours) and _DATE.match(theirs, len(ours))):
            say(
                f"the endpoint answers with the model {shorten(answered or '')!r}, and {self._asked!r} was asked: the "
                "rows are that one's. Stop, and give another --model, if that is not what you meant"
            )


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer with its bill, and the reading of its reply, None where no whole reply came.

    `fatal` is why no further request can succeed, where that showed after a part of the answer had come.
    """

    answer: Answer
    reading: Reading | None = None
    fatal: TeacherError | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    """A question ready to be sent but for the number of answers. `prompt_bound` is the most tokens it can have."""

    messages: str
    prompt_bound: int
    prompt_guess: int
    image_sha256: Sequence[str] | None


class Asker:
    """Asks a task's examples in one way. Bound to the event loop of its client.

    `pictures` False asks without the pictures, by what is written alone: what a probe compares with.
    """

    def __init__(
        self,
        task: Task,
        config: EndpointConfig,
        elicitation: Elicitation,
        words: LabelWords | None,
        client: Client,
        budget: Budget,
        bill: Bill,
        pool: Executor,
        model_check: ModelCheck,
        pictures: bool = True,
    ) -> None:
        self._task, self._config, self._elicitation = task, config, elicitation
        self._client, self._budget, self._bill, self._pool = client, budget, bill, pool
        self._model_check = model_check
        self._form = elicitation.make_form(words, numeric=task.kind == "regression", keep_topk=config.keep_topk)
        parameters = {**build_spelling(elicitation, config), **build_parameters(elicitation, config, words)}
        self._parameters = json.dumps(parameters, ensure_ascii=False)
        self._takes_seed = takes_seed(elicitation, config)
        self._max_tokens = limit_tokens(elicitation, config)
        self._pictures, self._layout = pictures, config.layout

    async def ask(self, example: Example, key: str, slot: Slot | None = None) -> Asked | None:
        """The answer to one example; None where the budget or the run ended first.

        `slot` is one that the caller acquired for it. Raises TeacherError where no request can succeed.
        """
        try:
            question = await self._prepare(example)
        except DataError as error:
            if slot is not None:
                self._client.give_back(slot)
            return Asked(Answer(Status.FAILED, error=str(error)))
        if self._elicitation.scoring is Scoring.VOTES:
            return await self._ask_votes(question, key, slot)
        exchange, reading, cost = await self._exchange(question, key, 1, slot)
        return None if exchange is None else self._close(question, [exchange], reading, cost)

    async def _ask_votes(self, question: _Question, key: str, slot: Slot | None) -> Asked | None:
        """As many answers as the recipe says: at once where the server gives several, else one by one.

        Whatever ends the run between two, the votes that came are used: they were paid for.
        """
        exchanges: list[Exchange] = []
        votes = 0
        fatal = None
        total_cost: float | None = 0.0
        while votes < self._config.votes:
            wanted = self._config.votes - votes if self._elicitation.dialect.several else 1
            vote_key = f"{key}-{votes}" if votes else key
            try:
                exchange, reading, cost = await self._exchange(question, vote_key, wanted, slot)
            except (TeacherError, asyncio.CancelledError) as error:
                if not votes:
                    raise
                fatal = error if isinstance(error, TeacherError) else None
                break
            slot = None
            total_cost = sum_costs((total_cost, cost))
            if exchange is not None:
                exchanges.append(exchange)
            if reading is None or not reading.choices:
                break
            votes += reading.choices
        replies = [exchange for exchange in exchanges if exchange.raw is not None and exchange.problem is None]
        if not exchanges:
            return None
        if not replies:
            return self._close(question, exchanges, None, total_cost)
        raws = [exchange.raw or b"" for exchange in replies]
        reading = parse(raws[0] if len(raws) == 1 else join_votes(raws), self._form)
        return replace(self._close(question, exchanges, reading, total_cost), fatal=fatal)

    async def _exchange(
        self, question: _Question, key: str, answers: int, slot: Slot | None
    ) -> tuple[Exchange | None, Reading | None, float | None]:
        """One request and its settled bill."""
        said = self._max_tokens * answers
        worst = partial(self._bill.bound, question.prompt_bound, said)
        several = f', "n": {answers}' if answers > 1 else ""
        seed = f', "seed": {make_seed(key)}' if self._takes_seed else ""
        body = f'{self._parameters[:-1]}{several}{seed}, "messages": {question.messages}}}'
        request = ChatRequest(key, body.encode("utf-8", "replace"), worst, question.prompt_guess + said)
        exchange = await self._client.ask(request, slot)
        if exchange is None or exchange.fault is not None:
            return exchange, None, 0.0
        reading = None if exchange.problem is not None else parse(exchange.raw or b"", self._form)
        if reading is not None:
            self._model_check.see(reading.model)
        usage = None if reading is None else reading.usage
        cost = self._bill.settle(self._budget, exchange.ticket, usage, question.prompt_bound, said)
        return exchange, reading, cost

    def _close(
        self, question: _Question, exchanges: Sequence[Exchange], reading: Reading | None, cost_usd: float | None
    ) -> Asked:
        """The answer that `exchanges` brought, with the bill of all of them."""
        last = exchanges[-1]
        if reading is not None:
            answer = reading.answer
        elif last.fault is not None:
            answer = Answer(Status.REFUSED if last.fault.content else Status.FAILED, error=last.fault.message)
        else:
            answer = Answer(
                Status.UNPARSABLE, raw=last.raw, error=f"{BROKEN}{last.problem}; it is billed and not asked again"
            )
        asked_at: datetime = exchanges[0].asked_at
        answer = replace(
            answer,
            image_sha256=question.image_sha256,
            cost_usd=cost_usd,
            latency_ms=sum(exchange.latency_ms for exchange in exchanges),
            asked_at=asked_at,
            attempts=sum(exchange.attempts for exchange in exchanges),
        )
        return Asked(self._client.clean_answer(answer), reading)

    async def _prepare(self, example: Example) -> _Question:
        prompt = build_prompt(self._task.question, example, self._config.draw)
        layout = self._layout
        if layout is None or prompt.drawn is None or not self._pictures:
            text = prompt.written or "."  # servers refuse a message that says nothing
            bound = bound_tokens(text) + CHAT_OVERHEAD_TOKENS
            return _Question(_write_messages(text), bound, guess_tokens(text), None)
        # Drawing takes milliseconds: in a thread, so that hundreds of connections do not wait for it.
        loop = asyncio.get_running_loop()
        pages, messages = await loop.run_in_executor(self._pool, self._draw, prompt.drawn, prompt.written, layout)
        image = bound_image_tokens(self._config.model, layout.width, layout.height) * len(pages)
        bound = bound_tokens(prompt.written) + image + CHAT_OVERHEAD_TOKENS
        return _Question(messages, bound, bound, [page.sha256 for page in pages])

    def _draw(self, drawn: str, written: str, layout: Layout) -> tuple[list[Page], str]:
        pages = render(drawn, layout)
        parts: list[object] = [self._elicitation.dialect.make_image_part(page.png) for page in pages]
        if written:
            parts.append({"type": "text", "text": written})
        return pages, _write_messages(parts)


_encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps with options makes an encoder at every call


def _write_messages(content: object) -> str:
    return f'[{{"role": "user", "content": {_encode(content)}}}]'
