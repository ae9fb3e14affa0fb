"""Rows that were answered here and are not in the store's manifest, which another writer has replaced meanwhile.

Both have been paid for. Where both answer a row, the better answer stays, and of two as good ones the store's.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shared.disk import remove_file, take_lock
from shared.errors import LockedError
from shared.schema import Status
from shared.shards.journal import JournalReader
from shared.shards.manifest import Manifest, Shard, Superseded, save_manifest
from shared.shards.read import journal_lock, list_journals
from shared.shards.seal import Sealing, remove_rows, seal_journal
from shared.shards.sealed_rows import SealedRows
from shared.stores.parquet import open_parquet

_RowId = tuple[str, int]
_WORTH = {Status.OK.value: 3, Status.FAILED.value: 1, Status.UNASKED.value: 0}  # of an answer
_WORTH_OF_REPLY = 2  # one that was cut, refused, or cannot be read


def join(folder: Path, own: Manifest, stored: Manifest, bill: tuple[int, float | None] | None) -> Sealing:
    """Put what waits in `folder`, whose manifest is `own`, behind what the store's manifest has: each row once.

    `bill` is how many rows the manifest had, and what they had cost, with which both began; None where it is not known.
    What either has paid for since is in the books, though it was superseded before they met.
    """
    if not _find_pending(folder, own, stored):  # what was sealed here has been published, if only just
        bill = own.answers, own.cost_usd
    own = _seal_ended(folder, own, stored)
    sealing = _add(folder, stored, _find_pending(folder, own, stored))
    if bill is None:
        return sealing
    there = replace(sealing.manifest, superseded=Superseded())
    rows = max(0, stored.answers + own.answers - bill[0] - there.answers)
    costs = [cost for cost in (stored.cost_usd, own.cost_usd, bill[1], there.cost_usd) if cost is not None]
    cost = max(0.0, costs[0] + costs[1] - costs[2] - costs[3]) if len(costs) == 4 else None
    return replace(sealing, manifest=replace(there, superseded=Superseded(rows, cost if rows else 0.0)))


def _seal_ended(folder: Path, manifest: Manifest, stored: Manifest) -> Manifest:
    """Seal what journals of `folder` hold that nobody writes to any more, before the store's manifest takes the place
    of `manifest`, that of the folder; give what that is then.

    A row of a journal takes the place of a sealed one, so a failed row would take that of an answer that another writer
    has paid for since. As shards they are weighed.
    """
    for journal in list_journals(folder, manifest):
        try:
            descriptor = take_lock(journal_lock(journal), f"{folder} is being written", "give another worker name")
        except LockedError:  # its writer lives, and seals it
            continue
        try:
            with JournalReader(journal) as reader:
                if reader.schema is None:  # damaged: left to who opens the folder
                    continue
            waiting = _find_pending(folder, manifest, stored)
            others = tuple(shard for shard in manifest.shards if shard not in waiting)
            sealing = seal_journal(folder, replace(manifest, shards=waiting), journal, SealedRows())
            manifest = replace(sealing.manifest, shards=(*others, *sealing.manifest.shards))
            save_manifest(folder, manifest)
            for path in sealing.obsolete:
                remove_file(path)
        finally:
            os.close(descriptor)
    return manifest


def _find_pending(folder: Path, manifest: Manifest, stored: Manifest) -> tuple[Shard, ...]:
    """The shards of `folder` that the store does not know."""
    sealed = stored.sealed_ids()
    return tuple(shard for shard in manifest.shards if shard.id not in sealed and (folder / shard.path).exists())


def _add(folder: Path, stored: Manifest, pending: Sequence[Shard]) -> Sealing:
    """Put pending shards of `folder` behind those of `stored`: each row once, and in the books what goes for that."""
    obsolete: list[Path] = []
    for split in dict.fromkeys(shard.split for shard in pending):
        own = [shard for shard in pending if shard.split == split]
        ours = dict(_read_rows(folder, own, None))
        theirs = dict(_read_rows(folder, stored.shards_of(split), pa.array([name for name, _ in ours], pa.string())))
        both = [row for row in theirs if row in ours]
        better = [row for row in both if ours[row] > theirs[row]]
        worse = [row for row in both if ours[row] <= theirs[row]]
        kept = _drop(folder, stored, split, better, obsolete)
        added = _drop(folder, replace(stored, shards=tuple(own), superseded=Superseded()), split, worse, obsolete)
        stored = replace(
            kept,
            shards=(*kept.shards, *added.shards),
            retired=tuple(dict.fromkeys((*kept.retired, *added.retired))),
            superseded=kept.superseded.add(added.superseded),
        )
    return Sealing(stored, tuple(obsolete))


def _drop(folder: Path, manifest: Manifest, split: str, rows: Sequence[_RowId], obsolete: list[Path]) -> Manifest:
    if not rows:
        return manifest
    sealing = remove_rows(folder, manifest, split, rows, SealedRows())
    obsolete += sealing.obsolete
    return sealing.manifest


def _read_rows(folder: Path, shards: Iterable[Shard], wanted: pa.Array | None) -> Iterator[tuple[_RowId, int]]:
    """The rows of some shards, those with a sample id among `wanted`, and what their answer is worth."""
    for shard in shards:
        with open_parquet(folder / shard.path) as file:
            for index in range(file.num_row_groups):
                table = file.read_row_group(index, columns=["sample_id", "draw", "status"], use_threads=False)
                if wanted is not None:
                    table = table.filter(pc.is_in(table["sample_id"], value_set=wanted))
                columns = [table[name].to_pylist() for name in ("sample_id", "draw", "status")]
                for sample_id, draw, status in zip(*columns, strict=True):
                    yield (sample_id, draw), _WORTH.get(status, _WORTH_OF_REPLY)
