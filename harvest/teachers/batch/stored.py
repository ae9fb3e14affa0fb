"""Jobs that an object store knows of, too, where their folder is written for one: another machine takes them up.

    <teacher>/jobs/<job>/rows.jsonl    its requests, as in the ledger; written first
    <teacher>/jobs/<job>/job.json      where it stood before the request that makes it left, and when that was answered

Both are there before that request leaves, and until all answers are in the store's shards. job.json is written over
nothing but what this machine has written or read of it, so of two machines that hold a job one is refused. What is to
be uploaded and what a job brought stay on the disk of their machine: the provider has them.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harvest.teachers.batch.ledger import JOB, ROWS, Job, JobState, Step, add_job, read_jobs, read_state, remove_job
from shared.errors import LockedError
from shared.stores.address import StoreAddress
from shared.stores.client import ConflictError, Version, open_bucket
from shared.stores.mirror import read_marker
from shared.stores.places import find_written_address

FOLDER = "jobs"
_TOLD = "told"  # in a job's folder: the store knows it


class StoredJobs:
    """The jobs of one teacher folder in the store that it is written for; nothing is done of any other folder.

    Methods raise StoreError where the store fails.
    """

    def __init__(self, teacher_folder: Path) -> None:
        self._folder = teacher_folder
        self._address = find_written_address(teacher_folder)
        self._versions: dict[str, Version] = {}  # of each job.json, as this machine knows it

    @property
    def is_used(self) -> bool:
        """Whether there is a store."""
        return self._address is not None

    def write(self, job: Job) -> None:
        """Say in the store where a job stands. Raises LockedError where another machine has said so since."""
        if self._address is None:
            return
        bucket, place = open_bucket(self._address), self._address / FOLDER / job.name
        version, content = self._versions.get(job.name), (job.path / JOB).read_bytes()
        if version is None:
            bucket.upload((place / ROWS).path, job.path / ROWS)
        try:
            version = bucket.write((place / JOB).path, content, version or "nothing")
        except ConflictError:
            read = bucket.read((place / JOB).path)  # perhaps by this very write, whose answer was lost
            if read is None or read[0] != content:
                raise LockedError(
                    f"another machine has taken up the job {place} meanwhile: this one makes no more. What was "
                    "answered is kept; run the same command again once the other one has ended"
                ) from None
            version = read[1].version
        self._versions[job.name] = version
        (job.path / _TOLD).touch()

    def fetch(self) -> None:
        """Have the ledger on this disk know what the store knows; what another machine has done with goes."""
        if self._address is None:
            return
        here = {job.name: job for job in read_jobs(self._folder)}  # before the list: what is written later is on it
        bucket = open_bucket(self._address)
        for place, state, content, version in _list_states(self._address):
            self._versions[place.name] = version
            job = here.pop(place.name, None)
            if job is None:
                rows = bucket.read((place / ROWS).path)
                if rows is not None:
                    (add_job(self._folder, place.name, rows[0], content).path / _TOLD).touch()
            elif _is_found(state, job.state) and job.take():
                job.move(state.step, remote=state.remote, is_guess=state.is_guess)
                job.let_go()
        for job in here.values():
            if (job.path / _TOLD).exists() and job.take():
                remove_job(job)

    def remove(self, job: Job) -> None:
        """Forget a job all of whose answers are in the store's shards."""
        if self._address is not None:
            place = self._address / FOLDER / job.name
            open_bucket(self._address).delete([(place / JOB).path])
            open_bucket(self._address).delete([(place / ROWS).path])


def list_stored_jobs(folder: Path) -> Iterator[JobState]:
    """The states of the jobs that the store knows of, of a folder that is one's readers' mirror; of any other none."""
    mirror = read_marker(folder)
    if mirror is not None and find_written_address(folder) is None:
        for _, state, _, _ in _list_states(mirror.address):
            yield state


def _is_found(stored: JobState, here: JobState) -> bool:
    """Whether another machine has found at the provider a job whose making came to nothing, as far as is known here."""
    is_unmade = here.step in (Step.WRITTEN, Step.CREATING)
    return is_unmade and stored.remote is not None and stored.remote not in here.excluded


def _list_states(teacher: StoreAddress) -> Iterator[tuple[StoreAddress, JobState, bytes, Version]]:
    """Each job's place in a store, what its job.json says, its bytes and version; the oldest first."""
    bucket = open_bucket(teacher)
    for file in sorted(bucket.list_files((teacher / FOLDER).path), key=lambda file: file.key):
        if file.key.endswith(f"/{JOB}"):
            read = bucket.read(file.key)
            if read is not None:
                with suppress(ValueError, TypeError, KeyError):  # of a later version: left to that
                    place = StoreAddress(teacher.scheme, teacher.bucket, file.key).parent
                    yield place, read_state(read[0]), read[0], read[1].version
