"""Read kept replies again with today's parser: what was paid for once is asked never again.

Each sealed shard in which an answer changes, or that an older version wrote, is replaced by a new version of it. The
bill, the raw replies, the requests and the pictures stay as they are; so does the body of a reply that broke off:
nobody knows what it would have said.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from harvest.chat.elicitation import READ_COLUMNS
from harvest.chat.reply import BROKEN
from harvest.looking.card import write_card
from harvest.teachers.rereading import find_reread
from shared.console import say, track
from shared.errors import UsageError
from shared.hub_shards import find_hub_address
from shared.schema import SCHEMA_VERSION, Status, make_column, read_version, upgrade_table
from shared.shards import Manifest, TeacherFolder, choose_teacher, load_manifest
from shared.shards.publish import open_written_folder
from shared.stores.mirror import read_marker, spell_place
from shared.stores.parquet import open_parquet

# Kept where the user wished for them, which a recipe does not say: of a shard that has none they are not made.
_TOPK = ("topk_ids", "topk_logprobs", "topk_tail")


@dataclass(frozen=True, slots=True)
class Reparsing:
    """What came of it: rows that are kept, those whose reply was read again, and those whose answer changed.

    `statuses` counts the changes of status, as "unparsable -> ok".
    """

    folder: str
    rows: int
    reread: int
    changed: int
    statuses: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Reading:
    table: pa.Table
    reread: int
    changed: int
    statuses: Counter[str]


class Rereader:
    """Reads the rows of one recipe again. Raises UsageError where nobody here can."""

    def __init__(self, manifest: Manifest) -> None:
        self._reread = find_reread(manifest.recipe)
        self._joined = "onto" in manifest.recipe

    def read(self, table: pa.Table) -> _Reading:
        """`table`, rows of all columns of today's schema, with what is read today in their `raw`."""
        columns = {name: table[name].to_pylist() for name in READ_COLUMNS}
        rows = [
            row
            for row, raw in enumerate(table["raw"])
            if raw.is_valid
            and not (columns["error"][row] or "").startswith(BROKEN)
            # Of a row that joins an answer and a vector, the vector may be what is not ok; no raw tells that.
            and not (self._joined and columns["status"][row] != Status.OK)
        ]
        if self._reread is None or not rows:
            return _Reading(table, 0, 0, Counter())
        keeps_topk = table["topk_ids"].null_count < table.num_rows
        new: dict[str, list[Any]] = {name: list(values) for name, values in columns.items()}
        for row in rows:
            for name, value in self._reread(table["raw"][row].as_py()).items():
                if keeps_topk or name not in _TOPK:
                    new[name][row] = value
        revised = table
        for name in READ_COLUMNS:
            at, field = table.schema.get_field_index(name), table.schema.field(name)
            revised = revised.set_column(at, field, make_column(new[name], field))
        # Compared as they are stored: in the precision of their columns.
        after = {name: revised[name].to_pylist() for name in READ_COLUMNS}
        changed = [row for row in rows if any(columns[name][row] != after[name][row] for name in READ_COLUMNS)]
        statuses = Counter(
            f"{columns['status'][row]} -> {after['status'][row]}"
            for row in changed
            if columns["status"][row] != after["status"][row]
        )
        return _Reading(revised if changed else table, len(rows), len(changed), statuses)

    def revise(self, table: pa.Table) -> pa.Table:
        """`table` as `read` makes it."""
        return self.read(table).table


def reparse(path: Path, teacher: str | None = None) -> Reparsing:
    """Read the replies of one teacher's folder again, and bring its shards over to today's schema.

    Sends nothing; after a crash at any point it can be run again.

    Raises LockedError where a harvest is writing to the folder, and UsageError for a hub's address.
    """
    if (address := find_hub_address(path)) is not None:
        raise UsageError(f"{address} is read where it is and never written: harvest pull it, and reparse the folder")
    folder_path = choose_teacher(path, teacher)
    if (mirror := read_marker(folder_path)) is not None:
        folder_path = open_written_folder(Path(str(mirror.address)))
    manifest = load_manifest(folder_path)
    rereader = Rereader(manifest)
    rows = reread = changed = 0
    statuses: Counter[str] = Counter()
    with TeacherFolder.open(folder_path.parent, manifest) as folder:
        folder.seal()
        shards = folder.manifest.shards
        with track(f"reading {manifest.teacher} again", sum(shard.rows for shard in shards)) as tracker:
            for shard in shards:
                in_shard = 0
                with open_parquet(folder_path / shard.path) as file:
                    is_older = read_version(file.schema_arrow) < SCHEMA_VERSION
                    for index in range(file.num_row_groups):
                        reading = rereader.read(upgrade_table(file.read_row_group(index, use_threads=False)))
                        rows += reading.table.num_rows
                        reread += reading.reread
                        in_shard += reading.changed
                        statuses.update(reading.statuses)
                        tracker.advance(reading.table.num_rows, f"{changed + in_shard:,} changed")
                if in_shard or is_older:
                    folder.rewrite(shard, rereader.revise)
                changed += in_shard
        for note in folder.take_notes():
            say(note)
    write_card(folder_path.parent)
    return Reparsing(spell_place(folder_path), rows, reread, changed, dict(statuses))
