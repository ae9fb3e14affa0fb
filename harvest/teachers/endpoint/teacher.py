"""The teacher behind a chat endpoint: requests in, answers out, each asked once and billed once."""

import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from harvest.chat.dialects import COMPATIBLE, DIALECTS, Scoring, recognise_host
from harvest.chat.elicitation import (
    WRITTEN,
    Elicitation,
    explain_draws,
    find_written,
    is_scored,
    make_words,
    read_elicitation,
    read_words,
    reread,
    wants_number,
)
from harvest.chat.pricing import TEMPLATE_TOKENS, Price, Usage, find_price, guess_image_tokens, guess_tokens
from harvest.chat.prompts import build_prompt, describe_prompt
from harvest.pictures import describe_preparing, fit_size, look_at_row
from harvest.teachers.answering import LOGPROB_BYTES, describe_question
from harvest.teachers.base import Confirm, Estimate, Probe, Remote, Reply, Request, Reread, estimate_bytes
from harvest.teachers.endpoint.asker import Asked, Asker, ModelCheck
from harvest.teachers.endpoint.bill import Bill
from harvest.teachers.endpoint.budget import Budget
from harvest.teachers.endpoint.client import Client
from harvest.teachers.endpoint.config import AUTO, EndpointConfig
from harvest.teachers.endpoint.elicitation import build_parameters, count_logprobs, describe_scoring, limit_tokens
from harvest.teachers.endpoint.limiter import Limiter
from harvest.teachers.endpoint.probe import find_elicitation
from harvest.teachers.endpoint.questions import Questions
from harvest.teachers.endpoint.secret import check_variable, read_secret
from harvest.teachers.endpoint.servers import Server, Servers, describe_servers
from harvest.teachers.endpoint.session import HttpSession
from harvest.teachers.endpoint.stream import Stream
from harvest.teachers.endpoint.words import guess_prompts, guess_requests
from harvest.teachers.tokenizers import PromptTokenizer
from shared.console import say
from shared.descriptors import count_free
from shared.errors import RecipeMismatchError, TeacherError, UsageError
from shared.example import Example
from shared.keys import TOKENIZER, RequestKeys
from shared.options import flatten, spell_flags
from shared.secrets import refuse_secrets
from shared.tasks import Task
from shared.topk import estimate_topk_bytes

PROBE_ATTEMPTS = 2  # somebody is waiting
PROGRESS_SECONDS = 0.5  # how old a progress line may be
# What an answer usually has, whatever its limit: for estimates. A label is more than its word: mark-up, JSON, the end.
LABEL_TOKENS, SEVERAL_LABELS_TOKENS, TEXT_TOKENS = 8, 24, 64


class EndpointTeacher:
    """Asks `task`'s question at an endpoint (harvest.teachers.base: it is its own `remote` part).

    Raises UsageError where the price or the label words cannot be used: a cap on the cost needs a price.
    """

    def __init__(self, config: EndpointConfig, task: Task, *, name: str = "endpoint") -> None:
        if config.max_tokens is None and task.max_reply_tokens is not None:
            config = replace(config, max_tokens=task.max_reply_tokens)
        self._config, self._task, self._name = config, task, name
        self._layout = config.layout
        self._tokenizer = None if config.tokenizer is None else PromptTokenizer(config.tokenizer)
        host = config.host
        self._key_variable = config.api_key_env or (None if host is None else host.key_variable)
        check_variable(self._key_variable)
        spell = spell_flags(EndpointConfig)
        chosen = {spell(option): value for option, value in flatten(config).items()}
        refuse_secrets(
            {**chosen, "--question": task.question, "--label-words": task.label_words, "--name": name},
            self._key_variable,
        )
        self._bill = Bill(_find_price(config), say)
        self._budget = Budget(config.max_cost, config.max_requests)
        if config.max_cost is not None and self.price is None:
            raise UsageError(
                f"--max-cost needs a price, and none is known for {config.model} at {config.base_url}; "
                "give --price-in and --price-out, in US dollars a million tokens"
            )
        self._words = make_words(task)
        most = _fit_concurrency(config.concurrency, len(config.endpoint))
        self._servers = [Server(url, Limiter(most, config.rpm, config.tpm)) for url in config.endpoint]
        self._begun_at = config.base_url  # what the folder was begun at names the endpoint in its recipe
        self._faults = Counter[str]()
        self._confirm: Confirm | None = None
        self._model_check = ModelCheck(config.model)
        self._elicitation = self._choose_elicitation()
        self._progress = (-PROGRESS_SECONDS, "")
        self._client: Client | None = None  # of the stream of answers
        self._stream: Stream | None = None

    @staticmethod
    def make_reread(recipe: Mapping[str, Any]) -> Reread:
        """What reads a kept reply of `recipe` again. Raises UsageError for a recipe of another version."""
        elicitation = read_elicitation(recipe)
        if elicitation is None:
            raise UsageError(
                f"this version does not know replies of the dialect {recipe.get('dialect')!r} and the scoring "
                f"{recipe.get('scoring')}, so there is nothing to read again; use the version that asked for them"
            )
        form = elicitation.make_form(read_words(recipe), numeric=wants_number(recipe), keep_topk=True)
        return partial(reread, form=form)

    @property
    def sees_pictures(self) -> bool:
        """Whether it is shown the pictures that rows have of their own."""
        return self._task.has_pictures and self._config.pictures

    @property
    def why_no_draws(self) -> str | None:
        """Why a second draw would be no other than the first; None where it may be."""
        known = None if self._elicitation is None else self._elicitation.dialect.seed_field
        if "seed" in self._config.body or known in self._config.body:
            return "--body sets one seed for all"
        return explain_draws(self._config.temperature, is_scored(self._words))

    @property
    def remote(self) -> Remote:
        """Itself: probe, prices and progress."""
        return self

    @property
    def name(self) -> str:
        """The name under which its shards are kept."""
        return self._name

    @property
    def price(self) -> Price | None:
        """What its tokens cost, None where nothing is known."""
        return self._bill.price

    @property
    def resolved(self) -> bool:
        """Whether dialect and scoring are known: given, adopted or probed."""
        return self._elicitation is not None

    @property
    def stopped(self) -> str | None:
        """Why the budget ended the run, None where it did not."""
        return self._budget.stopped

    @property
    def deferred(self) -> None:
        """Its answers come at once."""
        return None

    @property
    def elicitation(self) -> Elicitation | None:
        """How it asks, None where that is to be found out."""
        return self._elicitation

    @property
    def budget(self) -> Budget:
        """The caps of its run."""
        return self._budget

    @property
    def key_variable(self) -> str | None:
        """The environment variable that holds its API key; None where it has none."""
        return self._key_variable

    @property
    def maybe_billed_usd(self) -> float:
        """What requests without a reply may cost beside what the rows say, at most."""
        return self._budget.maybe_billed_usd

    @property
    def unanswered_usd(self) -> float:
        """What was paid for rows that were begun and not answered."""
        return self._bill.unanswered_usd

    @property
    def unsettled(self) -> Collection[str]:
        """Keys of requests that may be billed, and whose next attempt an end of the run forbade."""
        return frozenset() if self._client is None else self._client.unsettled

    def check_access(self) -> None:
        """Raise UsageError where the key that requests need is not set, or cannot be one."""
        read_secret(self._key_variable)

    def end(self) -> None:
        """Send nothing more, nor wait to; what is in flight may arrive."""
        if self._client is not None:
            self._client.end()

    def abandon(self) -> None:
        """Break off what is in flight; `answer` yields what has arrived, and ends."""
        if self._stream is not None:
            self._stream.abandon()

    def use_folder(self, folder: Path, confirm: Confirm) -> None:
        """Await `confirm` before each request; nothing of its own outlasts a run."""
        self._confirm = confirm

    def make_questions(self, elicitation: Elicitation, pool: Executor, pictures: bool = True) -> Questions:
        """What makes its examples questions, asked so; it draws in `pool`."""
        return Questions(self._task, self._config, elicitation, self._words, pool, pictures)

    def recipe(self) -> Mapping[str, Any]:
        """All that changes any answer, as JSON. Where not resolved, no folder holds it."""
        return self._describe(self._elicitation)

    def _describe(self, elicitation: Elicitation | None) -> Mapping[str, Any]:
        config = self._config
        return {
            "teacher": "endpoint",
            "endpoint": self._begun_at,
            "model": config.model,
            "dialect": config.dialect if elicitation is None else elicitation.dialect.name,
            "prompt": describe_prompt(self._task, config.draw),
            "layout": None if self._layout is None else self._layout.fingerprint(),
            **describe_preparing(self.sees_pictures, config.longest_side),
            "scoring": {"mode": config.scoring} if elicitation is None else describe_scoring(elicitation, config),
            "parameters": {} if elicitation is None else build_parameters(elicitation, config, self._words),
            **({} if self._tokenizer is None else {TOKENIZER: self._tokenizer.description}),
        }

    def content(self, example: Example) -> Mapping[str, Any]:
        """All of one request that changes its answer.

        Raises DataError for a character that cannot be drawn, and a picture that cannot be shown.
        """
        return describe_question(self._task, example, self._config.draw, sees_pictures=self.sees_pictures)

    def adopt(self, recipe: Mapping[str, Any]) -> None:
        """Take over dialect and scoring from a folder's recipe where they were left to "auto". Asks nothing.

        Raises RecipeMismatchError where the recipe is another kind of teacher's.
        """
        if recipe.get("teacher") != "endpoint":
            raise RecipeMismatchError(
                f"the folder of teacher {self._name!r} holds the answers of a {recipe.get('teacher')!r} teacher, "
                "not of an endpoint; give another --name"
            )
        self._adopt_place(recipe)
        elicitation = read_elicitation(recipe)
        if elicitation is None:
            return  # the folder will be refused by its recipe, before anything is asked
        dialect, scoring = self._config.dialect, self._config.scoring
        if dialect in (AUTO, elicitation.dialect.name) and scoring in (AUTO, elicitation.scoring):
            self._elicitation = elicitation

    def _adopt_place(self, recipe: Mapping[str, Any]) -> None:
        """Name the endpoint as the folder does: where a server stands changes no answer, and its rows stay kept."""
        begun_at = recipe.get("endpoint")
        if begun_at == self._begun_at or not isinstance(begun_at, str) or recipe.get("model") != self._config.model:
            return
        if begun_at not in self._config.endpoint:
            if recognise_host(begun_at) is not self._config.host:
                return  # another provider's: the folder will be refused
            say(
                f"  the answers of {self._name} were begun at {begun_at}, and are gone on with at "
                f"{', '.join(self._config.endpoint)}: as servers of the same model {self._config.model}"
            )
        self._begun_at = begun_at

    async def probe(self, example: Example, note: Callable[[str], None]) -> Probe:
        """Ask about one example and check that all that is needed came back; choose what was left to "auto".

        Each request has the key that it would have in a run that asks so, and is noted before it leaves. Raises
        TeacherError that names what the endpoint lacks and which scoring would work.
        """
        config = replace(self._config, attempts=PROBE_ATTEMPTS)
        content = self.content(example)
        async with self._open_client(config) as client:
            with self._open_askers(client) as make_asker:

                async def ask(elicitation: Elicitation, pictures: bool) -> Asked | None:
                    said = content if pictures else {**content, "pictures": False}
                    key = RequestKeys(self._describe(elicitation)).key(said)
                    note(key)
                    return await make_asker(elicitation, pictures).ask(example, key)

                may_be_cut = self._task.is_written
                shows = self._layout is not None or (self.sees_pictures and bool(example.pictures))
                found = await find_elicitation(
                    client,
                    self._config,
                    self._words,
                    self._elicitation,
                    ask,
                    may_be_cut=may_be_cut,
                    shows=shows,
                    in_writing=self._layout is None and not self.sees_pictures,
                )
        self._elicitation = found.elicitation
        return Probe(found.notices, found.asked.answer, found.asked.originals)

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Ask, and yield replies as they come. Pulls a request only when it may be sent at once.

        Ends early, with no reply for some requests, where the budget ends. Raises TeacherError where no request can
        succeed, after all that was in flight has been yielded.
        """
        if self._elicitation is None:
            raise TeacherError("the endpoint was not probed: nobody knows yet how it gives a label distribution")
        async with self._open_client(self._config) as client:
            self._client = client
            with self._open_askers(client) as make_asker:
                self._stream = Stream(
                    client, make_asker(self._elicitation, True), 2 * self._config.concurrency * len(self._servers)
                )
                async with aclosing(self._stream.run(requests)) as replies:
                    async for reply in replies:
                        yield reply

    async def aclose(self) -> None:
        """Nothing is left to end: each stream of answers closes its connections."""

    def estimate(self, example: Example) -> Estimate:
        """About what one request will take. Cheap: no page is drawn and no picture decoded."""
        config, layout, elicitation = self._config, self._layout, self._elicitation
        prompt = build_prompt(self._task.question, example, config.draw)
        tokens = guess_tokens(prompt.written) + TEMPLATE_TOKENS
        images = 0
        if layout is not None and prompt.drawn is not None:
            pages = layout.guess_pages(prompt.drawn)
            images = pages * guess_image_tokens(config.model, layout.width, layout.height)
        if self.sees_pictures:
            sizes = [fit_size(one.width, one.height, config.longest_side) for one in look_at_row(example)]
            images += sum(guess_image_tokens(config.model, *size) for size in sizes)
        said = min(TEXT_TOKENS, config.max_tokens or TEXT_TOKENS) if self._words is None else self._guess_label()
        answer: float = 4 * said
        if elicitation is not None and config.keep_topk:
            alternatives = count_logprobs(elicitation, config)
            answer += said * LOGPROB_BYTES * alternatives + estimate_topk_bytes(said, alternatives)
        if elicitation is not None and elicitation.scoring is Scoring.TOP_LOGPROBS:
            answer += said * LOGPROB_BYTES * count_logprobs(elicitation, config)
        if self._scoring == Scoring.VOTES:
            said *= config.votes
        if self._scoring == Scoring.WORDS and self._words is not None:
            said = guess_prompts(self._words)
            tokens *= said
        cost = None if self.price is None else self.price.cost(Usage(tokens + images, said))
        return Estimate(tokens, images, said, cost, estimate_bytes(example, answer))

    @property
    def _scoring(self) -> str:
        """The scoring, "auto" before it was found out."""
        return self._config.scoring if self._elicitation is None else self._elicitation.scoring

    @property
    def requests_a_row(self) -> float:
        """About how many requests a row takes: several for whole words, and for votes where each is a request."""
        if self._scoring == Scoring.WORDS and self._words is not None:
            return guess_requests(self._words)
        elicitation = self._elicitation
        each = elicitation is not None and elicitation.scoring is Scoring.VOTES and not elicitation.dialect.several
        return self._config.votes if each else 1

    def _guess_label(self) -> int:
        """About how many tokens an answer by a label, or by several, has: none more than it may have."""
        tokens = LABEL_TOKENS if is_scored(self._words) else SEVERAL_LABELS_TOKENS
        return tokens if self._elicitation is None else min(tokens, limit_tokens(self._elicitation, self._config))

    def describe_price(self) -> str | None:
        """The prices that estimates are made with and where they come from."""
        price = self.price
        if price is None:
            return None
        return f"${price.input_usd * 1e6:g} in and ${price.output_usd * 1e6:g} out a million tokens, {price.source}"

    def bound_seconds(self, requests: float, tokens: float, latency_ms: float | None) -> float | None:
        """Seconds that so many requests take at least under --rpm, --tpm and --concurrency, shared by all servers."""
        config, servers = self._config, len(self._servers)
        bounds = []
        if config.rpm is not None:
            bounds.append(requests / config.rpm / servers * 60)
        if config.tpm is not None:
            bounds.append(tokens / config.tpm / servers * 60)
        if latency_ms is not None:
            bounds.append(latency_ms / 1000 * max(requests / config.concurrency / servers, 1.0))
        return max(bounds, default=None)

    def describe_progress(self) -> str:
        """One short line: rate, requests in flight, cooldown, faults by cause, spend."""
        now = time.monotonic()
        if now - self._progress[0] >= PROGRESS_SECONDS:
            self._progress = (now, self._describe_progress())
        return self._progress[1]

    def _describe_progress(self) -> str:
        limiters, budget = [server.limiter for server in self._servers], self._budget
        in_flight = sum(limiter.in_flight for limiter in limiters)
        parts = [f"{sum(limiter.measure_rate() for limiter in limiters):.0f}/s", f"{in_flight} in flight"]
        if by_server := describe_servers(self._servers):
            parts.append(by_server)
        if (cooldown := min(limiter.cooldown() for limiter in limiters)) > 0:
            parts.append(f"cooling down {cooldown:.1f} s")
        parts += [f"{count} {cause}" for cause, count in self._faults.most_common(3)]
        if self.price is not None:
            parts.append(f"${budget.spent_usd:.4f}")
        if budget.maybe_billed_usd:
            parts.append(f"up to ${budget.maybe_billed_usd:.4f} more may be billed")
        return ", ".join(parts)

    def _choose_elicitation(self) -> Elicitation | None:
        """The elicitation, where the user's words leave nothing to find out."""
        config = self._config
        dialect = config.host if config.dialect == AUTO else DIALECTS[config.dialect]
        written = find_written(self._words)
        chosen = None if config.scoring == AUTO else Scoring(config.scoring)
        if chosen is not None and chosen is not written and (written or chosen in WRITTEN):
            raise UsageError(f"--scoring {config.scoring} does not fit the {self._task.kind} task {self._task.name}")
        if config.scoring == Scoring.WORDS and self.sees_pictures:
            raise UsageError("--scoring words asks in writing: --no-pictures leaves the rows' pictures out")
        scoring = written or config.scoring
        if dialect is None or scoring in (AUTO, Scoring.TOKEN_IDS):
            return None
        return Elicitation(dialect, Scoring(scoring))

    @asynccontextmanager
    async def _open_client(self, config: EndpointConfig) -> AsyncGenerator[Client, None]:
        """A client of all servers. Where there are several, or others than before, they are looked at first."""
        named = None if config.dialect == AUTO else DIALECTS[config.dialect]
        known = None if self._elicitation is None else self._elicitation.dialect
        host = config.host
        # A folder's dialect says what is asked; how a key is shown is the host's, unless the user names another.
        key_header = (named or host or known or COMPATIBLE).key_header
        secret = read_secret(self._key_variable)
        dialect = known or named or host or COMPATIBLE
        sessions = {one: HttpSession(one.url, config, secret, dialect, key_header) for one in self._servers}
        servers = Servers(config.model, sessions, config.patience, has_lists=host is None)
        async with Client(config, secret, servers, self._budget, self._faults, dialect, self._confirm) as client:
            if host is None and (len(self._servers) > 1 or self._begun_at != config.base_url):
                wanted = AUTO if known in (None, COMPATIBLE) else known.name
                await servers.check(None if named is not None else wanted)
            yield client

    @contextmanager
    def _open_askers(self, client: Client) -> Iterator[Callable[[Elicitation, bool], Asker]]:
        with ThreadPoolExecutor(os.cpu_count(), "draw") as pool:

            def make_asker(elicitation: Elicitation, pictures: bool) -> Asker:
                questions = self.make_questions(elicitation, pool, pictures)
                return Asker(questions, self._config, elicitation, client, self._budget, self._bill, self._model_check)

            yield make_asker


def _find_price(config: EndpointConfig) -> Price | None:
    """The price at all servers. Raises UsageError where it is not the same at each."""
    prices = {find_price(config.model, url, config.price_in, config.price_out) for url in config.endpoint}
    if len(prices) > 1:
        raise UsageError(
            f"{config.model} does not cost the same at {', '.join(config.endpoint)}: give --price-in and --price-out, "
            "the highest, in US dollars a million tokens"
        )
    return prices.pop()


def _fit_concurrency(wanted: int, servers: int) -> int:
    """As many requests in flight at each server as this process may have connections; says so where those are fewer."""
    free = count_free() // servers
    if free < wanted:
        each = "" if servers == 1 else f" at each of {servers} servers"
        say(
            f"--concurrency {wanted} is {free} here{each}: this process may open no more files and connections (ulimit "
            "-n, its hard limit)"
        )
    return max(min(wanted, free), 1)
