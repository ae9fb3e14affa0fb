"""One job from its folder to its results: uploaded, made, watched, downloaded; found again where it may be made."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from harvest.teachers.base import Confirm
from harvest.teachers.batch.http import (
    BatchHttp,
    EndedError,
    LostAnswerError,
    QueueFullError,
    RefusedError,
    UnreachableError,
)
from harvest.teachers.batch.ledger import REQUESTS, RESULTS, Job, Ledger, Step
from harvest.teachers.batch.protocols.base import LATE_SECONDS, MALFORMED, BatchProtocol, RemoteJob
from harvest.teachers.batch.results import Results
from harvest.teachers.batch.stored import StoredJobs
from shared.console import say
from shared.errors import StoreError, TeacherError

SETTLE_SECONDS = 15.0  # until a provider lists what it has just made
DOWNLOADS = 8  # of results that are not whole


@dataclass(slots=True)
class Progress:
    """Of one job at the provider: requests, and how many of them it says are done."""

    requests: int
    done: int = 0


class JobRunner:
    """Takes jobs to Step.ENDED, looking at each every `poll` seconds; `confirm` is awaited before each is made.

    `creating` are those whose making is under way; `attempts` bounds the tries that come to nothing. `progress` is of
    the jobs that the provider works on, by name.
    """

    def __init__(
        self,
        http: BatchHttp,
        protocol: BatchProtocol,
        ledger: Ledger,
        stored: StoredJobs,
        ended: asyncio.Event,
        confirm: Confirm,
        poll: float,
        attempts: int,
    ) -> None:
        self._http, self._protocol, self._ledger, self._ended, self._poll = http, protocol, ledger, ended, poll
        self._stored, self._confirm, self._attempts = stored, confirm, attempts
        self._tries: Counter[str] = Counter()  # that came to nothing, by job
        self.creating: set[str] = set()
        self.progress: dict[str, Progress] = {}

    async def finish(self, job: Job) -> Results:
        """Bring a job to its results. Raises EndedError, TeacherError or DiskError; its folder says how far it came."""
        self.progress[job.name] = Progress(job.state.rows)
        try:
            while job.state.step is not Step.ENDED:
                if job.state.step is Step.WRITTEN and not (job.path / REQUESTS).exists():
                    job.move(Step.ENDED, problem="another machine wrote it, and did not come to make it")
                elif job.state.step is Step.WRITTEN:
                    await self._submit(job)
                elif job.state.step is Step.CREATING:
                    await self._recover(job)
                else:
                    await self._watch(job)
        finally:
            self.progress.pop(job.name, None)
        return await asyncio.to_thread(Results(job, self._protocol).read)

    async def _submit(self, job: Job) -> None:
        """Upload what is to be uploaded, and make the job."""
        path = job.path / REQUESTS
        try:
            if job.state.upload is None:
                with _naming(job, "uploaded"):
                    upload = await self._protocol.upload(self._http, path, job.name)
                job.move(Step.WRITTEN, upload=upload)
            await self._confirm()
            if self._ended.is_set():
                raise EndedError
            job.move(Step.CREATING)
            self.creating.add(job.name)
            await asyncio.to_thread(self._stored.write, job)
            key = f"{job.name}-{job.state.refused}"
            made = await self._create(job, key)
            job.move(Step.CREATED, remote=made.name)
            await self._tell(job)
            say(f"job {made.name} was submitted: requests {job.state.keys:,}")
        except LostAnswerError as error:
            self._count_try(job, error)
            say(f"whether a job was made is not known ({error}): looking for it")
            await self._pause(self._settle)
        except QueueFullError as error:
            job.move(Step.WRITTEN, refused=job.state.refused + 1)
            say(f"no room for a job now ({error}); waiting")
            await self._pause(self._poll)
        except UnreachableError as error:
            job.move(Step.WRITTEN)
            self._count_try(job, error)
            say(f"the provider cannot be reached ({error}); trying again")
            await self._pause(self._poll)
        except StoreError as error:  # a machine that is lost now would take a job with it that nobody knows of
            job.move(Step.WRITTEN)
            self._tries[job.name] += 1
            if self._tries[job.name] >= self._attempts:
                raise
            say(f"{error}. A job waits until it is known there")
            await self._pause(self._poll)
        except RefusedError as error:
            job.move(Step.WRITTEN, upload=None)
            raise TeacherError(
                f"the provider refuses a job: {error}. Nothing of it was asked; mend the cause, then run the same "
                "command again"
            ) from None
        except TeacherError:  # a wrong key or route: no job was made
            job.move(Step.WRITTEN)
            raise
        finally:
            self.creating.discard(job.name)

    async def _tell(self, job: Job) -> None:
        """Say in the store where a job stands that is known there; where that fails, another machine can find it."""
        try:
            await asyncio.to_thread(self._stored.write, job)
        except StoreError as error:
            say(f"{error}; until then the run goes on")

    async def _create(self, job: Job, key: str) -> RemoteJob:
        try:
            return await self._protocol.create(self._http, job.path / REQUESTS, job.state.upload, job.name, key)
        except MALFORMED as error:  # a job may have been made all the same
            raise LostAnswerError(f"the provider's answer cannot be read: {error!r}") from None

    def _count_try(self, job: Job, error: Exception) -> None:
        self._tries[job.name] += 1
        if self._tries[job.name] >= self._attempts:
            raise TeacherError(
                f"the provider makes no job, after {self._attempts} tries (--attempts): {error}. What was submitted "
                "goes on there, and the same command takes it up again"
            )

    async def _recover(self, job: Job) -> None:
        """Find what came of the request that makes the job, if anything did."""
        for _ in range(2):
            with suppress(UnreachableError):
                found = await self._find(job)
                if found is not None:
                    job.move(Step.CREATED, remote=found.name, is_guess=not self._is_named(job, found))
                    await self._tell(job)
                    maybe = "may be it" if job.state.is_guess else "was found again"
                    say(f"job {found.name} {maybe}: requests {job.state.keys:,}")
                    return
                await self._pause(self._settle)
                continue
            await self._pause(self._poll)
            return  # still at Step.CREATING: nothing is known
        job.move(Step.WRITTEN)  # it was not made

    async def _find(self, job: Job) -> RemoteJob | None:
        """The provider's job that is this one by its tag or its file; that may be, by size and time, without a file."""
        known = self._ledger.read_known()
        since = job.asked_at.timestamp()
        with _naming(job, "looked for"):
            listed = await self._protocol.list_jobs(self._http, since)
        for remote in listed:
            if remote.name in known or remote.name in job.state.excluded:
                continue
            if self._is_named(job, remote):
                return remote
            is_new = remote.created is None or remote.created >= since - LATE_SECONDS
            if job.state.upload is None and is_new and remote.requests == job.state.rows:
                return remote
        return None

    def _is_named(self, job: Job, remote: RemoteJob) -> bool:
        return remote.tag == job.name or (job.state.upload is not None and remote.upload == job.state.upload)

    async def _watch(self, job: Job) -> None:
        """Wait for the job's end, and download what it brought."""
        assert job.state.remote is not None
        while True:
            try:
                with _naming(job, "looked at"):
                    remote = await self._protocol.look(self._http, job.state.remote)
                self._note(job, remote)
                if remote.ended:
                    await self._collect(job, remote)
                    return
            except UnreachableError as error:
                say(f"the provider cannot be reached ({error}); its jobs go on, and are looked at again")
            await self._pause(self._poll)

    def _note(self, job: Job, remote: RemoteJob) -> None:
        progress = self.progress[job.name]
        before, progress.done = progress.done, remote.done or 0
        if progress.done * 10 // progress.requests > before * 10 // progress.requests:
            age = datetime.now(UTC) - job.asked_at
            said = f"job {remote.name}: {progress.done:,} of {progress.requests:,} requests done"
            say(f"{said}, {age.total_seconds() / 60:.0f} minutes after it was made")

    async def _collect(self, job: Job, remote: RemoteJob) -> None:
        if remote.queue_full:
            say(f"job {remote.name} found no room in the provider's queue ({remote.problem}); it is submitted again")
            self._ledger.note_known(remote.name)
            job.move(Step.WRITTEN, remote=None, refused=job.state.refused + 1)
            await self._pause(self._poll)
            return
        await self._download(job, remote)
        if job.state.is_guess and not await self._is_own(job):
            job.move(Step.CREATING, remote=None, is_guess=False, excluded=[*job.state.excluded, remote.name])
            return
        bad: Mapping[str, str] = {str(line): why for line, why in remote.bad_lines.items()}
        job.move(Step.ENDED, problem=remote.problem, bad_lines=bad, is_guess=False)
        job.drop_requests()

    async def _download(self, job: Job, remote: RemoteJob) -> None:
        """Download the results; again where lines are broken or too few, for a download may be torn."""
        complete = job.state.rows if remote.problem is None else 0
        wanted = complete if remote.done is None else remote.done
        for _ in range(DOWNLOADS):
            with _naming(job, "downloaded"):
                await self._http.download(list(remote.results), job.path / RESULTS)
            found = await asyncio.to_thread(Results(job, self._protocol).read)
            told = len(found) + (found.strange if job.state.is_guess else 0)
            if not found.broken and told >= wanted:
                break
            await self._pause(self._settle)
        if found.broken:
            say(f"{found.broken:,} lines of job {remote.name} cannot be read; what they were about is asked again")
        if found.strange and not job.state.is_guess:
            say(f"{found.strange:,} lines of job {remote.name} are about requests that it did not have")

    async def _is_own(self, job: Job) -> bool:
        """Whether results that were downloaded on a guess are about this job's requests."""
        return len(await asyncio.to_thread(Results(job, self._protocol).read)) > 0

    @property
    def _settle(self) -> float:
        return min(SETTLE_SECONDS, self._poll)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._ended.wait(), seconds)
        except TimeoutError:
            return
        raise EndedError


@contextmanager
def _naming(job: Job, what: str) -> Iterator[None]:
    """Say which job a refusal is about, or an answer that cannot be read: both become a TeacherError."""
    try:
        yield
    except (TeacherError, RefusedError) as error:
        raise TeacherError(_explain(job, what, str(error))) from None
    except MALFORMED as error:
        raise TeacherError(_explain(job, what, f"the provider's answer cannot be read: {error!r}")) from None


def _explain(job: Job, what: str, why: str) -> str:
    named = f"of {job.path}" if job.state.remote is None else f"{job.state.remote}, which {job.path} is about,"
    return f"the job {named} cannot be {what}: {why}. Once that is mended, the same command takes it up again"
