"""Pulling a harvest: somebody's data set of the hub becomes a shard folder of one's own, to train on and to add to."""

import shutil
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path

from harvest.looking.card import write_card
from harvest.sharing.contents import count_lost, count_raw, has_same_questions
from shared.disk import make_folder, remove_file, write_whole
from shared.errors import UsageError
from shared.remote_shards import fetch_shards, find_address, refuse_stored
from shared.shards import Claim, Manifest, Shard, check_readable, count_unsealed, find_teachers, hash_manifest
from shared.shards.manifest import MANIFEST_NAME, check_name, load_own_manifest, save_manifest


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull came to; the object that `--json` prints. `copied` counts the files that this pull wrote."""

    source: str
    folder: str
    task: str
    teachers: tuple[str, ...]
    rows: int
    copied: int


def pull_harvest(repo: str, folder: Path | str | None = None) -> PullReport:
    """Copy the harvest `repo`, org/name or hf://datasets/org/name[@revision][/teacher=x], to data/<task>/ or `folder`.

    Every shard is verified before anything is copied. A folder that was pulled before gets what came since; a pull that
    was cut off is whole when it is called again. Raises SourceError where there is no harvest, CorruptShardError where
    it is not whole, and UsageError where the folder holds another recipe's answers, or rows or raw replies that the
    harvest lacks: then nothing was written.
    """
    for place in (repo, folder or ""):
        refuse_stored(place, "harvest pull")
    address = find_address(repo) or f"hf://datasets/{repo}"
    pulled = {path: check_readable(path) for path in find_teachers(fetch_shards(address))}
    first = next(iter(pulled.values()))
    # A task's name is somebody else's text: it may lead out of data/.
    target = Path("data") / check_name("task", first.task) if folder is None else Path(folder)
    for path, manifest in pulled.items():
        _check_follows(target / f"teacher={manifest.teacher}", path, manifest, address)
    copied = sum(_copy(path, manifest, target) for path, manifest in pulled.items())
    write_card(target)
    return PullReport(
        address,
        str(target),
        first.task,
        tuple(manifest.teacher for manifest in pulled.values()),
        rows=sum(shard.rows for manifest in pulled.values() for shard in manifest.shards),
        copied=copied,
    )


def _check_follows(folder: Path, source: Path, manifest: Manifest, address: str) -> None:
    """Raise UsageError where what `folder` holds would not be in it any more, with `source` and its manifest."""
    way_out = "Give another FOLDER; nothing was written"
    if not (folder / MANIFEST_NAME).exists():
        named = {folder / shard.path for shard in manifest.shards}
        if strange := sorted({*folder.glob("split=*/*.parquet"), *folder.glob("journal/split=*/*.arrows")} - named):
            raise UsageError(f"{strange[0]} is there already, and is not of {address}. {way_out}")
        return
    kept = load_own_manifest(folder)
    if not has_same_questions(kept, manifest):
        raise UsageError(f"{folder} holds the answers to another recipe than {address}. {way_out}")
    lost = count_lost(kept, manifest) + sum(count_unsealed(folder, kept).values())
    if lost:
        raise UsageError(f"{folder} holds {lost:,} rows that {address} has not. {way_out}")
    if raw := _count_lost_raw(folder, kept, source, manifest):
        raise UsageError(f"{folder} holds {raw:,} raw replies that {address} was pushed without. {way_out}")


def _count_lost_raw(folder: Path, kept: Manifest, source: Path, manifest: Manifest) -> int:
    """How many raw replies stand in shards that would be replaced by the same ones without any (push --raw drop)."""
    new = {shard.id: shard for shard in manifest.shards}
    lost = 0
    for shard in kept.shards:
        other = new.get(shard.id)
        if other is None or other.sha256 == shard.sha256:
            continue
        if not count_raw(source, replace(manifest, shards=(other,))):
            lost += count_raw(folder, replace(kept, shards=(shard,)))
    return lost


def _copy(source: Path, manifest: Manifest, target: Path) -> int:
    """Make the teacher's folder in `target` what `source` is, the manifest last; return how many files that wrote."""
    with Claim(target, manifest.teacher) as claim:
        folder = claim.path
        old = load_own_manifest(folder) if (folder / MANIFEST_NAME).exists() else None
        missing = [shard for shard in manifest.shards if not _is_there(folder, shard)]
        for shard in missing:
            make_folder((folder / shard.path).parent)
            with write_whole(folder / shard.path) as temporary:
                shutil.copyfile(source / shard.path, temporary)
        if old is not None and hash_manifest(old) == hash_manifest(manifest):
            return len(missing)
        save_manifest(folder, manifest)
        named = {shard.path for shard in manifest.shards}
        for shard in old.shards if old is not None else ():
            if shard.path not in named:
                remove_file(folder / shard.path)
        return len(missing) + 1


def _is_there(folder: Path, shard: Shard) -> bool:
    path = folder / shard.path
    if not path.is_file() or path.stat().st_size != shard.bytes:
        return False
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest() == shard.sha256
