"""One example at one endpoint: its question is asked, and the reply read and billed."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial

from harvest.chat.dialects import Scoring
from harvest.chat.dialects.following import COMPLETION_PATH, TEMPLATE_PATH, read_template, write_template
from harvest.chat.elicitation import Elicitation
from harvest.chat.errors import shorten
from harvest.chat.reply import BROKEN, Reading, join_votes, parse
from harvest.chat.written import write_chat_completion
from harvest.teachers.endpoint.bill import Bill
from harvest.teachers.endpoint.budget import Budget
from harvest.teachers.endpoint.client import ChatRequest, Client, Exchange
from harvest.teachers.endpoint.config import EndpointConfig
from harvest.teachers.endpoint.limiter import Slot
from harvest.teachers.endpoint.questions import Question, Questions
from harvest.teachers.endpoint.series import Series
from harvest.teachers.endpoint.words import WordScorer
from shared.console import say
from shared.errors import DataError, TeacherError
from shared.example import Example
from shared.schema import Answer, Status, sum_costs

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

    `originals` are the row's own pictures by their sha256, where they are to be kept. `fatal` is why no further request
    can succeed, where that showed after a part of the answer had come.
    """

    answer: Answer
    reading: Reading | None = None
    fatal: TeacherError | None = None
    originals: Mapping[str, bytes] = field(default_factory=dict)


async def let_next_leave() -> None:
    """Let requests leave for which replies that came together have made room, before one of those is read.

    Otherwise the server would wait for the reading of all of them. Two steps of the event loop: the next requests are
    pulled in one, and sent in the other. A cancel meanwhile counts from the next wait on: this reply is paid for.
    """
    try:
        for _ in range(2):
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()


class Asker:
    """Asks a task's examples in one way. Bound to the event loop of its client."""

    def __init__(
        self,
        questions: Questions,
        config: EndpointConfig,
        elicitation: Elicitation,
        client: Client,
        budget: Budget,
        bill: Bill,
        model_check: ModelCheck,
    ) -> None:
        self._questions, self._config, self._elicitation = questions, config, elicitation
        self._client, self._budget, self._bill = client, budget, bill
        self._model_check = model_check

    async def ask(self, example: Example, key: str, slot: Slot | None = None) -> Asked | None:
        """The answer to one example; None where the budget or the run ended first.

        `slot` is one that the caller acquired for it. Raises TeacherError where no request can succeed.
        """
        try:
            question = await self._questions.prepare(example)
        except DataError as error:
            if slot is not None:
                self._client.give_back(slot)
            return Asked(Answer(Status.FAILED, error=str(error)))
        if self._elicitation.scoring is Scoring.VOTES:
            return await self._ask_votes(question, key, slot)
        if self._elicitation.scoring is Scoring.WORDS:
            return await self._ask_words(question, key, slot)
        exchange, reading, cost = await self._exchange(question, key, 1, slot)
        return None if exchange is None else self._close(question, [exchange], reading, cost)

    async def _ask_votes(self, question: Question, key: str, slot: Slot | None) -> Asked | None:
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
                if votes:
                    await asyncio.sleep(0)  # where a cancel counts that came before the last vote was read
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
        reading = parse(raws[0] if len(raws) == 1 else join_votes(raws), self._questions.form)
        return replace(self._close(question, exchanges, reading, total_cost), fatal=fatal)

    async def _ask_words(self, question: Question, key: str, slot: Slot | None) -> Asked | None:
        """Ask for the prompt's text, and behind it for what the tree of the label words wants."""
        series = Series(self._client, self._budget, self._bill, question, key, slot)
        try:
            fields = write_template(json.loads(question.messages), self._config.body)
            template = await series.post(TEMPLATE_PATH, fields, 0)
            post = partial(series.post, COMPLETION_PATH)
            found = None if template is None else await self._scorer.score(read_template(template), post)
        except (ValueError, KeyError, TypeError) as error:
            why = f"the server's own routes cannot be read: {type(error).__name__}: {error}"
            answer = Answer(Status.UNPARSABLE, raw=series.cut_raw(), error=shorten(why))
            return self._close(question, series.exchanges, Reading(answer, series.usage), series.cost_usd)
        except (TeacherError, asyncio.CancelledError):
            self._bill.leave(series.cost_usd)
            raise
        if series.is_cut:
            self._bill.leave(series.cost_usd)
            return None
        reading = None
        if found is not None:
            usage = series.usage
            raw = write_chat_completion(
                None,
                None,
                [],
                usage.prompt_tokens,
                said_tokens=usage.completion_tokens,
                word_scores=found.label_logprobs,
            )
            reading = parse(raw, self._questions.form)
        return self._close(question, series.exchanges, reading, series.cost_usd)

    @cached_property
    def _scorer(self) -> WordScorer:
        assert self._questions.form.words is not None
        return WordScorer(self._questions.form.words, self._client)

    async def _exchange(
        self, question: Question, key: str, answers: int, slot: Slot | None
    ) -> tuple[Exchange | None, Reading | None, float | None]:
        """One request and its settled bill."""
        said = self._questions.max_tokens * answers
        worst = partial(self._bill.bound, question.prompt_bound, said)
        body = self._questions.write_body(question, key, answers)
        request = ChatRequest(key, body, worst, question.prompt_guess + said)
        exchange = await self._client.ask(request, slot)
        if exchange is None or exchange.fault is not None:
            return exchange, None, 0.0
        await let_next_leave()
        reading = None if exchange.problem is not None else parse(exchange.raw or b"", self._questions.form)
        if reading is not None and self._elicitation.dialect.names_model:
            self._model_check.see(reading.model)
        usage = None if reading is None else reading.usage
        cost = self._bill.settle(self._budget, exchange.ticket, usage, question.prompt_bound, said)
        return exchange, reading, cost

    def _close(
        self, question: Question, exchanges: Sequence[Exchange], reading: Reading | None, cost_usd: float | None
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
        return Asked(self._client.clean_answer(answer), reading, originals=question.originals)
