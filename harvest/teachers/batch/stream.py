"""Requests to replies by way of jobs, which are filled and submitted as far as limits go, and taken up again."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

from harvest.teachers.base import Reply, Request
from harvest.teachers.batch.asking import BatchAsker, BatchBill, Prepared, group_rows
from harvest.teachers.batch.http import EndedError
from harvest.teachers.batch.ledger import Job, JobRow, JobWriter, Ledger
from harvest.teachers.batch.protocols.base import Terms
from harvest.teachers.batch.results import Results
from harvest.teachers.batch.runner import JobRunner
from harvest.teachers.endpoint.config import EndpointConfig
from shared.console import say
from shared.errors import DataError
from shared.schema import Answer, Status


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may hold, how many there may be at once, and how many tokens they may count in the queue.

    `attempts` bounds the jobs that a row is put in.
    """

    rows: int
    bytes: int
    jobs: int
    tokens: int | None
    attempts: int


@dataclass(slots=True)
class _Taken:
    """A job that this run waits for: its rows by key, what it brought once it has ended, and who waits for which row.

    `tickets` are those of the budget, by key.
    """

    job: Job
    rows: dict[str, list[tuple[int, JobRow]]]
    tickets: dict[str, list[int]]
    waiting: dict[str, Request] = field(default_factory=dict)
    results: Results | None = None


@dataclass(frozen=True, slots=True)
class _Ended:
    """A row that is ready: its job has its requests' outcomes; or there is an answer for which nothing was sent."""

    request: Request
    taken: _Taken | None = None
    answer: Answer | None = None


class JobStream:
    """Asks a stream of requests in jobs. `jobs` are those of earlier runs that may bring answers."""

    def __init__(
        self,
        asker: BatchAsker,
        bill: BatchBill,
        ledger: Ledger,
        runner: JobRunner,
        limits: Limits,
        jobs: Sequence[Job],
        ended: asyncio.Event,
    ) -> None:
        self._asker, self._bill, self._ledger, self._runner = asker, bill, ledger, runner
        self._budget = bill.budget
        self._limits, self._ended = limits, ended
        self._fatal: Exception | None = None  # what ended the run, first
        self._earlier: dict[str, Job] = {row.key: job for job in jobs for row in job.rows}  # by key: the newest
        self._held = {job.name: self._budget.hold(bill.bound(job.rows)) for job in jobs}
        self._taken: dict[str, _Taken] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: list[tuple[Request, int]] = []
        self._ready: asyncio.Queue[_Ended | None] = asyncio.Queue()
        self._changed = asyncio.Event()  # a job has ended, a row is settled, or the run is to end
        self._writer: JobWriter | None = None
        self._written: list[tuple[Request, Prepared, list[int]]] = []  # what the writer holds
        self._elsewhere = 0
        self._feeding: asyncio.Task[None] | None = None

    async def run(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """The replies, in the order in which they come.

        Ends when the requests or the budget end, or the run is told to. Raises what stopped it after all that has
        arrived.
        """
        self._feeding = asyncio.create_task(self._feed_and_end(requests))
        try:
            while (ended := await self._ready.get()) is not None:
                yield self._answer(ended)
                self._changed.set()
            await self._feeding
            if self._fatal is not None:
                raise self._fatal
        finally:
            self._feeding.cancel()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(self._feeding, *self._tasks.values(), return_exceptions=True)
            for taken in self._taken.values():
                taken.job.let_go()

    def end(self) -> None:
        """Submit nothing more, and wait for nothing: jobs go on at the provider."""
        self._ended.set()
        self._changed.set()

    def abandon(self) -> None:
        """As `end`, and do not wait for a job that is being made: the next run finds it."""
        self.end()
        for task in self._tasks.values():
            task.cancel()

    def count_waiting(self) -> int:
        """Rows that are in jobs, and not answered yet."""
        return sum(len(taken.waiting) for taken in self._taken.values())

    async def _feed_and_end(self, requests: AsyncIterator[Request]) -> None:
        try:
            await self._feed(requests)
        except EndedError:
            pass
        except Exception as error:
            self._fatal = self._fatal or error
        finally:
            self._ended.set()
            self._discard()
            await self._end_jobs()
            self._say_left()
            self._ready.put_nowait(None)

    async def _feed(self, requests: AsyncIterator[Request]) -> None:
        """Fill jobs with all requests, then with what is to be asked again, until every row is answered."""
        async for request in requests:
            await self._feed_again()
            if request.key in self._earlier:
                self._take_up(request, self._earlier[request.key])
            else:
                await self._add(request, 1)
            if self._ended.is_set() or self._budget.stopped is not None:
                break
        while not self._ended.is_set():
            await self._feed_again()
            await self._submit()
            if not self._tasks and not self._again:
                return
            await self._wait()

    async def _feed_again(self) -> None:
        while self._again:
            await self._add(*self._again.pop())

    async def _wait(self) -> None:
        """Wait until something has changed. Raises EndedError where the run is to end."""
        await self._changed.wait()
        self._changed.clear()
        if self._ended.is_set():
            raise EndedError

    async def _add(self, request: Request, attempt: int) -> None:
        """Put a row's requests into the job that is being written; first submit that one where it is full."""
        if self._budget.stopped is not None:
            return
        try:
            prepared = await self._asker.prepare(request, attempt)
        except DataError as error:
            self._ready.put_nowait(_Ended(request, answer=Answer(Status.FAILED, error=str(error))))
            return
        size = sum(len(line) + 1 for line in prepared.lines)
        if size > self._limits.bytes or len(prepared.rows) > self._limits.rows:
            problem = f"the request has {size:,} bytes, and a job may have {self._limits.bytes:,}"
            self._ready.put_nowait(_Ended(request, answer=Answer(Status.FAILED, error=problem)))
            return
        if self._is_over(len(prepared.rows), size, prepared.tokens):
            await self._submit()
        tickets = await self._reserve(prepared)
        if tickets is None:
            return
        if self._writer is None:
            self._writer = JobWriter(self._ledger.folder)
        for number, (row, line) in enumerate(zip(prepared.rows, prepared.lines, strict=True)):
            self._writer.add(row, line, 0 if number else prepared.tokens)
        self._written.append((request, prepared, tickets))

    def _is_over(self, rows: int, size: int, tokens: int) -> bool:
        writer, limits = self._writer, self._limits
        if writer is None:
            return False
        is_full = len(writer.rows) + rows > limits.rows or writer.bytes + size > limits.bytes
        return is_full or (limits.tokens is not None and writer.tokens + tokens > limits.tokens)

    async def _reserve(self, prepared: Prepared) -> list[int] | None:
        """A ticket for each request of a row; None where the budget ends here.

        Where there is no room what is written is submitted, and what comes of it may make some.
        """
        worst = self._bill.bound(prepared.rows)
        while not self._budget.fits(worst, len(prepared.rows)):
            await self._submit()
            if not self._tasks and self._ready.empty():
                self._budget.stop(worst)
                return None
            await self._wait()
        tickets = [await self._budget.reserve(self._bill.bound([row])) for row in prepared.rows]
        return [ticket for ticket in tickets if ticket is not None]

    async def _submit(self) -> None:
        """Submit the job that is being written, once there may be another."""
        writer = self._writer
        if writer is None:
            return
        limits = self._limits
        while self._tasks and (
            len(self._tasks) >= limits.jobs
            or (limits.tokens is not None and self._count_queued() + writer.tokens > limits.tokens)
        ):
            await self._wait()
        job = await asyncio.to_thread(writer.close)
        self._writer, written, self._written = None, self._written, []
        tickets = {request.key: tickets for request, _, tickets in written}
        taken = _Taken(job, dict(group_rows(job)), tickets, {request.key: request for request, _, _ in written})
        self._start(taken)

    def _count_queued(self) -> int:
        return sum(self._taken[name].job.state.tokens for name in self._tasks)

    def _take_up(self, request: Request, job: Job) -> None:
        """Wait for a row in a job of an earlier run. Where another process has that job, the row is left to it."""
        if job.name not in self._taken:
            if not job.take():
                self._elsewhere += 1
                return
            self._budget.settle(self._held.pop(job.name), 0.0)
            rows = dict(group_rows(job))
            tickets = {key: self._hold(group) for key, group in rows.items()}
            self._start(_Taken(job, rows, tickets))
        taken = self._taken[job.name]
        taken.waiting[request.key] = request
        if taken.results is not None:
            taken.tickets[request.key] = self._hold(taken.rows[request.key])
            self._deliver(taken, request.key)

    def _hold(self, group: Sequence[tuple[int, JobRow]]) -> list[int]:
        return [self._budget.hold(self._bill.bound([row])) for _, row in group]

    def _start(self, taken: _Taken) -> None:
        self._taken[taken.job.name] = taken
        self._tasks[taken.job.name] = asyncio.create_task(self._finish(taken))

    async def _finish(self, taken: _Taken) -> None:
        """Bring a job to its end, and hand on what it brought to those who wait."""
        try:
            taken.results = await self._runner.finish(taken.job)
            for key in [key for key in taken.tickets if key not in taken.waiting]:  # nobody has asked for them yet
                for ticket in taken.tickets.pop(key):
                    self._budget.settle(ticket, 0.0)
            for key in list(taken.waiting):
                self._deliver(taken, key)
        except EndedError:
            pass
        except Exception as error:
            self._fatal = self._fatal or error
            self.end()
        finally:
            del self._tasks[taken.job.name]
            self._changed.set()

    def _deliver(self, taken: _Taken, key: str) -> None:
        """Hand on what a row's requests came to; have it asked again where none of them was run."""
        assert taken.results is not None
        results, group = taken.results, taken.rows[key]
        request = taken.waiting.pop(key)
        unrun = all(results.is_unrun(row.custom_id, number) for number, row in group)
        if unrun and group[0][1].attempt < self._limits.attempts:
            for ticket in taken.tickets.pop(key):
                self._budget.settle(ticket, 0.0)
            self._again.append((request, group[0][1].attempt + 1))
            self._changed.set()
            return
        self._ready.put_nowait(_Ended(request, taken))

    def _answer(self, ended: _Ended) -> Reply:
        if ended.taken is None:
            assert ended.answer is not None
            return Reply(ended.request, ended.answer)
        taken, key = ended.taken, ended.request.key
        assert taken.results is not None
        outcomes = [(row, taken.results.find(row.custom_id, number)) for number, row in taken.rows[key]]
        return self._asker.answer(ended.request, taken.job, outcomes, taken.tickets.pop(key))

    def _discard(self) -> None:
        """Take back what was written and not submitted: it was not sent."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
        for _, _, tickets in self._written:
            for ticket in tickets:
                self._budget.give_back(ticket)
        self._written = []

    async def _end_jobs(self) -> None:
        """Stop waiting for jobs; one that is being made is waited for, so that its name is known."""
        for name, task in self._tasks.items():
            if name not in self._runner.creating:
                task.cancel()
        await asyncio.gather(*list(self._tasks.values()), return_exceptions=True)

    def _say_left(self) -> None:
        rows = self.count_waiting()
        if rows:
            jobs = sum(bool(taken.waiting) for taken in self._taken.values())
            say(
                f"{rows:,} requests are in {jobs:,} jobs, which go on at the provider once they are submitted: the "
                "same command takes them up again (`harvest status` lists them)"
            )
        if self._elsewhere:
            say(f"{self._elsewhere:,} rows are in jobs that another process waits for; they are left to it")


def fit_limits(config: EndpointConfig, terms: Terms) -> Limits:
    """The limits that the user set, within the provider's."""
    rows = min(config.job_rows or terms.rows, terms.rows)
    return Limits(rows, terms.bytes, config.jobs, config.queue_tokens, config.attempts)
