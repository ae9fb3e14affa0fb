"""Who writes to a teacher folder in an object store: an object that its writer renews as long as it lives.

It keeps two writers from paying for the same answers. That neither overwrites what the other has published does not
rest on it, or on any clock, but on the conditional write of the manifest (shared.shards.publish).
"""

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from threading import Event, Lock, Thread

from shared.disk import lock_file, replace_file
from shared.errors import LockedError, StoreError
from shared.stores.address import StoreAddress
from shared.stores.client import Bucket, ConflictError, open_bucket

NAME = "writer.json"
LEASE_SECONDS = 120  # after which a writer that was not heard of is taken for dead
_RENEW_SECONDS = 30
_OWNER = ".store-writer"  # in a mirror: what its workers call themselves
_OWNER_LOCK = ".store-writer.lock"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Writer:
    """Another writer, who lives: its name, and how many seconds ago it was heard of."""

    name: str
    age: float


class Lease:
    """The right to write to the teacher folder at `address`, whose mirror is `folder`; a thread renews it.

    Threads may share it.
    """

    def __init__(self, address: StoreAddress, folder: Path) -> None:
        self._address, self._folder = address, folder
        self._owner = _name_owner(folder)
        self._bucket, self._key = open_bucket(address), (address / NAME).path
        self._lock = Lock()
        # Wall clock: it goes on while a machine sleeps, which others do not.
        self._renewed_at = self._looked_at = 0.0
        self._was_there = False  # when it was renewed last: else another one may have come and gone
        self._is_unsettled = False  # whether another one has published
        self._lost: str | None = None

    def take(self) -> None:
        """Become the writer. Raises LockedError where somebody else is."""
        other = self._write()
        if other is not None:
            raise LockedError(
                f"{self._address} is being written by {other.name}, which was heard of {other.age:.0f} s ago: wait for "
                f"it to end, or stop it. Where it was killed, the folder is free {LEASE_SECONDS} s after it was last "
                "heard of. Nothing was asked"
            )

    @property
    def is_doubtful(self) -> bool:
        """Whether somebody else may be the writer by now: nothing may be asked or published until `confirm` returns."""
        if self._lost is not None or self._is_unsettled:
            return True
        return not 0 <= time.time() - self._looked_at < LEASE_SECONDS - _RENEW_SECONDS

    def confirm(self, check_place: Callable[[], None]) -> None:
        """Renew it where it is doubtful, and see by `check_place` that nobody has published meanwhile.

        Raises LockedError where somebody else is the writer, StoreError, and what `check_place` does: it is as doubtful
        then as before.
        """
        with self._lock:
            if self._lost is None and self.is_doubtful:
                self._is_unsettled = True
                self._renew()
                if self._lost is None:
                    check_place()
                    self._is_unsettled = False
            if self._lost is not None:
                raise LockedError(self._lost)

    def assume(self) -> None:
        """Take it to be this one's for a while, though the store does not say."""
        self._looked_at, self._is_unsettled = time.time(), False

    def renew_until(self, ended: Event) -> None:
        """Renew it twice a minute until then, or until somebody else is the writer.

        That settles no doubt: only `confirm` sees whether another one has come, published and gone.
        """
        while self._lost is None and not ended.wait(_RENEW_SECONDS):
            with self._lock:
                was_doubtful = self.is_doubtful
                try:
                    self._renew()
                except StoreError as error:
                    log.info("the lease was not renewed: %s", error)
                    if not was_doubtful:  # the store fails; this machine was awake, and did not lose sight of it
                        self.assume()
                else:
                    self._is_unsettled = was_doubtful or not self._was_there

    def give_up(self) -> None:
        """Remove it where it is still this one's."""
        with suppress(StoreError):  # it runs out by itself
            read = self._bucket.read(self._key)
            if read is not None and _find_owner(read[0]) == self._owner:
                self._bucket.delete([self._key])

    def _renew(self) -> None:
        other = self._write()
        if other is not None:
            minutes = (time.time() - self._renewed_at) / 60
            self._lost = (
                f"{self._address} is being written by another run ({other.name}), for this one had not renewed its "
                f"lease for {minutes:.0f} minutes: this machine slept, or had lost the store. Nothing more is asked. "
                f"What was answered is kept in {self._folder}: wait for the other one to end, and run the same command "
                "again, which takes what is there and adds it"
            )

    def _write(self) -> _Writer | None:
        """Say that this one is the writer; give the other one where there is one that lives."""
        while True:
            began = time.time()
            read = self._bucket.read(self._key)
            if read is not None and _find_owner(read[0]) != self._owner:
                age = (datetime.now(UTC) - read[1].modified).total_seconds()
                if age < LEASE_SECONDS:
                    return _Writer(_find_name(read[0]), max(0.0, age))
            with suppress(ConflictError):  # somebody was first: another worker of this mirror, perhaps
                self._bucket.write(self._key, _describe(self._owner), "nothing" if read is None else read[1].version)
                self._renewed_at = self._looked_at = began
                self._was_there = read is not None and _find_owner(read[0]) == self._owner
                return None


@contextmanager
def hold_lease(address: StoreAddress, folder: Path, is_last: Callable[[], bool]) -> Iterator[Lease]:
    """Be the writer of the teacher folder at `address`, whose mirror is `folder`, during the block.

    Several workers of one mirror may be. `is_last` says at the end whether none is left. Raises LockedError where
    somebody else writes there, and StoreError where nobody may.
    """
    lease = Lease(address, folder)
    lease.take()
    ended = Event()
    thread = Thread(target=lease.renew_until, args=(ended,), daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        if is_last():
            lease.give_up()


def describe_writer(bucket: Bucket, address: StoreAddress) -> str:
    """Say who writes to a teacher folder, as far as the store knows."""
    read = bucket.read((address / NAME).path)
    return "another run" if read is None else f"another run ({_find_name(read[0])})"


def _describe(owner: str) -> bytes:
    return json.dumps({"owner": owner, "writer": f"process {os.getpid()} on {socket.gethostname()}"}).encode()


def _find_owner(content: bytes) -> str | None:
    return _find(content, "owner")


def _find_name(content: bytes) -> str:
    return _find(content, "writer") or "another process"


def _find(content: bytes, name: str) -> str | None:
    try:
        return str(json.loads(content)[name])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _name_owner(folder: Path) -> str:
    """The name of a mirror's workers, made once, whichever of them come first."""
    path = folder / _OWNER
    with lock_file(folder / _OWNER_LOCK):
        if not path.exists():
            replace_file(path, token_hex(16).encode())
        return path.read_text()
