"""Read kept replies again with today's parser: what was paid for once is asked never again.

Each sealed shard in which an answer changes is replaced by a new version of it. The bill, the raw replies, the requests
and the pictures stay as they are; so does the body of a reply that broke off: nobody knows what it would have said.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harvest.chat.reply import parse
from harvest.chat.scoring import LabelWords
from harvest.looking.card import write_card
from harvest.teachers.endpoint.asker import BROKEN
from harvest.teachers.endpoint.elicitation import Means, read_means
from shared.console import track
from shared.errors import UsageError
from shared.shards import Manifest, TeacherFolder, choose_teacher, load_manifest

# What a parser makes of a reply. Its bill is not its own to change.
_READ = (
    *("status", "reply", "finish_reason", "label_logprobs", "residual_mass"),
    *("topk_ids", "topk_logprobs", "error"),
)


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
    """Reads the rows of one recipe again. Raises UsageError where the teacher keeps no reply that can be."""

    def __init__(self, manifest: Manifest) -> None:
        recipe = manifest.recipe
        means = read_means(recipe) if recipe.get("teacher") == "endpoint" else None
        if means is None:
            raise UsageError(
                f"the answers of {manifest.teacher} come from no endpoint's replies that this version knows, so there "
                "is nothing to read again"
            )
        self._means: Means = means
        is_classification = manifest.kind == "classification"
        self._words = LabelWords(recipe["prompt"]["label_words"]) if is_classification else None

    def read(self, table: pa.Table) -> _Reading:
        """`table`, rows of all columns, with what today's parser reads in its raw replies."""
        columns = {name: table[name].to_pylist() for name in _READ}
        rows = [
            row
            for row, raw in enumerate(table["raw"])
            if raw.is_valid and not (columns["error"][row] or "").startswith(BROKEN)
        ]
        new: dict[str, list[Any]] = {name: list(values) for name, values in columns.items()}
        keeps_topk = table["topk_ids"].null_count < table.num_rows
        form = self._means.make_form(self._words, keep_topk=keeps_topk)
        for row in rows:
            answer = parse(table["raw"][row].as_py(), form).answer
            for name in _READ:
                new[name][row] = getattr(answer, name)
        revised = table
        for name in _READ:
            field = table.schema.field(name)
            revised = revised.set_column(table.schema.get_field_index(name), field, _make_column(new[name], field.type))
        # Compared as they are stored: in the precision of their columns.
        after = {name: revised[name].to_pylist() for name in _READ}
        changed = [row for row in rows if any(columns[name][row] != after[name][row] for name in _READ)]
        statuses = Counter(
            f"{columns['status'][row]} -> {after['status'][row]}"
            for row in changed
            if columns["status"][row] != after["status"][row]
        )
        return _Reading(revised if changed else table, len(rows), len(changed), statuses)


def reparse(path: Path, teacher: str | None = None) -> Reparsing:
    """Read the replies of one teacher's folder again. Sends nothing; after a crash at any point it can be run again.

    Raises LockedError where a harvest is writing to the folder.
    """
    folder_path = choose_teacher(path, teacher)
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
                with pq.ParquetFile(folder_path / shard.path) as file:
                    for index in range(file.num_row_groups):
                        reading = rereader.read(file.read_row_group(index, use_threads=False))
                        rows += reading.table.num_rows
                        reread += reading.reread
                        in_shard += reading.changed
                        statuses.update(reading.statuses)
                        tracker.advance(reading.table.num_rows, f"{changed + in_shard:,} changed")
                if in_shard:
                    folder.rewrite(shard, lambda table: rereader.read(table).table)
                changed += in_shard
    write_card(folder_path.parent)
    return Reparsing(str(folder_path), rows, reread, changed, dict(statuses))


def _make_column(values: list[Any], kind: pa.DataType) -> pa.Array:
    import numpy as np

    if pa.types.is_list(kind) and pa.types.is_list(kind.value_type) and kind.value_type.value_type == pa.float16():
        values = [None if one is None else [np.asarray(token, np.float16) for token in one] for one in values]
    return pa.array(values, kind)
