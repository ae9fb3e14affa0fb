"""A teacher folder of this disk that is written for an object store: what is sealed here is uploaded, and named there.

    the store     manifest.json     replaced by conditional writes alone: of two writers one is refused
                  split=<split>/    uploaded before the manifest that names them; an upload that was cut is never named
                  writer.json       who writes (shared.stores.lease)
    this disk     manifest.json     what is sealed; shards that the store's manifest does not name yet
                  journal/          rows that are not sealed yet, as in any teacher folder

A shard that the store's manifest names is removed here, and read from there. All of it runs under the folder's lock.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from shared.disk import explain_disk_errors, lock_file, make_folder, remove_file
from shared.errors import LockedError, RecipeMismatchError, ShardError, StoreError
from shared.shards.manifest import (
    MANIFEST_NAME,
    Manifest,
    check_recipe,
    decode_manifest,
    encode_manifest,
    load_own_manifest,
    save_manifest,
    shard_id,
)
from shared.shards.pending import join
from shared.shards.read import FOLDER_LOCK, count_unsealed
from shared.stores.address import StoreAddress, find_store_address
from shared.stores.client import ConflictError, find_endpoint, open_bucket
from shared.stores.lease import describe_writer
from shared.stores.mirror import Mirror, list_shards, list_teachers, read_marker, read_mirror, write_marker
from shared.stores.places import find_written_address, place_mirror, writers_place

_BESIDE = ("images", "audio")  # folders of files that rows name
_UPLOADS = 8  # files at once


def open_written_folder(path: Path) -> Path:
    """Bring the folder of this disk that is written for an address up to the store, and return it; or `path` itself.

    `path` is that of a task's folder, or of one teacher's. Raises StoreError within seconds where the store cannot be
    used.
    """
    address = find_store_address(path)
    if address is None:
        return path
    for teacher in list_teachers(open_bucket(address), address):
        folder = place_mirror(writers_place(), teacher)
        with explain_disk_errors(folder):
            make_folder(folder / "journal")
            with lock_file(folder / FOLDER_LOCK):
                take_over(folder, teacher)
    folder = place_mirror(writers_place(), address)
    with explain_disk_errors(folder):
        make_folder(folder)
    return folder


def take_over(folder: Path, address: StoreAddress) -> None:
    """Make the manifest of `folder` that of the store, with the rows behind it that were not published yet."""
    mirror, content = read_mirror(open_bucket(address), address)
    known = read_marker(folder)
    own = load_own_manifest(folder) if (folder / MANIFEST_NAME).exists() else None
    if own is not None and known is not None and known.endpoint != mirror.endpoint:
        _check_same_store(folder, own, known, mirror)
    if content is None:
        if known is not None and known.version is not None:
            raise ShardError(
                f"{address} has no {MANIFEST_NAME} any more, though {folder} has published one: put it back, or move "
                "that folder away to begin anew. Nothing was changed"
            )
        write_marker(folder, replace(mirror, bill=(0, 0.0)))
        return
    stored = decode_manifest(content, f"{address}/{MANIFEST_NAME}")
    if known is None or known.version != mirror.version or own is None:
        if own is not None:
            _check_same_recipe(folder, own, stored, address)
        for split in {shard.split for shard in stored.shards}:
            make_folder(folder / f"split={split}")
        # Shards are found; what is published is not settled yet.
        write_marker(folder, replace(mirror, version=None, bill=None))
        if own is None:
            save_manifest(folder, stored)
        elif encode_manifest(own) != content:
            sealing = join(folder, own, stored, None if known is None else known.bill)
            save_manifest(folder, sealing.manifest)
            for path in sealing.obsolete:
                if path.exists():
                    remove_file(path)
    write_marker(folder, replace(mirror, bill=(stored.answers, stored.cost_usd)))
    for shard in stored.shards:  # of a run that was killed after it had published them
        listed = mirror.shards.get(shard.path)
        if listed is not None and listed.size == shard.bytes:
            (folder / shard.path).unlink(missing_ok=True)


def _check_same_store(folder: Path, own: Manifest, known: Mirror, mirror: Mirror) -> None:
    """Raise ShardError where rows wait in `folder` for a bucket of the same name at another endpoint.

    It is the same store by another name where its manifest is of the version that is known here.
    """
    rows = _count_rows_here(folder, own)
    if rows and (mirror.version is None or mirror.version != known.version):
        before, now = (one.endpoint or "its owner's endpoint" for one in (known, mirror))
        raise ShardError(
            f"{rows:,} rows wait in {folder} to be uploaded to {mirror.address} at {before}, and at {now} is another "
            f"store: run this once with the endpoint as it was, or move {folder} away, where they stay. Nothing was "
            "changed"
        )


def _check_same_recipe(folder: Path, own: Manifest, stored: Manifest, address: StoreAddress) -> None:
    """Raise RecipeMismatchError where rows wait in `folder` and the store holds the answers to another recipe."""
    rows = _count_rows_here(folder, own)
    try:
        if rows:
            check_recipe(folder, own, stored)
    except RecipeMismatchError:
        raise RecipeMismatchError(
            f"{rows:,} rows wait in {folder} to be uploaded to {address}, which holds the answers to another recipe "
            f"by now: put back what was there, or move {folder} away, where they stay. Nothing was changed"
        ) from None


def publish(folder: Path, manifest: Manifest) -> None:
    """Upload the shards of `folder` that the store's manifest does not name, and then the manifest; of a folder that is
    written for no store, nothing.

    Raises LockedError where another run has published since, and StoreError where the store fails. Everything is on
    this disk then, as it was.
    """
    address = find_written_address(folder)
    if address is None:
        return
    try:
        _publish(folder, manifest, address)
    except StoreError as error:
        raise StoreError(f"{error}. What was answered is kept in {folder}, and the next run uploads it") from None
    except ConflictError:
        raise _refuse(folder, address) from None


def check_place(folder: Path) -> None:
    """Raise LockedError where another run has published since, to the store for which `folder` is written."""
    mirror = read_marker(folder)
    if mirror is not None:
        read = open_bucket(mirror.address).read((mirror.address / MANIFEST_NAME).path)
        if read is not None and read[1].version != mirror.version:
            raise _refuse(folder, mirror.address)


def _refuse(folder: Path, address: StoreAddress) -> LockedError:
    return LockedError(
        f"{address} was written by {describe_writer(open_bucket(address), address)} since this one began, and this "
        f"one's rows were not mixed in. They are kept in {folder}: run the same command again, which takes what is "
        "there and adds them"
    )


def _publish(folder: Path, manifest: Manifest, address: StoreAddress) -> None:
    mirror = read_marker(folder) or Mirror(address, None)
    content = encode_manifest(manifest)
    digest = sha256(content).hexdigest()
    if mirror.digest == digest and mirror.version is not None:
        return
    bucket = open_bucket(address)
    here = [shard.path for shard in manifest.shards if (folder / shard.path).exists()]
    beside = [path for name in _BESIDE for path in folder.glob(f"{name}/*/*") if not path.name.startswith(".")]
    files = [*here, *(path.relative_to(folder).as_posix() for path in beside)]  # none that is being written
    with ThreadPoolExecutor(_UPLOADS) as pool:
        keys = [(address / path).path for path in files]
        list(pool.map(bucket.upload, keys, [folder / path for path in files]))
    shards = list_shards(bucket, address) if here else mirror.shards
    for path in here:
        wanted, found = (folder / path).stat().st_size, shards.get(path)
        if found is None or found.size != wanted:
            raise StoreError(f"{address}/{path} was not uploaded whole: {wanted} bytes were sent")
    key = (address / MANIFEST_NAME).path
    try:
        version = bucket.write(key, content, mirror.version or "nothing")
    except ConflictError:
        read = bucket.read(key)  # perhaps by this very write, whose answer was lost
        if read is None:
            raise
        if read[0] != content:
            theirs = {shard.path for shard in decode_manifest(read[0], f"{address}/{MANIFEST_NAME}").shards}
            bucket.delete([(address / path).path for path in here if path not in theirs])  # which nobody names
            raise
        version = read[1].version
    named, sealed = {shard.path for shard in manifest.shards}, manifest.sealed_ids()
    obsolete = [path for path in shards if path not in named and shard_id(path) in sealed]
    left = {path: listed for path, listed in shards.items() if path not in obsolete}
    bill = manifest.answers, manifest.cost_usd
    write_marker(folder, Mirror(address, version, left, digest, find_endpoint(address), bill))
    for path in files:
        (folder / path).unlink()
    bucket.delete([(address / path).path for path in obsolete])


def count_waiting(folder: Path) -> tuple[int, Path] | None:
    """Count the rows that wait on this disk to be uploaded to the store that `folder` is a readers' mirror of, and say
    where; None where none do.
    """
    mirror = read_marker(folder)
    written = None if mirror is None else place_mirror(writers_place(), mirror.address)
    if written is None or written == folder or not (written / MANIFEST_NAME).exists():
        return None
    rows = _count_rows_here(written, load_own_manifest(written))
    return (rows, written) if rows else None


def is_published(folder: Path) -> bool:
    """Tell whether nothing of a folder that is written for a store waits on this disk."""
    return not (folder / MANIFEST_NAME).exists() or not _count_rows_here(folder, load_own_manifest(folder))


def _count_rows_here(folder: Path, manifest: Manifest) -> int:
    """Count the rows that are on this disk, in journals and shards, of a folder that is written for a store."""
    sealed = sum(shard.rows for shard in manifest.shards if (folder / shard.path).exists())
    return sealed + sum(count_unsealed(folder, manifest).values())


def read_published(path: Path) -> bytes | None:
    """Read one file of a folder: as it is in the store for which the folder is written, or on this disk; None where
    there is none.
    """
    address = find_written_address(path)
    if address is None:
        return path.read_bytes() if path.is_file() else None
    found = open_bucket(address).read(address.path)
    return None if found is None else found[0]


def publish_file(path: Path) -> None:
    """Upload one file of a folder that is written for a store, such as a card; of any other folder, nothing."""
    address = find_written_address(path)
    if address is not None and path.is_file():
        open_bucket(address).upload(address.path, path)
