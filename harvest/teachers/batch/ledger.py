"""What was given to a provider in jobs, on disk: a kill at any moment neither loses a job nor submits one twice.

    journal/batch/known                 the provider's names of the jobs that were removed here, one a line
    journal/batch/<job>/rows.jsonl      its requests: key, custom id, bounds of their tokens
    journal/batch/<job>/requests.jsonl  what is uploaded; removed once the job is made
    journal/batch/<job>/job.json        where it stands (Step), replaced as a whole and fsynced at each step
    journal/batch/<job>/results.jsonl   the provider's lines, without the API key, as they were downloaded

A job's folder appears whole, under a name that begins with the time. Step.CREATING is durable before the request that
makes the job leaves: who finds it looks at the provider for what came of it. The folder stays until each of its answers
is in a shard or a sealed journal.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

import orjson

from shared.disk import explain_disk_errors, fsync_path, make_folder, replace_file

FOLDER = "journal/batch"
BUILDING = ".building"
JOB, ROWS, REQUESTS, RESULTS = "job.json", "rows.jsonl", "requests.jsonl", "results.jsonl"
KNOWN = "known"


class Step(StrEnum):
    """How far a job has come."""

    WRITTEN = "written"  # on this disk only
    CREATING = "creating"  # its request may have left
    CREATED = "created"  # the provider works on it
    ENDED = "ended"  # its results are on this disk


@dataclass(frozen=True, slots=True)
class JobRow:
    """One request of a job: `vote` counts those of one key from 0, and asks for `answers` answers.

    `prompt` and `said` bound its tokens; `attempt` counts the jobs that its row has been in.
    """

    key: str
    custom_id: str
    vote: int
    answers: int
    prompt: int
    said: int
    attempt: int = 1
    image_sha256: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class JobState:
    """What job.json holds. `rows` counts its requests, and `keys` the rows that they answer.

    `tokens` is about what they count in a queue. `remote` is the provider's name of the job, `upload` that of its file.
    `refused` counts the jobs that were made of it and that the provider's queue had no room for. `is_guess` is whether
    `remote` may be another's, and `excluded` are those that were seen to be. `problem` says why the provider worked on
    none of it, and `bad_lines` which of its lines (from 1) were at fault.
    """

    step: Step
    asked_at: str
    rows: int
    keys: int
    tokens: int
    upload: str | None = None
    remote: str | None = None
    refused: int = 0
    is_guess: bool = False
    excluded: Sequence[str] = ()
    problem: str | None = None
    bad_lines: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Job:
    """One job's folder, and what it says. `rows` is read when it is needed."""

    path: Path
    state: JobState
    _rows: list[JobRow] | None = field(default=None, repr=False)
    _lock: int | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Its own name, by which it is tagged at the provider, too."""
        return self.path.name

    @property
    def asked_at(self) -> datetime:
        """When it was made: the `asked_at` of its answers."""
        return datetime.fromisoformat(self.state.asked_at)

    @property
    def rows(self) -> list[JobRow]:
        """Its requests, in the order of the file."""
        if self._rows is None:
            self._rows = [JobRow(**orjson.loads(line)) for line in (self.path / ROWS).read_bytes().splitlines()]
        return self._rows

    def move(self, step: Step, **changes: Any) -> None:
        """Note, durably, how far it has come. Raises DiskError."""
        state = replace(self.state, step=step, **changes)
        with explain_disk_errors(self.path):
            replace_file(self.path / JOB, orjson.dumps(asdict(state)))
        self.state = state

    def drop_requests(self) -> None:
        """Remove what was uploaded: the provider has it."""
        with explain_disk_errors(self.path):
            (self.path / REQUESTS).unlink(missing_ok=True)

    def take(self) -> bool:
        """Hold it until `let_go`, or the end of this process; false where another process does."""
        if self._lock is None:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def let_go(self) -> None:
        """Let another process take it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class JobWriter:
    """A job that is being written: not there until `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{time.time_ns():020d}-{token_hex(4)}"
        self._path = folder / f"{self._name}{BUILDING}"
        self.rows: list[JobRow] = []
        self.bytes = 0
        self.tokens = 0
        with explain_disk_errors(self._path):
            make_folder(folder)
            self._path.mkdir()
            self._lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._requests: BinaryIO = (self._path / REQUESTS).open("wb")

    def add(self, row: JobRow, line: bytes, tokens: int) -> None:
        """Take a request and its line, which counts `tokens` in a queue. Raises DiskError."""
        with explain_disk_errors(self._path):
            self._requests.write(line + b"\n")
        self.rows.append(row)
        self.bytes += len(line) + 1
        self.tokens += tokens

    def close(self) -> Job:
        """Make it durable, as a whole; this process holds it. Raises DiskError."""
        now = datetime.now(UTC).isoformat()
        keys = len({row.key for row in self.rows})
        state = JobState(Step.WRITTEN, now, len(self.rows), keys, self.tokens)
        with explain_disk_errors(self._path):
            self._requests.close()
            (self._path / ROWS).write_bytes(b"".join(orjson.dumps(asdict(row)) + b"\n" for row in self.rows))
            (self._path / JOB).write_bytes(orjson.dumps(asdict(state)))
            for file in (REQUESTS, ROWS, JOB):
                fsync_path(self._path / file)
            fsync_path(self._path)
            os.replace(self._path, self._folder / self._name)
            fsync_path(self._folder)
        return Job(self._folder / self._name, state, self.rows, self._lock)

    def discard(self) -> None:
        """Take it back: nothing of it was sent."""
        self._requests.close()
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)


class Ledger:
    """The jobs of one teacher folder. `jobs` are those that were there, the oldest first."""

    def __init__(self, teacher_folder: Path) -> None:
        self.folder = teacher_folder / FOLDER
        self.jobs = list(read_jobs(teacher_folder))
        with explain_disk_errors(self.folder):
            for left in self.folder.glob("*/"):
                if left.name.endswith(BUILDING) or not (left / JOB).exists():
                    _remove_unfinished(left)

    def note_known(self, remote: str) -> None:
        """Write down, durably, the provider's name of a job that is done with. Raises DiskError."""
        path = self.folder / KNOWN
        with explain_disk_errors(path):
            is_new = not path.exists()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(descriptor, f"\n{remote}".encode())  # what a kill cut off before it ends there
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if is_new:
                fsync_path(self.folder)

    def read_known(self) -> frozenset[str]:
        """The provider's names of all jobs that are, or were, made here for certain."""
        path = self.folder / KNOWN
        noted = path.read_text().split("\n") if path.exists() else []
        states = [job.state for job in read_jobs(self.folder.parents[1])]
        return frozenset((*noted, *(state.remote or "" for state in states if not state.is_guess)))

    def remove(self, job: Job) -> None:
        """Remove a job all of whose answers are kept."""
        if job.state.remote is not None:
            self.note_known(job.state.remote)
        remove_job(job)


def remove_job(job: Job) -> None:
    """Remove a job's folder: first what says that it is one. Raises DiskError."""
    with explain_disk_errors(job.path):
        (job.path / JOB).unlink(missing_ok=True)
        fsync_path(job.path)
        shutil.rmtree(job.path)
    job.let_go()


def add_job(teacher_folder: Path, name: str, rows: bytes, state: bytes) -> Job:
    """Write a job that another machine has made; one of that name that is there stays as it is. Raises DiskError."""
    folder = teacher_folder / FOLDER
    path = folder / name
    building = folder / f"{name}-{token_hex(4)}{BUILDING}"
    with explain_disk_errors(path):
        make_folder(folder)
        building.mkdir()
        lock = os.open(building, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # else another worker takes it for what a killed one left
            for file, content in ((ROWS, rows), (JOB, state)):
                (building / file).write_bytes(content)
                fsync_path(building / file)
            fsync_path(building)
            try:
                os.rename(building, path)
            except OSError:  # another worker was first
                if not (path / JOB).exists():
                    raise
                shutil.rmtree(building)
            fsync_path(folder)
        finally:
            os.close(lock)
    return Job(path, read_state((path / JOB).read_bytes()))


def read_state(content: bytes) -> JobState:
    """Read what a job.json says. Raises ValueError, TypeError or KeyError where it is none."""
    saved = orjson.loads(content)
    return JobState(**{**saved, "step": Step(saved["step"])})


def read_jobs(teacher_folder: Path) -> Iterator[Job]:
    """The jobs of a teacher folder, the oldest first; one that is being written or removed is none."""
    for path in sorted((teacher_folder / FOLDER).glob(f"*/{JOB}")):
        if path.parent.name.endswith(BUILDING):
            continue
        try:
            state = read_state(path.read_bytes())
        except FileNotFoundError:  # removed just now
            continue
        yield Job(path.parent, state)


def _remove_unfinished(path: Path) -> None:
    """Remove what a killed process left of a job that it wrote, or was removing. A living one holds its own."""
    with explain_disk_errors(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
