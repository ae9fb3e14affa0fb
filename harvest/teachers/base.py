"""The protocol that every teacher keeps.

A teacher takes a stream of requests and gives back a stream of replies in any order. Batching, concurrency and retries
are its own affair; durability, resume, budget and progress are the engine's.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from shared.example import Example
from shared.schema import Answer

# Reads a row's kept `raw` again, without asking: what its bytes say, by column of the row. What they do not say stays
# as it is. A teacher whose rows have a `raw` has a static method `make_reread`, from a recipe to this.
Reread: TypeAlias = Callable[[bytes], Mapping[str, Any]]

# Makes sure that the run may still ask (Remote.use_folder).
Confirm: TypeAlias = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a teacher. `key` is the sha256 of all that changes the answer (shared.keys)."""

    key: str
    example: Example
    draw: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request; `pictures` are files to keep beside it, by the sha256 of their bytes.

    `audio` is a WAV file to keep, by the request's key.
    """

    request: Request
    answer: Answer
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    audio: bytes | None = None


# One answer after the other, or as a record batch of shared.schema.answer_schema.
Answers: TypeAlias = Sequence[Answer] | pa.RecordBatch


@dataclass(frozen=True, slots=True)
class ReplyBatch:
    """The answers to several requests, in their order; `pictures` and `audio` of all of them, as in a Reply.

    `audio` is by the key of its request.
    """

    requests: Sequence[Request]
    answers: Answers
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    audio: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one request will about take, or many together, known before anything is sent.

    Tokens of what is written, of the pictures, and of the answer; US dollars, None where no price is known; and the
    bytes of the row on disk.
    """

    input_tokens: float = 0.0
    image_tokens: float = 0.0
    output_tokens: float = 0.0
    cost_usd: float | None = 0.0
    bytes: float = 0.0


def estimate_bytes(example: Example, answer: float) -> float:
    """About how many bytes a row takes on disk, compressed, whose answer takes `answer`.

    Beside it about 70 bytes of key, counts and times (the columns' sizes in the shards that benchmarks/plan.py builds),
    and half of the text, which is generous.
    """
    return 70 + (len(example.text) + len(example.text_pair or "")) / 2 + answer


def find_draw_problem(teacher: "Teacher") -> str | None:
    """Why several answers to one request would be the same; None where they may differ.

    A teacher that can give several says so by a property `why_no_draws`, which gives this.
    """
    problem: str | None = getattr(teacher, "why_no_draws", f"the teacher {teacher.name} answers the same each time")
    return problem


def find_requests_a_row(teacher: "Teacher") -> float:
    """About how many requests a row takes.

    A teacher whose rows take several says so by a property `requests_a_row`.
    """
    return float(getattr(teacher, "requests_a_row", 1.0))


def sees_pictures(teacher: "Teacher") -> bool:
    """Whether the teacher is shown the pictures that rows have of their own.

    A teacher that is says so by a property `sees_pictures`. Its `content` then names them by their hashes, and its
    answers are those to them (harvest.pictures).
    """
    return bool(getattr(teacher, "sees_pictures", False))


def find_memory(teacher: "Teacher") -> str | None:
    """What memory a teacher takes that loads a model here, in words for a plan; None where it does not say.

    One that knows before it loads anything says so by a property `memory`.
    """
    memory: str | None = getattr(teacher, "memory", None)
    return memory


def find_progress(teacher: "Teacher") -> str:
    """How a teacher that answers in several places is doing there, in one short line; "" of any other.

    One that does says so by a property `progress`.
    """
    progress: str = getattr(teacher, "progress", "")
    return progress


def find_maybe_billed(teacher: "Teacher") -> float:
    """US dollars that requests without a reply may have cost beside what rows say, at most.

    A teacher whose endpoint may bill for a request that broke off says so by its remote part's `maybe_billed_usd`.
    """
    amount: float = getattr(teacher.remote, "maybe_billed_usd", 0.0)
    return amount


def stream_batches(teacher: "Teacher", requests: AsyncIterator[Request]) -> AsyncGenerator[ReplyBatch, None]:
    """Have a teacher answer, and give its replies as batches: of one each, unless it makes batches itself.

    A teacher that has many answers at once, as columns, gives them by a method `answer_batches`, of which `answer` is
    the same one by one.
    """
    own: Callable[[AsyncIterator[Request]], AsyncGenerator[ReplyBatch, None]] | None
    own = getattr(teacher, "answer_batches", None)
    return _wrap_replies(teacher, requests) if own is None else own(requests)


async def take_requests(requests: AsyncIterator[Request], count: int) -> Sequence[Request]:
    """Take up to `count` requests, at least one where more come; at once where their source has a method `take`."""
    take: Callable[[int], Awaitable[Sequence[Request]]] | None = getattr(requests, "take", None)
    if take is not None:
        return await take(count)
    taken: list[Request] = []
    while len(taken) < count and (request := await anext(requests, None)) is not None:
        taken.append(request)
    return taken


async def _wrap_replies(teacher: "Teacher", requests: AsyncIterator[Request]) -> AsyncGenerator[ReplyBatch, None]:
    async with aclosing(teacher.answer(requests)) as replies:
        async for reply in replies:
            audio = {} if reply.audio is None else {reply.request.key: reply.audio}
            yield ReplyBatch((reply.request,), (reply.answer,), reply.pictures, audio)


def find_unanswered_cost(teacher: "Teacher") -> float:
    """US dollars that were paid for rows which were begun and not answered: no row says them.

    A teacher that asks several requests a row says so by its remote part's `unanswered_usd`.
    """
    amount: float = getattr(teacher.remote, "unanswered_usd", 0.0)
    return amount


def make_seed(key: str) -> int:
    """The seed of the request of that key, 31 bits: another one for each draw, and the same in every run."""
    return int.from_bytes(sha256(key.encode()).digest()[:4]) >> 1


class Teacher(Protocol):
    """What the engine needs of a teacher. Building one is cheap: heavy imports and weights wait until `answer` runs."""

    @property
    def name(self) -> str:
        """The name under which its shards are kept: `teacher=<name>/`."""

    def recipe(self) -> Mapping[str, Any]:
        """All that changes any answer, as JSON: model, revision, prompt, layout, generation parameters. No secrets.

        Its "teacher" is the name of the registry's entry, by which `harvest reparse` finds what reads its rows.
        """

    def content(self, example: Example) -> Mapping[str, Any]:
        """All of one request that changes its answer, as JSON. Cheap and pure: called for every planned row.

        Raises DataError where the example cannot be asked (a character that no font draws, say); the row then
        becomes a failed row with that message, and nothing is sent for it.
        """

    def estimate(self, example: Example) -> Estimate:
        """About what one request takes. Cheap and pure: called for every row that a plan would ask; draws no page."""

    def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Ask, and yield one reply a request, in any order. Pulls requests as it has room for them.

        What goes wrong with one request is a Reply whose status says so. What goes wrong with all of them
        (weights that cannot be loaded, an endpoint that refuses the key) raises TeacherError or SourceError.
        """

    @property
    def remote(self) -> "Remote | None":
        """What a teacher behind a network and a bill has beside this; None for one that computes here, for nothing."""

    async def aclose(self) -> None:
        """End what it has started (engines, workers) and let go of what it has loaded.

        Called once a run is over, however it ends; nothing is being answered then. Needs no event loop that it has
        seen before. What it has answered stays.
        """


@dataclass(frozen=True, slots=True)
class Probe:
    """What one real request before the run showed, and its answer, which is that of the example's row.

    `pictures` are as in a Reply.
    """

    notices: tuple[str, ...]
    answer: Answer
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deferred:
    """Of a teacher whose answers come hours later: they take at most `hours`, and cost `share` of the usual price.

    What was asked goes on while no run waits for it, and a later run takes it up.
    """

    share: float
    hours: float


class Remote(Protocol):
    """The part of a teacher behind a network and a bill: what it may cost, and how it is going."""

    @property
    def deferred(self) -> Deferred | None:
        """What is other where its answers come hours later; None where they come at once."""

    @property
    def resolved(self) -> bool:
        """Whether the recipe is known already, or waits for `adopt` or `probe` to choose what was left to "auto"."""

    @property
    def stopped(self) -> str | None:
        """Why `answer` ended before all requests were answered: a budget, say. The rows stay unasked."""

    @property
    def unsettled(self) -> Collection[str]:
        """Keys of requests that may be billed, and whose next attempt an end of the run forbade."""

    def use_folder(self, folder: Path, confirm: Confirm) -> None:
        """Keep in `folder`, its own, what must outlast a kill, and await `confirm` before each request that is billed.

        Where the folder is another run's by then, `end` has been called when it returns. Called before `answer`.
        """

    def check_access(self) -> None:
        """Raise UsageError where nothing can be sent, for want of a key. Sends nothing."""

    def end(self) -> None:
        """Send nothing more, nor wait to. What is in flight may arrive. Called in the event loop of `answer`."""

    def abandon(self) -> None:
        """Break off what is in flight. `answer` still yields what has arrived, for it is paid for, and then ends.

        Called in the event loop of `answer`.
        """

    def adopt(self, recipe: Mapping[str, Any]) -> None:
        """Take over from an existing folder's recipe what was left to "auto". Asks nothing."""

    async def probe(self, example: Example, note: Callable[[str], None]) -> Probe:
        """Ask about one example; raise TeacherError that names what the endpoint lacks and what would work.

        `note` is called with the key of each request before it leaves.
        """

    def describe_price(self) -> str | None:
        """The prices that estimates are made with and where they come from, None where none is known."""

    def bound_seconds(self, requests: float, tokens: float, latency_ms: float | None) -> float | None:
        """Seconds that so many requests and tokens take at least, under the ceilings of pace that the user set.

        `latency_ms` is that of one reply where it was measured. None where nothing bounds them.
        """

    def describe_progress(self) -> str:
        """One short line for the live display: rate, requests in flight, cooldowns, errors by cause, spend."""
