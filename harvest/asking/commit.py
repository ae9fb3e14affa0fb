"""Makes rows durable while more arrive: group commit, and what becomes of a disk that refuses."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from time import monotonic

from harvest.asking.planned import AnsweredRows, encode_answered
from harvest.asking.reserve import DiskReserve
from shared.console import say
from shared.errors import DiskError, Error, LockedError
from shared.shards import TeacherFolder

COMMIT_SECONDS = 0.1  # how long a reply may wait for others to share an fsync with
BUFFERED_ROWS = 4096  # replies that may wait for the disk before the teacher is held back
SHARD_BYTES = 64 * 2**20  # a journal of this size is sealed while the run goes on
UPLOAD_SECONDS = 300  # and one of this age, where shards go to a store: more is not lost with this machine


class GroupCommit:
    """Makes rows durable in groups, one fsync for many, in a thread, while more arrive.

    An asynchronous context manager: leaving it, for whatever reason, makes durable what was put before. `on_full` is
    called once the disk has refused a row, and the reserve has made room for it; `on_lost` once another run has taken
    the folder's place in an object store. What is sealed goes there meanwhile, in a thread of its own: rows do not wait
    for it.
    """

    def __init__(
        self,
        folder: TeacherFolder,
        reserve: DiskReserve,
        on_full: Callable[[], None],
        on_lost: Callable[[LockedError], None],
    ) -> None:
        self._folder, self._reserve, self._on_full, self._on_lost = folder, reserve, on_full, on_lost
        self._uploader = ThreadPoolExecutor(1, "upload") if folder.is_uploaded else None
        self._upload: Future[None] | None = None
        self._lost: LockedError | None = None
        self._seal_at: dict[str, int] = {}  # bytes of a journal, by split
        self._begun: dict[str, float] = {}  # when the first row of a journal came, by split
        self._rows: dict[str, list[AnsweredRows]] = {}
        self._waiting = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._commit_until_closed())

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        cancel = None
        while not self._task.done():
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError as error:  # the rows are paid for, and soon written: then it passes on
                cancel = error
        if self._uploader is not None:
            await asyncio.to_thread(self._uploader.shutdown)
            self._look_at_upload()
            self._tell_lost()
        self._task.result()
        if cancel is not None:
            raise cancel

    async def put(self, rows: AnsweredRows) -> None:
        """Take rows; waits while too many wait for the disk. Raises what stopped the writing, if anything did."""
        await self._has_room.wait()
        if self._task.done():
            self._task.result()
        self._rows.setdefault(rows.rows.split, []).append(rows)
        self._waiting += len(rows.numbers)
        if self._waiting >= BUFFERED_ROWS:
            self._has_room.clear()

    async def _commit_until_closed(self) -> None:
        try:
            closing = False
            while not closing:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), COMMIT_SECONDS)
                closing = self._closing.is_set()
                rows, self._rows, self._waiting = self._rows, {}, 0
                self._has_room.set()
                if rows:
                    await asyncio.to_thread(self._write, rows)
                    if self._reserve.is_spent:
                        self._on_full()
                    self._tell_lost()
        finally:
            self._has_room.set()  # a writer that failed must not leave anybody waiting

    def _write(self, rows: Mapping[str, Sequence[AnsweredRows]]) -> None:
        for split, some in rows.items():
            before, batch = self._folder.unsealed_bytes(split), encode_answered(some, self._folder.schema)
            try:
                self._folder.append_batch(split, batch)
            except DiskError:
                if not self._reserve.spend():
                    raise
                self._folder.append_batch(split, batch)
            self._reserve.note(batch.num_rows, self._folder.unsealed_bytes(split) - before)
        self._folder.commit()
        # A seal would wait for an upload, of another worker's too, and rows for the seal.
        if self._is_uploading() or (self._uploader is not None and self._folder.is_held):
            return
        now, has_sealed = monotonic(), False
        for split in rows:
            is_old = self._uploader is not None and now - self._begun.setdefault(split, now) >= UPLOAD_SECONDS
            if is_old or self._folder.unsealed_bytes(split) >= self._seal_at.get(split, SHARD_BYTES):
                self._seal(split)
                has_sealed = True
        if has_sealed and self._uploader is not None and self._lost is None:
            self._upload = self._uploader.submit(self._folder.upload)

    def _tell_lost(self) -> None:
        if self._lost is not None:
            self._on_lost(self._lost)

    def _is_uploading(self) -> bool:
        """Tell whether shards are on their way to a store; of those before, say what became of them."""
        if self._upload is not None and not self._upload.done():
            return True
        self._look_at_upload()
        return False

    def _look_at_upload(self) -> None:
        upload, self._upload = self._upload, None
        try:
            if upload is not None:
                upload.result()
        except LockedError as error:  # what is in flight may arrive and is kept; more would be paid for twice
            self._lost = error
        except Error as error:
            say(f"{error}; until then the run goes on")

    def _seal(self, split: str) -> None:
        size = self._folder.unsealed_bytes(split)
        self._begun.pop(split, None)
        try:
            self._folder.seal(split, uploads=False)
            self._seal_at.pop(split, None)
        except LockedError as error:
            self._lost = error
        except Error as error:  # the rows are in the journal, and what is in flight is worth more than a shard
            self._seal_at[split] = 2 * size
            say(f"{error}. Its rows stay in the journal meanwhile, and the run goes on")
