"""What replies cost, by their tokens and the price that is known; what the endpoint says of it is held against that."""

import math
from collections.abc import Callable
from dataclasses import replace

from harvest.chat.pricing import Price, Usage
from harvest.teachers.endpoint.budget import Budget

# How far from what its tokens cost an endpoint's own bill is believed: cached prompts are cheaper, and the providers
# behind a router differ.
BELIEVED_FACTOR = 10.0
MOST_BELIEVED_USD = 1000.0  # of one reply, where no price is known


class Bill:
    """What replies cost, and the most that one can cost. `price` None: no price is known.

    The bounds of a request's tokens are computed before it is sent; where an endpoint counts more tokens than that, or
    believably bills more for them than their price, all later bounds, and those of what is in flight, grow by the worst
    ratios seen: of prompts, of answers, and of bills. `tell` is told, once, of a bill that is not believed.
    `unanswered_usd` is what was paid for rows between two of whose requests the run ended: no row says it.
    """

    def __init__(self, price: Price | None, tell: Callable[[str], None]) -> None:
        self.price = price
        self._tell: Callable[[str], None] | None = tell
        self.unanswered_usd = 0.0
        self._prompt_excess = self._answer_excess = self._bill_excess = 1.0

    def bound(self, prompt_tokens: int, answer_tokens: int) -> float:
        """The most that a reply can cost in US dollars, by bounds of its tokens and by what was seen so far."""
        if self.price is None:
            return 0.0
        prompt_usd = prompt_tokens * self._prompt_excess * self.price.input_usd
        answer_usd = answer_tokens * self._answer_excess * self.price.output_usd
        return (prompt_usd + answer_usd) * self._bill_excess

    def settle(
        self, budget: Budget, ticket: int, usage: Usage | None, prompt_tokens: int, answer_tokens: int
    ) -> float | None:
        """Count a reply's cost in the budget; give what its row says of it, in US dollars.

        The tokens are the bounds of `bound`. A reply without usage costs its worst case. None where no price is known
        and the reply does not say itself what it costs. The budget counts the larger of what the tokens cost and what
        the endpoint believably says.
        """
        price = self.price
        if price is None:
            budget.settle(ticket, 0.0)
            told = None if usage is None else usage.cost_usd
            return told if told is not None and 0 <= told <= MOST_BELIEVED_USD else None
        if usage is None or not usage.prompt_tokens:  # no prompt has none
            worst = budget.find_worst(ticket)
            budget.settle(ticket, None)
            return worst
        cost = price.cost(usage)
        said = cost if usage.cost_usd is None else usage.cost_usd
        if not cost / BELIEVED_FACTOR <= said <= cost * BELIEVED_FACTOR:  # nor where it is NaN
            self._doubt(said, cost, price)
            said = cost
        budget.settle(ticket, max(said, cost))
        uncached = price.cost(replace(usage, cached_tokens=0))  # as the bounds are reckoned
        self._learn(
            budget,
            usage.prompt_tokens / max(prompt_tokens, 1),
            usage.completion_tokens / max(answer_tokens, 1),
            said / uncached if uncached else 1.0,
        )
        return said

    def leave(self, cost_usd: float | None) -> None:
        """Note what the first requests of a row cost that is not answered, None where that is not known."""
        self.unanswered_usd += cost_usd or 0.0

    def _learn(self, budget: Budget, prompt_ratio: float, answer_ratio: float, bill_ratio: float) -> None:
        known = self._prompt_excess, self._answer_excess, self._bill_excess
        worst = max(known[0], prompt_ratio), max(known[1], answer_ratio), max(known[2], bill_ratio)
        if worst != known:
            self._prompt_excess, self._answer_excess, self._bill_excess = worst
            budget.learn()

    def _doubt(self, said: float, cost: float, price: Price) -> None:
        if self._tell is not None:
            amount = "an amount that is none" if math.isnan(said) else f"${said:.4g}"
            self._tell(
                f"the endpoint says that a reply cost {amount}; its tokens cost ${cost:.4g} by {price.source}, and "
                "that counts, for this reply and others like it"
            )
            self._tell = None
