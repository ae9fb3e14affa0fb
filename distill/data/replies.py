"""The teacher's words as vectors: a frozen text encoder reads each reply once, and the shards keep what it gives.

    data/<task>/teacher=<name>/vectors/reply-<key>.npy    float16 (rows of the shard, d), NaN in a row without a reply

The key is a hash of the shard's bytes and of the encoder, so a file is right for as long as it is found.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill.data.columns import Array
from distill.data.split import Split
from distill.data.vectors import ShardVectors
from shared.console import track
from shared.disk import explain_disk_errors, lock_file, make_folder, write_whole
from shared.errors import ShardError
from shared.schema import Status
from shared.sentences import SentenceEncoder
from shared.shards.manifest import Manifest
from shared.shards.read import RowGroup, read_row_group

FOLDER = "vectors"
_VERSION = 1  # of how a reply becomes a vector; part of the key
_TEXTS = 256  # encoded together


def encode_replies(folder: Path, manifest: Manifest, split: Split, encoder: str) -> ShardVectors:
    """Find the vectors of the replies of a split's answered rows; those that the folder lacks are made there.

    `encoder` is a text encoder as shared.sources.resolve_model takes it, pooled as its own files say. Of processes that
    want the same, one makes them and the others wait. Raises SourceError for an encoder that cannot be loaded, and
    DiskError where the folder cannot be written; a row without a reply is named when its vector is wanted.
    """
    sentences = SentenceEncoder(encoder)
    fingerprint = sentences.fingerprint()
    hashes = {folder / shard.path: shard.sha256 for shard in manifest.shards}
    groups: dict[Path, list[RowGroup]] = {}
    for group in split.groups:
        groups.setdefault(group.path, []).append(group)
    files = {path: _name_file(folder, hashes[path], fingerprint) for path in groups}
    if not all(file.exists() for file in files.values()):
        with explain_disk_errors(folder / FOLDER):
            make_folder(folder / FOLDER)
            with lock_file(folder / FOLDER / ".lock"):
                missing = {path: file for path, file in files.items() if not file.exists()}
                rows = sum(group.rows for path in missing for group in groups[path])
                if missing:  # nobody made them while this process waited
                    with track(f"{manifest.teacher}: encoding the replies of {split.name}, once", rows) as tracker:
                        for path, file in missing.items():
                            _write(file, groups[path], sentences, tracker.advance)
    arrays = {path: _open(file) for path, file in files.items()}
    offsets: dict[tuple[Path, int], int] = {}
    for path, parts in groups.items():
        starts = np.cumsum([0, *(group.rows for group in parts)])
        if len(arrays[path]) != starts[-1]:
            raise ShardError(
                f"{files[path]} has {len(arrays[path])} rows, its shard {starts[-1]}: remove it, and the next run "
                "makes it again"
            )
        offsets |= {(path, group.index): int(start) for group, start in zip(parts, starts, strict=False)}
    return ShardVectors("reply", next(iter(arrays.values())).shape[1], arrays, offsets)


def _name_file(folder: Path, shard_hash: str, fingerprint: str) -> Path:
    key = sha256(f"{_VERSION}\0{shard_hash}\0{fingerprint}".encode()).hexdigest()
    return folder / FOLDER / f"reply-{key[:32]}.npy"


def _write(file: Path, groups: Sequence[RowGroup], sentences: SentenceEncoder, advance: Callable[[int], None]) -> None:
    """Write the vectors of one shard: the file is whole or is not there."""
    blocks = []
    for group in groups:
        table = read_row_group(group, ["status", "reply"])
        wanted = pc.and_(pc.equal(table["status"], Status.OK.value), table["reply"].is_valid())
        rows = np.flatnonzero(wanted.to_numpy())
        texts = table["reply"].take(pa.array(rows)).to_pylist()
        encoded = []
        for start in range(0, len(texts), _TEXTS):
            encoded.append(sentences.encode(texts[start : start + _TEXTS]))
            advance(len(encoded[-1]))
        advance(group.rows - len(rows))
        vectors = np.concatenate(encoded or [sentences.encode([])])
        block = np.full((group.rows, vectors.shape[1]), np.nan, np.float16)
        block[rows] = vectors
        blocks.append(block)
    with write_whole(file) as temporary, temporary.open("wb") as opened:
        np.save(opened, np.concatenate(blocks))


def _open(file: Path) -> Array:
    try:
        array: Array = np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ShardError(f"{file} cannot be read ({error}); remove it, and the next run makes it again") from None
    return array
