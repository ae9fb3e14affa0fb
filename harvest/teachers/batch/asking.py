"""Rows to requests of jobs, and what jobs brought back to rows: questions, ids, bills and answers."""

from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from harvest.chat.dialects import Scoring
from harvest.chat.elicitation import Elicitation
from harvest.chat.pricing import Price
from harvest.chat.reply import Form, join_votes, parse
from harvest.teachers.base import Reply, Request
from harvest.teachers.batch.ledger import Job, JobRow
from harvest.teachers.batch.protocols.base import BatchProtocol, Terms
from harvest.teachers.batch.results import Outcome
from harvest.teachers.endpoint.asker import ModelCheck
from harvest.teachers.endpoint.bill import Bill
from harvest.teachers.endpoint.budget import Budget, Worst
from harvest.teachers.endpoint.questions import Questions
from harvest.teachers.endpoint.secret import Secret
from shared.console import say
from shared.schema import Answer, Status, sum_costs


def make_custom_id(key: str, vote: int) -> str:
    """The custom id of a request: its row's key, which is 64 characters long, as many as providers take.

    A further vote has the key in base64url and its number.
    """
    if not vote:
        return key
    return f"{urlsafe_b64encode(bytes.fromhex(key)).decode().rstrip('=')}-{vote}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """The requests of one row, each with its line, and about how many tokens they count in a queue."""

    rows: Sequence[JobRow]
    lines: Sequence[bytes]
    tokens: int


class BatchBill:
    """What the requests of jobs cost: the provider's share of the usual price.

    Where not each of its models has that share, the budget counts the usual price.
    """

    def __init__(self, usual: Price | None, terms: Terms, budget: Budget, check: ModelCheck) -> None:
        self.budget = budget
        self._check = check
        self._factor = 1.0 if terms.certain else terms.share
        self._bill = Bill(scale_price(usual, terms.share) if terms.certain else usual, say)

    def bound(self, rows: Sequence[JobRow]) -> Worst:
        """The most that these requests can cost together."""
        return partial(self._sum, [(row.prompt, row.said * row.answers) for row in rows])

    def _sum(self, tokens: Sequence[tuple[int, int]]) -> float:
        return sum(self._bill.bound(prompt, said) for prompt, said in tokens)

    def settle(self, ticket: int, row: JobRow, raw: bytes, form: Form) -> float | None:
        """Count what a reply cost; what its row says of it."""
        reading = parse(raw, form)
        self._check.see(reading.model)
        cost = self._bill.settle(self.budget, ticket, reading.usage, row.prompt, row.said * row.answers)
        return None if cost is None else cost * self._factor


def scale_price(price: Price | None, share: float) -> Price | None:
    """`price` times `share`; its source says so."""
    if price is None:
        return None
    return Price(
        price.input_usd * share,
        price.output_usd * share,
        price.cached_input_usd * share,
        f"--batch: {share:g} of the ordinary route's by {price.source}",
    )


class BatchAsker:
    """Makes a task's examples requests of jobs, and their outcomes answers."""

    def __init__(
        self,
        questions: Questions,
        elicitation: Elicitation,
        votes: int,
        protocol: BatchProtocol,
        bill: BatchBill,
        secret: Secret,
    ) -> None:
        self._questions, self._protocol, self._bill, self._secret = questions, protocol, bill, secret
        wanted = votes if elicitation.scoring is Scoring.VOTES else 1
        # As many answers at once as the server gives.
        self._answers = [wanted] if elicitation.dialect.several else [1] * wanted

    async def prepare(self, request: Request, attempt: int) -> Prepared:
        """The requests of a row. Raises DataError where it cannot be drawn."""
        question = await self._questions.prepare(request.example)
        rows, lines = [], []
        for vote, answers in enumerate(self._answers):
            custom_id = make_custom_id(request.key, vote)
            body = self._questions.write_body(question, request.key, answers)
            said, images = self._questions.max_tokens, question.image_sha256
            row = JobRow(request.key, custom_id, vote, answers, question.prompt_bound, said, attempt, images)
            rows.append(row)
            lines.append(self._protocol.write_line(custom_id, body))
        return Prepared(rows, lines, question.prompt_guess * len(rows))

    def answer(
        self, request: Request, job: Job, ended: Sequence[tuple[JobRow, Outcome]], tickets: Sequence[int]
    ) -> Reply:
        """The answer to a row whose requests have `ended`; its tickets, one a request, are settled."""
        costs: list[float | None] = []
        raws = []
        for (row, outcome), ticket in zip(ended, tickets, strict=True):
            if outcome.raw is None:
                self._bill.budget.settle(ticket, 0.0)
            else:
                raws.append(outcome.raw)
                costs.append(self._bill.settle(ticket, row, outcome.raw, self._questions.form))
        first = ended[0][0]
        answer = self._read(raws) if raws else _fail([outcome for _, outcome in ended], first.attempt)
        answer = replace(
            answer,
            image_sha256=first.image_sha256,
            cost_usd=sum_costs(costs),
            asked_at=job.asked_at,
            attempts=first.attempt * len(ended),
        )
        return Reply(request, self._secret.clean_answer(answer))

    def _read(self, raws: Sequence[bytes]) -> Answer:
        """Whatever votes came are used: they were paid for."""
        return parse(raws[0] if len(raws) == 1 else join_votes(raws), self._questions.form).answer


def _fail(outcomes: Sequence[Outcome], attempts: int) -> Answer:
    fault = next((outcome.fault for outcome in outcomes if outcome.fault is not None), None)
    if fault is not None:
        return Answer(Status.REFUSED if fault.content else Status.FAILED, error=fault.message)
    times = "one job" if attempts == 1 else f"{attempts} jobs"
    return Answer(Status.FAILED, error=f"not answered in {times} (--attempts): {outcomes[0].unrun}")


def group_rows(job: Job) -> Iterator[tuple[str, list[tuple[int, JobRow]]]]:
    """The requests of each key of a job, with their numbers in it: they stand together."""
    group: list[tuple[int, JobRow]] = []
    for number, row in enumerate(job.rows):
        if group and group[0][1].key != row.key:
            yield group[0][1].key, group
            group = []
        group.append((number, row))
    if group:
        yield group[0][1].key, group
