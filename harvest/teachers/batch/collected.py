"""Which jobs are done with: each of their answers is kept in the folder's shards or journals."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from harvest.teachers.batch.ledger import Job, Step
from shared.shards import iterate_pieces, load_manifest
from shared.shards.manifest import MANIFEST_NAME
from shared.stores.places import find_written_address


def find_collected(folder: Path, jobs: Sequence[Job]) -> list[Job]:
    """The jobs all of whose rows are kept in `folder`, as they or later ones answered them, or are in a later job.

    `jobs` are the oldest first. A row is theirs, or newer, by its `asked_at`: another machine may have brought a job to
    its end that is not at its end here.
    """
    steps = (Step.ENDED,) if find_written_address(folder) is None else (Step.CREATING, Step.CREATED, Step.ENDED)
    newest = {row.key: job for job in jobs for row in job.rows}
    left = {key: job for key, job in newest.items() if job.state.step in steps}
    if left and (folder / MANIFEST_NAME).exists():
        wanted = pa.array(left, pa.string())
        for piece in iterate_pieces(folder, load_manifest(folder), ("request_key", "asked_at")):
            table = piece.table.select(["request_key", "asked_at"])
            for row in table.filter(pc.is_in(table["request_key"], value_set=wanted)).to_pylist():
                key, asked_at = row["request_key"], row["asked_at"]
                job = left.get(key)
                if job is not None and asked_at is not None and asked_at >= job.asked_at:
                    del left[key]
    unfinished = {job.name for job in left.values()}
    return [job for job in jobs if job.state.step in steps and job.name not in unfinished]
