"""The writer's side of a teacher folder. Kill -9 at any point loses no acknowledged row and doubles none.

    data/<task>/teacher=<name>/
        manifest.json                              the truth
        split=<split>/part-<number>-<id>.parquet   sealed, immutable; <id> is that of the journal it was
        journal/split=<split>/<worker>.arrows      rows that are not sealed yet
        journal/<worker>.lock                      held while the worker lives
        journal/.recipe.lock                       held while a worker finds out what the recipe is to be
        journal/.folder.lock                       held while the manifest changes or files come and go

A journal is dropped only after a manifest names the shard of the same id, so a journal whose id the manifest
knows is a leftover, and so is a shard file that the manifest does not name but whose id a journal or the
manifest knows. No other file is ever removed: it may be the only copy of something that was paid for.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from shared.disk import (
    TEMPORARY,
    explain_disk_errors,
    is_locked,
    lock_file,
    make_folder,
    remove_file,
    take_lock,
)
from shared.errors import CorruptShardError, Error, LockedError, ShardError, StoreError
from shared.schema import SCHEMA_VERSION, Row, read_version, row_schema, rows_to_batch
from shared.shards.journal import Journal, JournalReader, put_aside
from shared.shards.manifest import (
    MANIFEST_NAME,
    Manifest,
    Shard,
    check_name,
    check_own_folder,
    check_recipe,
    load_own_manifest,
    save_manifest,
    shard_id,
    share_tokenizer,
)
from shared.shards.publish import check_place, publish, take_over
from shared.shards.read import (
    FOLDER_LOCK,
    Kept,
    KeptPart,
    find_rows,
    iterate_kept,
    journal_lock,
    journal_split,
    list_journals,
    read_kept,
)
from shared.shards.seal import Sealing, remove_rows, rewrite_shard, seal_journal
from shared.shards.sealed_rows import SealedRows
from shared.stores.lease import Lease, hold_lease
from shared.stores.places import find_written_address

DEFAULT_WORKER = "w0"
RECIPE_LOCK = "journal/.recipe.lock"


def _take_worker_lock(folder: Path, lock: Path) -> int:
    return take_lock(lock, f"{folder} is being written", "give this run another worker name")


def find_other_worker(folder: Path, worker: str) -> str | None:
    """The name of a worker of a teacher folder, other than `worker`, that lives; None where none does."""
    apart = (f"{worker}.lock", Path(FOLDER_LOCK).name, Path(RECIPE_LOCK).name)
    locks = (lock for lock in sorted(folder.glob("journal/*.lock")) if lock.name not in apart)
    return next((lock.stem for lock in locks if is_locked(lock)), None)


class Claim:
    """One worker's right to write to a teacher folder, taken before its recipe is known. A context manager.

    TeacherFolder.open takes it over. Raises LockedError if a living process writes under the same `worker` name,
    CorruptShardError where a file or folder inside is a link. Of a folder that is written for an object store, raises
    what hold_lease does.
    """

    def __init__(self, task_folder: Path, teacher: str, worker: str = DEFAULT_WORKER) -> None:
        self.worker = check_name("worker", worker)
        self.path = task_folder / f"teacher={check_name('teacher', teacher)}"
        self.lease: Lease | None = None  # of a folder in a store
        check_own_folder(self.path)
        with explain_disk_errors(self.path), ExitStack() as undo:
            make_folder(self.path / "journal")
            descriptor = _take_worker_lock(self.path, self.path / "journal" / f"{worker}.lock")
            undo.callback(os.close, descriptor)
            if (address := find_written_address(self.path)) is not None:
                self.lease = undo.enter_context(hold_lease(address, self.path, self._is_last))
            self._held = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hand_over().close()

    def hand_over(self) -> ExitStack:
        """What gives the right up when it is closed; nothing if it was handed over before."""
        return self._held.pop_all()

    def _is_last(self) -> bool:
        return find_other_worker(self.path, self.worker) is None

    @contextmanager
    def hold_recipe(self) -> Iterator[None]:
        """Wait until no other worker of the folder is finding out its recipe, and let none begin meanwhile."""
        with lock_file(self.path / RECIPE_LOCK):
            yield


class TeacherFolder:
    """A teacher folder, open for one worker to write. Made by TeacherFolder.open; a context manager.

    One thread at a time, except that `commit` may run beside `append`. `notes` says what opening and sealing
    found and mended, until it is taken.
    """

    def __init__(self, path: Path, worker: str, schema: pa.Schema) -> None:
        self.path = path
        self.worker = worker
        self.notes: tuple[str, ...] = ()
        self._schema = schema
        self._journals: dict[str, Journal] = {}
        self._resources = ExitStack()
        self._lease: Lease | None = None
        self._sealed_rows = SealedRows()
        self._manifest: Manifest

    @classmethod
    def open(
        cls,
        task_folder: Path,
        manifest: Manifest,
        *,
        worker: str = DEFAULT_WORKER,
        vector_type: pa.DataType | None = None,
        claim: Claim | None = None,
    ) -> Self:
        """Open or create `task_folder`/teacher=<name>/ for `manifest`, and mend what a crash left.

        `manifest` gives the name, the labels, the recipe and the plan; its shards are not looked at. `vector_type` is
        that of row_schema. `claim` is one that the caller took for the same folder and worker. A folder of an older
        schema keeps its shards as they are, and rows are added in today's.

        Raises LockedError if a living process writes under the same `worker` name, RecipeMismatchError if the folder
        holds the answers to another recipe, SchemaVersionError and CorruptShardError as load_own_manifest does. None
        of them changes anything.
        """
        check_name("worker", worker)
        path = task_folder / f"teacher={check_name('teacher', manifest.teacher)}"
        folder = cls(path, worker, row_schema(vector_type, manifest.labels))
        check_own_folder(path)
        if (path / MANIFEST_NAME).exists():
            check_recipe(path, load_own_manifest(path), manifest)  # before anything is written
        with folder._lock(), ExitStack() as undo:
            claim = claim or Claim(task_folder, manifest.teacher, worker)
            undo.enter_context(claim.hand_over())
            folder._lease = claim.lease
            undo.callback(folder._close_journals)
            if (address := find_written_address(path)) is not None:
                take_over(path, address)
            folder._merge_manifest(manifest)
            folder._recover()
            folder._publish(folder._manifest)
            folder._resources = undo.pop_all()
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What stopped the work is the error to show, not that the journal cannot be synced either.
        with suppress(Error) if kind else nullcontext():
            self.close()

    @property
    def manifest(self) -> Manifest:
        """The manifest as this worker saw it last."""
        return self._manifest

    @property
    def is_uploaded(self) -> bool:
        """Whether what is sealed goes to an object store."""
        return find_written_address(self.path) is not None

    @property
    def is_held(self) -> bool:
        """Whether somebody seals or uploads now, this worker or another one: a seal would wait for the end of it."""
        return is_locked(self.path / FOLDER_LOCK)

    @property
    def is_doubtful(self) -> bool:
        """Whether somebody else may write in its place in an object store by now: see `confirm_place`."""
        return self._lease is not None and self._lease.is_doubtful

    def confirm_place(self) -> None:
        """Make sure that it is still this one's to write, where it `is_doubtful`: before more is asked or paid for.

        Raises LockedError where another run writes in its place, or has published there since, and StoreError where the
        store fails. May run beside all but `seal`.
        """
        if self._lease is not None:
            with self._lock():  # nobody publishes meanwhile
                self._lease.confirm(partial(check_place, self.path))

    def assume_place(self) -> None:
        """Take it to be this one's for a while, where the store does not say whether it is."""
        if self._lease is not None:
            self._lease.assume()

    def take_notes(self) -> tuple[str, ...]:
        """Give the notes that were not taken yet."""
        taken, self.notes = self.notes, ()
        return taken

    def prepare(self, split: str) -> None:
        """Open the journal of `split` before there is a row for it. Raises DiskError if the disk refuses."""
        self._open_journal(split)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the rows that are written: see row_schema."""
        return self._schema

    def append(self, split: str, rows: Sequence[Row]) -> None:
        """Write rows to the journal of `split`. They are acknowledged when `commit` returns, not before.

        A row supersedes an earlier one of the same sample id and draw. Raises DiskError if the disk refuses.
        """
        if rows:
            self.append_batch(split, rows_to_batch(rows, self._schema))

    def append_batch(self, split: str, batch: pa.RecordBatch) -> None:
        """The same of a record batch of `schema`."""
        lengths = pc.binary_length(batch["request_key"])
        if lengths.unique().to_pylist() not in ([64], []):
            at = next(number for number, length in enumerate(lengths.to_pylist()) if length != 64)
            key, sample_id = (batch[name][at].as_py() for name in ("request_key", "sample_id"))
            raise ValueError(f"request key {key!r} of {sample_id!r} is not a sha256")
        self._open_journal(split).append(batch)

    def commit(self) -> None:
        """Return when all appended rows survive a crash and a power loss: now they are acknowledged."""
        for journal in tuple(self._journals.values()):
            journal.sync()

    def unsealed_bytes(self, split: str) -> int:
        """Size of this worker's journal of `split`: seal when it is worth a shard."""
        journal = self._journals.get(split)
        return 0 if journal is None else journal.size

    def seal(self, split: str | None = None, *, uploads: bool = True) -> None:
        """Turn the journal of `split`, or of every split, into a shard; that acknowledges its rows.

        Journals that dead workers left are sealed along, and first, so that this worker's rows are the later
        ones. Raises DiskError if the disk refuses; the rows are then still in the journal. Of a folder that is written
        for a store what is sealed is uploaded, unless `uploads` is false: see `upload`. Raises what that does.
        """
        with self._lock():
            try:
                self._seal_journals(split)
            except StoreError:  # of a shard that another run has replaced, perhaps
                check_place(self.path)
                raise
            if uploads:
                self._publish(self._manifest)

    def upload(self) -> None:
        """Upload what is sealed, where the folder is written for an object store. May run beside all but `seal`.

        Raises LockedError where another run has published there since, StoreError where the store fails. What is sealed
        is then on this disk.
        """
        with self._lock():
            self._publish(load_own_manifest(self.path))

    def rewrite(self, shard: Shard, revise: Callable[[pa.Table], pa.Table]) -> None:
        """Replace a sealed shard by a new version of it, each row group as `revise` gives it: rows and bill stay.

        After a crash at any point the folder has the old version or the new one. Raises LockedError where another
        worker lives: it may be reading the shard. Raises ValueError where rows or bill would change.
        """
        with self._lock():
            self._check_alone()
            self._manifest = load_own_manifest(self.path)
            self._take_over(rewrite_shard(self.path, self._manifest, shard, revise))
            self._publish(self._manifest)

    def remove(self, split: str, rows: Iterable[tuple[str, int]]) -> None:
        """Take sealed rows, by (sample_id, draw), out of `split`; what they cost stays in the books.

        The caller keeps what was paid for elsewhere first. After a crash the folder has all of them or none. Raises
        LockedError as rewrite does.
        """
        with self._lock():
            self._check_alone()
            self._manifest = load_own_manifest(self.path)
            self._take_over(remove_rows(self.path, self._manifest, split, rows, self._sealed_rows))
            self._publish(self._manifest)

    def find_other_worker(self) -> str | None:
        """The name of another worker that lives; None where this one is alone."""
        return find_other_worker(self.path, self.worker)

    def _check_alone(self) -> None:
        if (other := self.find_other_worker()) is not None:
            raise LockedError(f"{self.path} is being written by the worker {other}; wait for it to end, or stop it")

    def plan(self, planned: Mapping[str, int]) -> None:
        """Write into the manifest how many rows each split is to have."""
        with self._lock():
            kept = load_own_manifest(self.path)
            self._manifest = replace(kept, planned={**kept.planned, **planned})
            save_manifest(self.path, self._manifest)
            self._publish(self._manifest)

    def kept(self, split: str) -> Kept:
        """What `split` keeps, in shards and in the journals of all workers."""
        with self._lock():
            self._manifest = load_own_manifest(self.path)
            return read_kept(self.path, self._manifest, split)

    def iterate_kept(self, split: str) -> Iterator[KeptPart]:
        """The same a part at a time; the folder is held until the last one."""
        with self._lock():
            self._manifest = load_own_manifest(self.path)
            yield from iterate_kept(self.path, self._manifest, split)

    def find_rows(self, keys: Iterable[str]) -> Iterator[Row]:
        """The current rows, of any split, whose request key is one of `keys`."""
        self._manifest = load_own_manifest(self.path)
        return find_rows(self.path, self._manifest, keys)

    def close(self) -> None:
        """Commit, and let go of the folder. What is in the journals stays there."""
        with self._resources:
            self.commit()

    def _publish(self, manifest: Manifest) -> None:
        """Upload what is sealed, where the folder is written for a store: while its place there is this one's."""
        if self._lease is not None and self._lease.is_doubtful:
            with suppress(StoreError):  # then publishing fails too, and says what that means
                self._lease.confirm(partial(check_place, self.path))
        publish(self.path, manifest)

    def _close_journals(self) -> None:
        while self._journals:
            self._journals.popitem()[1].close()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the folder: no other worker seals, opens or changes the manifest meanwhile."""
        with explain_disk_errors(self.path):
            make_folder(self.path / "journal")
            with lock_file(self.path / FOLDER_LOCK):
                yield

    def _merge_manifest(self, wanted: Manifest) -> None:
        """Create the manifest, or take over from `wanted` what may change between runs."""
        try:
            kept = load_own_manifest(self.path)
        except CorruptShardError:
            raise
        except ShardError:
            if (self.path / MANIFEST_NAME).exists():
                raise
            self._manifest = wanted
        else:
            check_recipe(self.path, kept, wanted)
            planned = {**kept.planned, **wanted.planned}
            self._manifest = replace(
                share_tokenizer(kept, wanted),
                metric=wanted.metric,
                source=wanted.source,
                planned=planned,
                schema_version=SCHEMA_VERSION,
            )
        save_manifest(self.path, self._manifest)

    def _recover(self) -> None:
        """Finish or undo what a killed process had begun. Runs under the folder's lock: nobody is sealing."""
        notes = []
        for path in [*self.path.glob(f".*{TEMPORARY}"), *self.path.glob(f"split=*/.*{TEMPORARY}")]:
            remove_file(path)
        sealed = self._manifest.sealed_ids()
        unsealed = set()
        own = sorted(self.path.glob(f"journal/split=*/{self.worker}.arrows"))
        notes += [note for note in map(put_aside, own) if note is not None]
        for path in sorted(self.path.glob("journal/split=*/*.arrows")):
            with JournalReader(path) as reader:
                journal_id = reader.id
            if journal_id in sealed:
                remove_file(path)
            else:
                unsealed.add(journal_id)
        named = {self.path / shard.path for shard in self._manifest.shards}
        for path in sorted(set(self.path.glob("split=*/*.parquet")) - named):
            if shard_id(path) in sealed | unsealed:
                remove_file(path)
            else:
                notes.append(f"{path} is not in the manifest and is left alone; no command reads it")
        for path in sorted(self.path.glob(f"journal/split=*/{self.worker}.arrows")):
            if _is_older(path):  # a journal has one schema: the rows of another version begin a new one
                self._seal_journal(path)
                continue
            journal = self._open_journal(journal_split(path))
            if journal.dropped:
                notes.append(f"{path}: dropped {journal.dropped} bytes of rows that were never acknowledged")
            if journal.damaged:
                notes.append(f"{path}: {journal.damaged} bytes are damaged; the rows in them will be asked again")
        self.commit()
        self.notes = tuple(notes)

    def _open_journal(self, split: str) -> Journal:
        if split not in self._journals:
            path = self.path / "journal" / f"split={check_name('split', split)}" / f"{self.worker}.arrows"
            with explain_disk_errors(path):
                self._journals[split] = self._start_journal(path)
        return self._journals[split]

    def _start_journal(self, path: Path) -> Journal:
        journal = Journal.open(path, self._schema)
        try:
            # From disk: a seal that failed half-way may have saved the manifest and not removed its journal.
            self._manifest = load_own_manifest(self.path)
            if journal.id not in self._manifest.sealed_ids():
                return journal
            remove_file(path)
        except BaseException:
            journal.close()
            raise
        journal.close()
        return Journal.open(path, self._schema)

    def _seal_journals(self, split: str | None) -> None:
        self._manifest = load_own_manifest(self.path)
        for path in list_journals(self.path, self._manifest, split):
            if path.stem != self.worker:
                self._seal_abandoned(path)
        for path in list_journals(self.path, self._manifest, split):
            if path.stem == self.worker:
                journal = self._journals.pop(journal_split(path), None)
                if journal is not None:
                    journal.close()
                self._seal_journal(path)

    def _seal_abandoned(self, journal: Path) -> None:
        """Seal another worker's journal, unless it lives. Its lock keeps it from starting meanwhile."""
        try:
            descriptor = _take_worker_lock(self.path, journal_lock(journal))
        except LockedError:
            return
        try:
            if (note := put_aside(journal)) is None:
                self._seal_journal(journal)
            else:
                self.notes = (*self.notes, note)
        finally:
            os.close(descriptor)

    def _seal_journal(self, journal: Path) -> None:
        self._take_over(seal_journal(self.path, self._manifest, journal, self._sealed_rows))

    def _take_over(self, sealing: Sealing) -> None:
        """Make a new manifest the folder's, and remove the files that are then of no use."""
        if sealing.manifest != self._manifest:
            save_manifest(self.path, sealing.manifest)
            self._manifest = sealing.manifest
        for path in sealing.obsolete:
            remove_file(path)


def _is_older(journal: Path) -> bool:
    with JournalReader(journal) as reader:
        return reader.schema is not None and read_version(reader.schema) < SCHEMA_VERSION
