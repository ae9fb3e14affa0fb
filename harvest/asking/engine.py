"""Carries out a plan: asks the teacher, makes every reply durable, and knows how it went.

What the engine guarantees, whichever teacher it drives: a reply is acknowledged only when it survives a crash; a
request that is kept is never made again; one bad row never stops a run, a bad share of rows does; an interrupt lets
what is in flight arrive; whatever but the disk ends a run, a reply of a remote teacher that has arrived is kept.
"""

import asyncio
import signal
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, repeat

from harvest.asking.audio import keep_audio
from harvest.asking.commit import GroupCommit
from harvest.asking.feed import PlannedRow, RequestFeed
from harvest.asking.garbage import spare_collector
from harvest.asking.inflight import InFlightLog
from harvest.asking.interrupt import DRAIN_SECONDS, Interrupt
from harvest.asking.pictures import keep_pictures
from harvest.asking.plan import Action, Plan, request_key
from harvest.asking.planned import AnsweredRows, AnswerOutcome, Place, list_outcomes, place_answers
from harvest.asking.reserve import NEARLY_FULL, RESERVE_BYTES, DiskReserve
from harvest.teachers.base import ReplyBatch, Request, Teacher, find_progress, stream_batches
from shared.causes import count_causes
from shared.console import Tracker, say
from shared.errors import DiskError, LockedError, StoreError, TooManyFailuresError
from shared.example import Example
from shared.keys import RequestKeys
from shared.schema import Answer, Row, Status, sum_costs
from shared.shards import TeacherFolder
from shared.signals import ENDING
from shared.tasks import LoadedTask

COPIED_AT_ONCE = 4096
CONFIRM_ATTEMPTS = 20  # a machine that wakes has no network for some seconds
CONFIRM_SECONDS = 3.0
CAUSE_LENGTH = 200
FAILURES_LOOKED_AT = 200
FAILURES_AT_LEAST = 20
INTERRUPTED = "interrupted"


@dataclass(slots=True)
class Outcome:
    """What a run did.

    `asked` counts the answers of the plan's rows, and `probed` the one that came before there was a plan.
    `statuses` counts the rows it wrote by status, and `causes` those without a whole answer by why. `cost_usd` is
    None where the price of one is not known; `stopped` says why it ended early, if it did, and `disk_full` whether
    there is no room left for more than what was in flight.
    """

    asked: int = 0
    probed: int = 0
    copied: int = 0
    statuses: Counter[Status] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    cost_usd: float | None = 0.0
    stopped: str | None = None
    disk_full: bool = False

    @property
    def failed(self) -> int:
        """Rows that this run wrote and that no student can learn from."""
        return sum(self.statuses.values()) - self.statuses[Status.OK] - self.statuses[Status.UNASKED]


class Engine:
    """One run of one plan into one teacher folder; in any thread.

    `interrupt` is what tells it to stop, None where nothing can. What is in flight then may arrive: for `drain` seconds
    where the system wants the process to end, else until the next interrupt.
    """

    def __init__(
        self,
        loaded: LoadedTask,
        teacher: Teacher,
        plan: Plan,
        folder: TeacherFolder,
        tracker: Tracker,
        failure_limit: float,
        interrupt: Interrupt | None = None,
        drain: float = DRAIN_SECONDS,
    ) -> None:
        self._loaded, self._teacher, self._plan, self._folder = loaded, teacher, plan, folder
        self._tracker = tracker
        self._failure_limit = failure_limit
        self._interrupt, self._drain = interrupt or Interrupt(), drain
        self._told = False  # by an interrupt
        self._left = False  # what is in flight
        self._leaving: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._keys = RequestKeys(teacher.recipe())
        self._asked: dict[str, Place] = {}  # what is in flight, by key: a plan asks each key once
        self._recent_failures: deque[bool] = deque(maxlen=FAILURES_LOOKED_AT)
        self._failures = 0  # of those
        # A written answer that was cut is still a text; a label or a number that was cut is nothing.
        cut = () if loaded.task.is_written else (Status.TRUNCATED,)
        self._useless = frozenset((Status.FAILED, Status.UNPARSABLE, *cut))
        self._too_many: TooManyFailuresError | None = None
        self._lost: LockedError | None = None
        self._confirming = asyncio.Lock()
        self._remote = teacher.remote
        self._is_deferred = self._remote is not None and self._remote.deferred is not None
        self._kept = plan.count(Action.KEEP)
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """Ask, copy and carry all rows of the plan; what was answered is durable and sealed when this returns.

        Raises TeacherError, TooManyFailuresError or DiskError after what was answered is durable, and CancelledError
        where what was in flight is left behind: so does a cancel of this, once what has arrived is durable.
        """
        # All files before the first connection: those may take all the descriptors that there are.
        for split in self._plan.actions:
            if self._plan.has(split, Action.ASK, Action.CARRY, Action.FAIL):
                self._folder.prepare(split)
        kept_free = RESERVE_BYTES if self._plan.count(Action.ASK) else 0
        path, worker = self._folder.path, self._folder.worker
        if self._remote is not None:
            self._remote.use_folder(path, self._confirm_place)
        with closing(DiskReserve(path, worker, kept_free)) as self._reserve, closing(InFlightLog(path, worker)) as log:
            self._writer = GroupCommit(self._folder, self._reserve, self._stop_full, self._stop_lost)
            with spare_collector(), self._interrupt.heard_by(self._stop):
                async with self._writer:
                    await self._outlast_cancels(log)
            self._settle(log)
            if self._lost is not None:
                raise self._lost
            if self._too_many is not None:
                raise self._too_many
            if self.outcome.stopped is None:
                for split in self._plan.actions:
                    await asyncio.to_thread(self._copy_split, split)
        if not self.outcome.disk_full:  # else there is no room for shards; the rows stay in the journal
            await asyncio.to_thread(self._folder.seal)
        return self.outcome

    async def _outlast_cancels(self, in_flight: InFlightLog) -> None:
        """Ask all. A cancel leaves behind what is in flight, and passes on when what has arrived is handed over."""
        asking = self._asking = asyncio.create_task(self._ask_all(in_flight))
        cancelled = False
        try:
            while not asking.done():
                try:
                    await asyncio.wait([asking])
                except asyncio.CancelledError:
                    cancelled = True
                    self._leave()
        finally:
            if self._leaving is not None:
                self._leaving.cancel()
        if not asking.cancelled():
            asking.result()
        if self._left or cancelled or asking.cancelled():
            self._say_left()
            raise asyncio.CancelledError

    def _settle(self, in_flight: InFlightLog) -> None:
        """Forget what was in flight, but the requests that may be billed and were not asked to their end."""
        in_flight.clear()
        unsettled = () if self._remote is None else self._remote.unsettled
        for key in unsettled:
            in_flight.add(key)
        if unsettled:
            say(f"{len(unsettled):,} requests broke off without an answer; they may be billed, and are asked again")

    async def _ask_all(self, in_flight: InFlightLog) -> None:
        # One stream over all splits: between two, hundreds of connections would idle, close and be made again.
        feed = RequestFeed(self._walk(), partial(self._ask, in_flight))
        async with aclosing(stream_batches(self._teacher, feed)) as batches:
            async for batch in batches:
                self.outcome.asked += len(batch.requests)
                if batch.pictures or batch.audio:  # before the rows: none may name a picture that a crash took
                    await asyncio.to_thread(self._keep_files, batch)
                keys = [request.key for request in batch.requests]
                outcomes = list_outcomes(batch.answers)
                self._count(outcomes)
                for rows in place_answers([self._asked[key] for key in keys], keys, batch.answers):
                    await self._put(rows)
                for key in keys:
                    del self._asked[key]
                self._watch_failures(batch.requests, outcomes)
        if self._remote is not None:
            self._note_stop(self._remote.stopped)

    def _walk(self) -> Iterator[PlannedRow]:
        """The rows that are to be asked, or kept without that."""
        for split in self._plan.actions:
            planned = self._plan.rows(self._loaded, split, Action.ASK, Action.CARRY, Action.FAIL)
            for rows, examples in planned:
                columns = (examples, rows.draws.tolist(), rows.actions.tolist())
                yield from map(PlannedRow, repeat(rows), count(), *columns)

    async def _ask(self, in_flight: InFlightLog, rows: Sequence[PlannedRow]) -> list[Request] | None:
        """Make the requests of some rows, which leave now; rows that need none are written. None where all is over."""
        await self._confirm_place()
        if self.outcome.stopped is not None or self._too_many is not None:
            return None  # the teacher lets what is in flight arrive, and ends
        requests: list[Request] = []
        places: dict[str, Place] = {}
        for row in rows:
            key, problem = request_key(self._keys, self._teacher, row.example, row.draw)
            if row.action == Action.CARRY:
                await self._keep(row, key, Answer(Status.UNASKED))
            elif problem is not None:
                await self._keep(row, key, Answer(Status.FAILED, error=problem))
            else:
                requests.append(Request(key, row.example, row.draw))
                places[key] = Place(row.rows, row.number)
        if not self._note_leaving(in_flight, places):
            self._stop_full()
            return None
        self._asked |= places
        return requests

    def _note_leaving(self, in_flight: InFlightLog, keys: Collection[str]) -> bool:
        """Note that requests leave; false where they must not, for their rows might find no room."""
        if keys and not self._reserve.covers(len(self._asked) + len(keys)):
            return False
        if self._remote is None or self._is_deferred:  # nothing is paid; or the teacher keeps account of what it sent
            return True
        try:
            in_flight.add(*keys)
        except DiskError:
            return False
        return True

    async def _confirm_place(self) -> None:
        """Return once the folder is known to be this run's, or the run is told to end: another one may have taken its
        place in a store while this machine slept, and what is asked then is paid for twice.
        """
        if not self._folder.is_doubtful or self._lost is not None:
            return
        async with self._confirming:
            for attempt in range(CONFIRM_ATTEMPTS):
                if not self._folder.is_doubtful or self.outcome.stopped is not None:
                    return
                try:
                    await asyncio.to_thread(self._folder.confirm_place)
                except LockedError as error:
                    self._stop_lost(error)
                except StoreError as error:
                    if attempt + 1 == CONFIRM_ATTEMPTS:
                        self._folder.assume_place()
                        say(f"{error}. Whether another run writes there is not known; this one goes on")
                    else:
                        await asyncio.sleep(CONFIRM_SECONDS)

    def _stop_full(self) -> None:
        """Ask nothing more: there is room for what is in flight, and for no more."""
        self.outcome.disk_full = True
        self._note_stop(NEARLY_FULL)
        if self._remote is not None:
            self._remote.end()

    def _stop_lost(self, error: LockedError) -> None:
        """Ask nothing more: another run has taken the folder's place in a store. What is in flight is kept here."""
        self._lost = error
        self._note_stop(str(error))
        if self._remote is not None:
            self._remote.end()

    def _note_stop(self, why: str | None) -> None:
        """Note why the run ends early; what came first counts."""
        self.outcome.stopped = self.outcome.stopped or why

    def _keep_files(self, batch: ReplyBatch) -> None:
        try:
            self._write_files(batch)
        except DiskError:
            if not self._reserve.spend():
                raise
            self._write_files(batch)

    def _write_files(self, batch: ReplyBatch) -> None:
        keep_pictures(self._folder.path, batch.pictures)
        for key, audio in batch.audio.items():
            keep_audio(self._folder.path, key, audio)

    async def _keep(self, row: PlannedRow, key: str, answer: Answer) -> None:
        """Keep an answer that no teacher gave."""
        self._count(list_outcomes((answer,)))
        await self._put(AnsweredRows(row.rows, (row.number,), (key,), (answer,)))

    def _count(self, outcomes: Iterable[AnswerOutcome]) -> None:
        outcome, cost_usd = self.outcome, self.outcome.cost_usd
        for status, error, cost in outcomes:
            outcome.statuses[status] += 1
            if error is not None:
                count_causes(outcome.causes, [f"{status}: {error[:CAUSE_LENGTH]}"])
            cost_usd = sum_costs((cost_usd, cost)) if cost != 0 else cost_usd
        outcome.cost_usd = cost_usd

    async def _put(self, rows: AnsweredRows) -> None:
        await self._writer.put(rows)
        self._tracker.advance(len(rows.numbers), self._describe_progress())

    def _copy_split(self, split: str) -> None:
        """Give the rows that say the same as another its answer. They cost nothing, and their bill says so."""
        wanted: dict[str, list[Example]] = {}
        for rows, examples in self._plan.rows(self._loaded, split, Action.COPY):
            for example, draw in zip(examples, rows.draws.tolist(), strict=True):
                key, _ = request_key(self._keys, self._teacher, example, draw)
                wanted.setdefault(key, []).append(example)
                if len(wanted) == COPIED_AT_ONCE:
                    self._copy_rows(split, wanted)
                    wanted = {}
        self._copy_rows(split, wanted)

    def _copy_rows(self, split: str, wanted: dict[str, list[Example]]) -> None:
        # The last answer counts: an earlier one may be the failure that was just asked again, or this very row's.
        rows = {row.request_key: row for row in self._folder.find_rows(wanted) if row.answer.status != Status.UNASKED}
        copies = []
        for key, row in rows.items():
            answer = replace(row.answer, cost_usd=0.0, attempts=0, prompt_tokens=0, completion_tokens=0)
            copies += [Row(example, key, row.draw, answer) for example in wanted[key]]
        self._folder.append(split, copies)
        self._folder.commit()
        self.outcome.copied += len(copies)
        for copy in copies:
            self.outcome.statuses[copy.answer.status] += 1
        self._tracker.advance(len(copies), self._describe_progress())

    def _watch_failures(self, requests: Sequence[Request], outcomes: Iterable[AnswerOutcome]) -> None:
        recent, useless = self._recent_failures, self._useless
        for request, (status, error, _) in zip(requests, outcomes, strict=True):
            if len(recent) == FAILURES_LOOKED_AT:
                self._failures -= recent[0]  # which makes room
            recent.append(status in useless)
            self._failures += recent[-1]
            if len(recent) >= FAILURES_AT_LEAST and self._failures > self._failure_limit * len(recent):
                self._note_too_many(request, status, error)

    def _note_too_many(self, last: Request, status: Status, error: str | None) -> None:
        if self._is_deferred and self._remote is not None:
            self._remote.end()  # what is in flight takes hours
        self._too_many = TooManyFailuresError(
            f"{self._failures} of the last {len(self._recent_failures)} requests brought no answer, more than "
            f"--failure-limit {self._failure_limit} allows; the last one ({last.example.sample_id}): {error}. "
            "Everything that was answered is kept. Mend the cause, then ask these rows again with --retry "
            f"{status}"
        )

    def _stop(self, told: signal.Signals) -> None:
        """Ask nothing more and let what is in flight arrive; leave it behind at a second Ctrl-C, or when time is up."""
        if self._told and told == signal.SIGINT:
            self._leave()
            return
        if not self._told:
            self._told = True
            self._note_stop(INTERRUPTED)
            if self._remote is not None:
                self._remote.end()
        if told in ENDING and self._leaving is None:
            self._leaving = asyncio.get_running_loop().call_later(self._drain, self._leave)
        if self._asked and not self._is_deferred:
            until = "another Ctrl-C leaves them behind" if self._leaving is None else f"for {self._drain:g} s, --drain"
            say(f"{told.name}: nothing more is asked; {len(self._asked):,} requests in flight may arrive ({until})")

    def _leave(self) -> None:
        """Leave behind what is in flight. Of a remote teacher, what has arrived is paid for and still handed over."""
        if self._asking is None or self._asking.done():
            return  # nothing is
        self._left = True
        self._note_stop(INTERRUPTED)  # nothing more is asked, though the teacher have not begun yet
        if self._remote is None:
            self._asking.cancel()
        else:
            self._remote.abandon()

    def _say_left(self) -> None:
        """Say how many requests a run has left behind, and what that means."""
        if self._asked and not self._is_deferred:
            paid = " and may be paid twice. `harvest status` counts them" if self._remote is not None else ""
            say(f"{len(self._asked):,} requests were left behind in flight: the next run asks them again{paid}")

    def measure(self) -> dict[str, int | float | None]:
        """Give how far the run is in numbers, named as a harvest's report names them."""
        outcome = self.outcome
        asked, failed = outcome.asked, outcome.failed
        return {"asked": asked, "kept": self._kept, "failed": failed, "cost_usd": outcome.cost_usd}

    def _describe_progress(self) -> str:
        if self._remote is not None:
            return self._remote.describe_progress()
        failed = f"{self.outcome.failed} failed" if self.outcome.failed else ""
        return "; ".join(filter(None, (find_progress(self._teacher), failed)))
