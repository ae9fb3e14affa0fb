"""Who writes to a teacher folder in an object store: an object that its writer renews as long as it lives.

It keeps two writers from paying for the same answers. That neither overwrites what the other has published does not
rest on it, or on any clock, but on the conditional write of the manifest (shared.shards.publish).
"""

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from threading import Event, Thread
from typing import Literal

from shared.disk import lock_file, replace_file
from shared.errors import LockedError, StoreError
from shared.stores.address import StoreAddress
from shared.stores.client import Bucket, ConflictError, Version, open_bucket

NAME = "writer.json"
LEASE_SECONDS = 120  # after which a writer that was not heard of is taken for dead
_RENEW_SECONDS = 30
_OWNER = ".store-writer"  # in a mirror: what its workers call themselves
_OWNER_LOCK = ".store-writer.lock"

log = logging.getLogger(__name__)


@contextmanager
def hold_lease(address: StoreAddress, folder: Path, is_last: Callable[[], bool]) -> Iterator[None]:
    """Be the writer of the teacher folder at `address`, whose mirror is `folder`, during the block.

    Several workers of one mirror may be. `is_last` says at the end whether none is left. Raises LockedError where
    somebody else writes there, and StoreError where nobody may.
    """
    bucket, key = open_bucket(address), (address / NAME).path
    owner = _name_owner(folder)
    _take(bucket, address, key, owner)
    ended = Event()
    thread = Thread(target=_renew, args=(bucket, key, owner, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(StoreError):  # it runs out by itself
            read = bucket.read(key)
            if read is not None and _find_owner(read[0]) == owner and is_last():
                bucket.delete([key])


def describe_writer(bucket: Bucket, address: StoreAddress) -> str:
    """Say who writes to a teacher folder, as far as the store knows."""
    read = bucket.read((address / NAME).path)
    return "another run" if read is None else f"another run ({_find_name(read[0])})"


def _take(bucket: Bucket, address: StoreAddress, key: str, owner: str) -> None:
    over: Version | Literal["nothing"] = "nothing"
    while True:
        try:
            bucket.write(key, _describe(owner), over)
            return
        except ConflictError:  # somebody was first: another worker of this mirror, perhaps
            read = bucket.read(key)
        over = "nothing"  # where it was given up just now
        if read is not None:
            other, found = read
            age = (datetime.now(UTC) - found.modified).total_seconds()
            if _find_owner(other) != owner and age < LEASE_SECONDS:
                raise _refuse(address, other, age)
            over = found.version


def _refuse(address: StoreAddress, other: bytes, age: float) -> LockedError:
    return LockedError(
        f"{address} is being written by {_find_name(other)}, which was heard of {max(0, age):.0f} s ago: wait for it "
        f"to end, or stop it. Where it was killed, the folder is free {LEASE_SECONDS} s after it was last heard of. "
        "Nothing was asked"
    )


def _renew(bucket: Bucket, key: str, owner: str, ended: Event) -> None:
    while not ended.wait(_RENEW_SECONDS):
        try:
            read = bucket.read(key)
            version: Version | None = None
            if read is not None:
                if _find_owner(read[0]) != owner:
                    return  # somebody took this one for dead: the next manifest is refused, and says so
                version = read[1].version
            with suppress(ConflictError):  # another worker of the same mirror was first
                bucket.write(key, _describe(owner), version or "nothing")
        except StoreError as error:
            log.info("the lease was not renewed: %s", error)


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
