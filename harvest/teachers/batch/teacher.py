"""The endpoint's teacher by way of a provider's batch route: the same keys and rows, within a day, for less."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from harvest.chat.pricing import find_price
from harvest.teachers.base import Confirm, Deferred, Estimate, Probe, Remote, Reply, Request, Reread
from harvest.teachers.batch.asking import BatchAsker, BatchBill
from harvest.teachers.batch.collected import find_collected
from harvest.teachers.batch.http import FIRST_WAIT_SECONDS, BatchHttp
from harvest.teachers.batch.ledger import Job, Ledger
from harvest.teachers.batch.protocols import PROTOCOLS
from harvest.teachers.batch.runner import JobRunner
from harvest.teachers.batch.stored import StoredJobs
from harvest.teachers.batch.stream import JobStream, fit_limits
from harvest.teachers.endpoint.asker import ModelCheck
from harvest.teachers.endpoint.config import AUTO, EndpointConfig
from harvest.teachers.endpoint.secret import read_secret
from harvest.teachers.endpoint.teacher import EndpointTeacher
from shared.console import say
from shared.errors import StoreError, TeacherError, UsageError
from shared.example import Example
from shared.shards.publish import is_published
from shared.tasks import Task


class BatchTeacher:
    """Asks `task`'s question in jobs of a batch route (harvest.teachers.base: it is its own `remote` part).

    What is asked, what the recipe says and how replies are read are an EndpointTeacher's, whose probe, an ordinary
    request at the ordinary price, finds out what was left to "auto". Raises UsageError as that does, and where the
    dialect has no batch route.
    """

    def __init__(self, config: EndpointConfig, task: Task, *, name: str = "endpoint") -> None:
        by_host = "" if config.host is None else config.host.name
        dialect = by_host if config.dialect == AUTO else config.dialect
        if dialect not in PROTOCOLS:
            known = f"the dialect {dialect} has none" if dialect else f"{config.base_url} is none of theirs"
            raise UsageError(
                f"--batch needs a provider's batch route, and {known}: there are {', '.join(PROTOCOLS)} (--dialect)"
            )
        if config.keep_images:
            raise UsageError("--batch keeps no pictures: the rows come back after those that were sent are gone")
        self._protocol = PROTOCOLS[dialect]
        self._config = config
        self._endpoint = EndpointTeacher(config, task, name=name)
        self._usual = find_price(config.model, config.base_url, config.price_in, config.price_out)
        self._bill = BatchBill(self._usual, self._protocol.terms, self._endpoint.budget, ModelCheck(config.model))
        self._faults = Counter[str]()
        self._folder: Path | None = None
        self._confirm: Confirm | None = None
        self._stream: JobStream | None = None
        self._runner: JobRunner | None = None

    @staticmethod
    def make_reread(recipe: Mapping[str, Any]) -> Reread:
        """What reads a kept reply of `recipe` again: the endpoint's."""
        return EndpointTeacher.make_reread(recipe)

    @property
    def why_no_draws(self) -> str | None:
        """Why a second draw would be no other than the first; None where it may be."""
        return self._endpoint.why_no_draws

    @property
    def sees_pictures(self) -> bool:
        """Whether it is shown the pictures that rows have of their own."""
        return self._endpoint.sees_pictures

    @property
    def remote(self) -> Remote:
        """Itself: probe, prices and progress."""
        return self

    @property
    def name(self) -> str:
        """The name under which its shards are kept: the ordinary route's, for the rows are the same."""
        return self._endpoint.name

    @property
    def deferred(self) -> Deferred:
        """The provider's share of the price, and its time."""
        return Deferred(self._protocol.terms.share, self._protocol.terms.hours)

    @property
    def resolved(self) -> bool:
        """Whether the recipe is known."""
        return self._endpoint.resolved

    @property
    def stopped(self) -> str | None:
        """Why the budget ended the run, None where it did not."""
        return self._endpoint.stopped

    @property
    def unsettled(self) -> Collection[str]:
        """None: what may be billed is in a job that the ledger knows."""
        return frozenset()

    def use_folder(self, folder: Path, confirm: Confirm) -> None:
        """Keep the ledger of jobs in `folder`, and await `confirm` before a job is made."""
        self._folder, self._confirm = folder, confirm

    def check_access(self) -> None:
        """Raise UsageError where the key that requests need is not set, or cannot be one."""
        self._endpoint.check_access()

    def recipe(self) -> Mapping[str, Any]:
        """The ordinary route's: the same question brings the same answer."""
        return self._endpoint.recipe()

    def content(self, example: Example) -> Mapping[str, Any]:
        """As the ordinary route is asked."""
        return self._endpoint.content(example)

    def adopt(self, recipe: Mapping[str, Any]) -> None:
        """Take over from an existing folder's recipe what was left to "auto"."""
        self._endpoint.adopt(recipe)

    async def probe(self, example: Example, note: Callable[[str], None]) -> Probe:
        """Ask about one example by the ordinary route, at its price."""
        return await self._endpoint.probe(example, note)

    def estimate(self, example: Example) -> Estimate:
        """The ordinary route's, for less."""
        usual = self._endpoint.estimate(example)
        return replace(usual, cost_usd=None if usual.cost_usd is None else usual.cost_usd * self._protocol.terms.share)

    async def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Ask in jobs, and yield replies as jobs end; take up the jobs of earlier runs.

        Raises TeacherError where the provider refuses all, after what has arrived has been yielded.
        """
        elicitation = self._endpoint.elicitation
        if elicitation is None or self._folder is None or self._confirm is None:
            raise TeacherError("the endpoint was not probed, or has no folder for its jobs")
        config, protocol, confirm = self._config, self._protocol, self._confirm
        secret = read_secret(self._endpoint.key_variable)
        ended = asyncio.Event()
        stored = StoredJobs(self._folder)
        await asyncio.to_thread(stored.fetch)
        ledger = await asyncio.to_thread(Ledger, self._folder)
        jobs = await asyncio.to_thread(self._list_open, self._folder, ledger)
        headers, first_wait = partial(protocol.headers, secret.value), min(FIRST_WAIT_SECONDS, config.poll)
        with ThreadPoolExecutor(os.cpu_count(), "draw") as pool:
            async with BatchHttp(config, secret, headers, ended, self._faults, first_wait) as http:
                runner = self._runner = JobRunner(
                    http, protocol, ledger, stored, ended, confirm, config.poll, config.attempts
                )
                questions = self._endpoint.make_questions(elicitation, pool)
                asker = BatchAsker(questions, elicitation, config.votes, protocol, self._bill, secret)
                limits = fit_limits(config, protocol.terms)
                self._stream = JobStream(asker, self._bill, ledger, runner, limits, jobs, ended)
                async with aclosing(self._stream.run(requests)) as replies:
                    async for reply in replies:
                        yield reply

    def _list_open(self, folder: Path, ledger: Ledger) -> list[Job]:
        """The jobs of earlier runs that may bring answers; says how many there are."""
        collected = {job.name for job in find_collected(folder, ledger.jobs)}
        jobs = [job for job in ledger.jobs if job.name not in collected]
        if jobs:
            say(f"{sum(job.state.keys for job in jobs):,} requests in {len(jobs):,} jobs of earlier runs are taken up")
        return jobs

    def end(self) -> None:
        """Submit nothing more, and wait for nothing: jobs go on at the provider."""
        if self._stream is not None:
            self._stream.end()

    def abandon(self) -> None:
        """As `end`, without waiting for a job that is being made; the next run finds it."""
        if self._stream is not None:
            self._stream.abandon()

    async def aclose(self) -> None:
        """Remove the jobs all of whose answers are kept."""
        await self._endpoint.aclose()
        if self._folder is not None:
            await asyncio.to_thread(self._remove_collected, self._folder)

    def _remove_collected(self, folder: Path) -> None:
        ledger, stored = Ledger(folder), StoredJobs(folder)
        if stored.is_used and not is_published(folder):
            return
        for job in find_collected(folder, ledger.jobs):
            if job.take():
                with suppress(StoreError):  # the next run does
                    stored.remove(job)
                    ledger.remove(job)

    def describe_price(self) -> str | None:
        """The batch route's prices, and the ordinary route's that they are a share of."""
        usual = self._usual
        if usual is None:
            return None
        share = self._protocol.terms.share
        dollars = [f"${one * 1e6:g}" for one in (usual.input_usd * share, usual.output_usd * share)]
        full = [f"${one * 1e6:g}" for one in (usual.input_usd, usual.output_usd)]
        return (
            f"{dollars[0]} in and {dollars[1]} out a million tokens: by --batch {share:.0%} of the ordinary {full[0]} "
            f"and {full[1]}, {usual.source}"
        )

    def bound_seconds(self, requests: float, tokens: float, latency_ms: float | None) -> float | None:
        """Nothing bounds them from below: a job may take minutes."""
        return None

    def describe_progress(self) -> str:
        """One short line: jobs, what is done of them, spend."""
        runner, stream = self._runner, self._stream
        if runner is None or stream is None:
            return ""
        progress = list(runner.progress.values())
        done, wanted = sum(one.done for one in progress), sum(one.requests for one in progress)
        parts = [f"{len(progress)} jobs, {done:,} of {wanted:,} requests done at the provider"] if progress else []
        parts += [f"{count} {cause}" for cause, count in self._faults.most_common(3)]
        if self._usual is not None:
            parts.append(f"${self._endpoint.budget.spent_usd:.4f}")
        return ", ".join(parts)
