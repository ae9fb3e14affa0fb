"""Shards that were sealed here and are not in the store's manifest, which another writer has replaced meanwhile.

Both have been paid for. Where both answer a row, the whole answer stays, and of two whole ones the store's.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shared.schema import Status, sum_costs
from shared.shards.manifest import Manifest, Shard, Superseded
from shared.shards.seal import Sealing, remove_rows
from shared.stores.parquet import open_parquet

_RowId = tuple[str, int]


def join_pending(folder: Path, stored: Manifest, pending: Sequence[Shard]) -> Sealing:
    """Put pending shards of `folder` behind those of `stored`: each row once, and each cost in the books."""
    obsolete: list[Path] = []
    for split in dict.fromkeys(shard.split for shard in pending):
        own = [shard for shard in pending if shard.split == split]
        ours = dict(_read_rows(folder, own, None))
        theirs = dict(_read_rows(folder, stored.shards_of(split), pa.array([name for name, _ in ours], pa.string())))
        both = [row for row in theirs if row in ours]
        better = [row for row in both if ours[row] and not theirs[row]]
        worse = [row for row in both if row not in {*better}]
        kept = _drop(folder, stored, split, better, obsolete)
        added = _drop(folder, replace(stored, shards=tuple(own), superseded=Superseded()), split, worse, obsolete)
        stored = replace(
            kept,
            shards=(*kept.shards, *added.shards),
            retired=tuple(dict.fromkeys((*kept.retired, *added.retired))),
            superseded=Superseded(
                kept.superseded.rows + added.superseded.rows,
                sum_costs((kept.superseded.cost_usd, added.superseded.cost_usd)),
            ),
        )
    return Sealing(stored, tuple(obsolete))


def _drop(folder: Path, manifest: Manifest, split: str, rows: Sequence[_RowId], obsolete: list[Path]) -> Manifest:
    if not rows:
        return manifest
    sealing = remove_rows(folder, manifest, split, rows)
    obsolete += sealing.obsolete
    return sealing.manifest


def _read_rows(folder: Path, shards: Iterable[Shard], wanted: pa.Array | None) -> Iterator[tuple[_RowId, bool]]:
    """The rows of some shards, those with a sample id among `wanted`, and whether their answer is whole."""
    for shard in shards:
        with open_parquet(folder / shard.path) as file:
            for index in range(file.num_row_groups):
                table = file.read_row_group(index, columns=["sample_id", "draw", "status"], use_threads=False)
                if wanted is not None:
                    table = table.filter(pc.is_in(table["sample_id"], value_set=wanted))
                columns = [table[name].to_pylist() for name in ("sample_id", "draw", "status")]
                for sample_id, draw, status in zip(*columns, strict=True):
                    yield (sample_id, draw), status == Status.OK.value
