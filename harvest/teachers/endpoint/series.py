"""The requests of one row at a server's own routes, one after the other, and what they cost together."""

from functools import partial
from typing import Any

import orjson

from harvest.chat.dialects.following import read_following_usage
from harvest.chat.pricing import Usage
from harvest.teachers.endpoint.bill import Bill
from harvest.teachers.endpoint.budget import Budget
from harvest.teachers.endpoint.client import ChatRequest, Client, Exchange
from harvest.teachers.endpoint.limiter import Slot
from harvest.teachers.endpoint.questions import Question
from shared.schema import sum_costs

MOST_RAW = 64 * 2**10  # bytes of a reply that cannot be read which a row keeps


class Series:
    """Sends one row's requests. Each counts in the budget, and a row's bill is that of all of them.

    `exchanges` are those that ended, `usage` and `cost_usd` what they took; `is_cut` is whether the budget or the run
    ended before the row was through. `slot` is one that the caller acquired for the first.
    """

    def __init__(
        self, client: Client, budget: Budget, bill: Bill, question: Question, key: str, slot: Slot | None
    ) -> None:
        self._client, self._budget, self._bill = client, budget, bill
        self._question, self._key, self._slot = question, key, slot
        self.exchanges: list[Exchange] = []
        self.usage = Usage(0, 0)
        self.cost_usd: float | None = 0.0
        self.is_cut = False

    def cut_raw(self) -> bytes | None:
        """The beginning of what came last: all of it may be megabytes."""
        raw = self.exchanges[-1].raw if self.exchanges else None
        return None if raw is None else raw[:MOST_RAW]

    async def post(self, path: str, body: Any, prompts: int) -> Any:
        """The JSON that came for a body about so many prompts; None where none came whole.

        One about no prompt is free. Raises ValueError where what came is no JSON, or tells no usage.
        """
        tokens = self._question.prompt_bound * prompts
        request = ChatRequest(
            f"{self._key}-{len(self.exchanges)}" if self.exchanges else self._key,
            orjson.dumps(body),
            partial(self._bill.bound, tokens, prompts),
            self._question.prompt_guess * prompts,
            path,
            self.exchanges[-1].server if self.exchanges else None,  # which has read the prompt
        )
        slot, self._slot = self._slot, None
        exchange = await self._client.ask(request, slot)
        if exchange is None:
            self.is_cut = True
            return None
        self.exchanges.append(exchange)
        if exchange.fault is not None:
            return None
        try:
            came = None if exchange.problem is not None else orjson.loads(exchange.raw or b"")
            usage = read_following_usage(came) if prompts and came is not None else None
        except (ValueError, KeyError, TypeError) as error:
            self._settle(exchange, None, tokens, prompts)
            raise ValueError(f"no reply of {path}: {error!r}") from error
        self._settle(exchange, usage, tokens, prompts)
        return came

    def _settle(self, exchange: Exchange, usage: Usage | None, tokens: int, prompts: int) -> None:
        if not prompts:
            self._budget.settle(exchange.ticket, 0.0)
            return
        cost = self._bill.settle(self._budget, exchange.ticket, usage, tokens, prompts)
        self.cost_usd = sum_costs((self.cost_usd, cost))
        if usage is not None:
            self.usage = Usage(
                self.usage.prompt_tokens + usage.prompt_tokens, self.usage.completion_tokens + usage.completion_tokens
            )
