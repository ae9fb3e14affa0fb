"""A local folder that stands for one in an object store: its manifest is copied, its shards stay where they are.

    <place>/s3/bucket/data/mnli/teacher=<name>/manifest.json    a copy
                                               .store.json      the address, and what lies there: path, bytes, version

<place> is that of readers, stores/ of the cache folder, which may be emptied at any time, or that of writers.
Everything that reads shards reads a mirror: a file that is not in it is read from the store, by ranges.
"""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from shared.errors import ShardError
from shared.stores.address import StoreAddress
from shared.stores.client import Bucket, StoredObject, Version, find_endpoint, open_bucket
from shared.stores.places import place_mirror, readers_place, spell_mirrors

MANIFEST_NAME = "manifest.json"
MARKER = ".store.json"
_SPLIT = "split="
_ATTEMPTS = 3  # to read a manifest and the list of its shards with no writer in between


@dataclass(frozen=True, slots=True)
class Listed:
    """A shard's object: its size in bytes, and its etag, which tells its versions apart."""

    size: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class Mirror:
    """What a teacher folder in a store holds: its manifest of that `version`, and its shards, by path below it.

    `digest` is the sha256 of the manifest's bytes; both are None where there is none. `endpoint` is the one that the
    environment named, if it did: stores at two of them may have buckets of one name. `bill` is how many rows the
    manifest has ever had and what they cost, where that is noted.
    """

    address: StoreAddress
    version: Version | None
    shards: Mapping[str, Listed] = field(default_factory=dict)
    digest: str | None = None
    endpoint: str | None = None
    bill: tuple[int, float | None] | None = None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a mirror that is not on this disk. `listed` is None where the store has no such shard either."""

    address: StoreAddress
    listed: Listed | None


def mirror_for_reading(address: StoreAddress) -> Path:
    """Copy the manifests at an address to readers' mirrors, as they are now, and return the folder there.

    `address` is that of one teacher folder, of a task's or of a folder of tasks. Raises StoreError where the store
    fails, and ShardError where it holds no harvest there.
    """
    bucket = open_bucket(address)
    place = readers_place()
    teachers = list_teachers(bucket, address)
    if not teachers:
        raise ShardError(f"{address} holds no teacher's answers; make some with: harvest run --out {address}")
    for teacher in teachers:
        mirror, content = read_mirror(bucket, teacher)
        if content is None:
            raise ShardError(f"{teacher} holds no {MANIFEST_NAME} any more: somebody removed it just now")
        folder = place_mirror(place, teacher)
        folder.mkdir(parents=True, exist_ok=True)
        write_marker(folder, mirror)
        _replace(folder / MANIFEST_NAME, content)
    folder = place_mirror(place, address)
    _remove_gone(folder, {place_mirror(place, teacher) for teacher in teachers})
    return folder


def list_teachers(bucket: Bucket, address: StoreAddress) -> list[StoreAddress]:
    """List the teacher folders that have a manifest: the address itself, those right below it, or two levels below."""
    level = [address]
    for depth in range(3):
        found, below = [], []
        for folder in level:
            folders, files = bucket.list_folder(folder.path)
            if any(file.key == (folder / MANIFEST_NAME).path for file in files):
                found.append(folder)
            elif not folder.name.startswith("teacher="):
                inside = [StoreAddress(address.scheme, address.bucket, key) for key in folders]
                below += [each for each in inside if depth == 0 or each.name.startswith("teacher=")]
        if found:
            return found
        level = below
    return []


def read_mirror(bucket: Bucket, address: StoreAddress) -> tuple[Mirror, bytes | None]:
    """Read the manifest of a teacher folder in a store, and list its shards; no manifest where there is none."""
    for attempt in range(_ATTEMPTS):
        read = bucket.read((address / MANIFEST_NAME).path)
        shards = list_shards(bucket, address)
        if read is None:
            return Mirror(address, None, shards, endpoint=find_endpoint(address)), None
        content, described = read
        named = (shard.get("path") for shard in _list_named(content))
        # A writer replaces the manifest, and then removes what the old one named.
        if attempt + 1 == _ATTEMPTS or all(path in shards for path in named):
            break
    return Mirror(address, described.version, shards, sha256(content).hexdigest(), find_endpoint(address)), content


def _list_named(content: bytes) -> Iterable[dict[str, Any]]:
    """The entries of a manifest's shards; none where it is no manifest, which load_manifest says."""
    try:
        decoded = json.loads(content)
        return [shard for shard in decoded["shards"] if isinstance(shard, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def list_shards(bucket: Bucket, address: StoreAddress) -> dict[str, Listed]:
    """List the Parquet files of a teacher folder in a store, by their path below it."""
    folders, _ = bucket.list_folder(address.path)
    splits = [key for key in folders if key.rpartition("/")[2].startswith(_SPLIT)]
    files: list[StoredObject] = [file for key in splits for file in bucket.list_files(key)]
    start = len(address.path) + 1 if address.path else 0
    return {file.key[start:]: Listed(file.size, file.version.etag) for file in files if file.key.endswith(".parquet")}


def write_marker(folder: Path, mirror: Mirror) -> None:
    """Write what a mirror holds into its folder."""
    version = None if mirror.version is None else [mirror.version.etag, mirror.version.number]
    content = {
        "address": [mirror.address.scheme, mirror.address.bucket, mirror.address.path],
        "version": version,
        "sha256": mirror.digest,
        "endpoint": mirror.endpoint,
        "bill": mirror.bill,
        "shards": {path: [listed.size, listed.etag] for path, listed in mirror.shards.items()},
    }
    _replace(folder / MARKER, json.dumps(content).encode())


def read_marker(folder: Path) -> Mirror | None:
    """Read what the mirror `folder` holds; None of a folder that is none."""
    marker = folder / MARKER
    try:
        stat = marker.stat()
    except OSError:
        return None
    return _read_marker(marker, (stat.st_ino, stat.st_mtime_ns))


@lru_cache(maxsize=64)
def _read_marker(marker: Path, state: tuple[int, int]) -> Mirror:
    """`state` is the file's inode and when it was written: each is written once, and then replaced."""
    content = json.loads(marker.read_bytes())
    version = None if content["version"] is None else Version(*content["version"])
    shards = {path: Listed(*listed) for path, listed in content["shards"].items()}
    bill = (content["bill"][0], content["bill"][1]) if content.get("bill") else None
    address = StoreAddress(*content["address"])
    return Mirror(address, version, shards, content["sha256"], content.get("endpoint"), bill)


def find_remote(path: Path) -> RemoteFile | None:
    """Find the object that a shard's path in a mirror stands for; None where the file is here, or in no mirror."""
    if path.exists():
        return None
    mirror = read_marker(path.parent.parent)
    if mirror is None:
        return None
    inside = f"{path.parent.name}/{path.name}"
    return RemoteFile(mirror.address / inside, mirror.shards.get(inside))


def list_shard_files(folder: Path) -> set[Path]:
    """List the Parquet files of a teacher folder: those that are here, and those that a mirror stands for."""
    mirror = read_marker(folder)
    remote = set() if mirror is None else {folder / path for path in mirror.shards}
    return {*folder.glob("split=*/*.parquet"), *remote}


def read_stored(path: Path) -> bytes | None:
    """Read a small file of a mirror from the store; None where it is not there either, and of what is no mirror's."""
    for folder in path.parents:
        mirror = read_marker(folder)
        if mirror is not None:
            found = open_bucket(mirror.address).read((mirror.address / path.relative_to(folder).as_posix()).path)
            return None if found is None else found[0]
    return None


def hash_remote(remote: RemoteFile) -> str:
    """Compute the sha256, in hexadecimal, of an object's bytes as they are in the store now."""
    total = sha256()
    for piece in open_bucket(remote.address).stream(remote.address.path):
        total.update(piece)
    return total.hexdigest()


def spell_place(folder: Path) -> str:
    """Spell a folder as a user knows it: a mirror, or what a mirror lies in, by its address."""
    for parent in (folder, *folder.parents):
        mirror = read_marker(parent)
        if mirror is not None:
            return "/".join((str(mirror.address), *folder.relative_to(parent).parts))
    return spell_mirrors(str(folder))


def _replace(path: Path, content: bytes) -> None:
    """Replace a file at once. It need not survive a power loss: it can be copied again."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _remove_gone(folder: Path, kept: set[Path]) -> None:
    """Remove the copies of manifests that are in the store no longer."""
    for pattern in (MANIFEST_NAME, f"*/{MANIFEST_NAME}", f"*/*/{MANIFEST_NAME}"):
        for path in folder.glob(pattern):
            if path.parent not in kept:
                (path.parent / MARKER).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                with suppress(OSError):  # vectors that were made of its replies may be beside it
                    path.parent.rmdir()
