"""What a harvest is before it is given away: sealed, whole, without any key, and without raw replies if so wished."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harvest.looking.card import write_card
from shared.console import say
from shared.errors import CorruptShardError, LockedError, ShardError, UsageError
from shared.secrets import hide_secrets, list_secrets
from shared.shards import Manifest, TeacherFolder, count_unsealed, load_manifest, verify_shards
from shared.shards.manifest import encode_manifest, hash_recipe, save_manifest
from shared.shards.seal import copy_shard

Raw = Literal["keep", "drop"]
_SHOWN_PROBLEMS = 5


def seal_folder(folder: Path) -> None:
    """Seal the rows that wait in the journals of a teacher folder. Asks nobody.

    Raises LockedError where a harvest is running that writes to one of them.
    """
    waiting = sum(count_unsealed(folder, load_manifest(folder)).values())
    if not waiting:
        return
    say(f"{folder}: sealing {waiting:,} rows first")
    with TeacherFolder.open(folder.parent, load_manifest(folder)) as opened:
        opened.seal()
        for note in opened.take_notes():
            say(note)
    write_card(folder.parent)
    if left := sum(count_unsealed(folder, load_manifest(folder)).values()):
        raise LockedError(
            f"{folder} is being harvested: {left:,} rows are not sealed yet. Wait for `harvest run` to end, or stop "
            "it; nothing was sent"
        )


def check_whole(path: Path) -> None:
    """Raise CorruptShardError, saying what is wrong, unless `harvest verify` would find nothing."""
    problems = verify_shards(path).problems
    if problems:
        more = [f"and {len(problems) - _SHOWN_PROBLEMS} more: harvest verify {path}"]
        lines = [*problems[:_SHOWN_PROBLEMS], *(more if len(problems) > _SHOWN_PROBLEMS else [])]
        raise CorruptShardError("\n".join(lines) + "\nNothing was sent")


def check_secrets(folder: Path, manifest: Manifest) -> None:
    """Raise UsageError where the manifest has what looks like a key, or any row a secret of the environment.

    The message names the place, and not what stands there.
    """
    text = encode_manifest(manifest).decode()
    if hide_secrets(text) != text:
        raise UsageError(f"{folder}/manifest.json has what is, or looks like, a key or a password: nothing was sent")
    secrets = list_secrets()
    for path, table in _iterate_tables(folder, manifest, None) if secrets else ():
        for name in table.column_names:
            texts = [text for chunk in table[name].chunks for text in _list_texts(chunk)]
            if any(pc.any(pc.match_substring(text, secret)).as_py() for text in texts for secret in secrets):
                raise UsageError(
                    f"{path} has in its column {name} what an environment variable of this shell calls a secret: "
                    "nothing was sent. Unset the variable if it is none"
                )


def count_raw(folder: Path, manifest: Manifest) -> int:
    """How many rows of the shards have the reply as it came."""
    return sum(len(table) - table["raw"].null_count for _, table in _iterate_tables(folder, manifest, ["raw"]))


def drop_raw(folder: Path, manifest: Manifest, target: Path) -> Manifest:
    """Write the shards of a folder under the folder `target`, with nothing in the column `raw`; give their manifest.

    The column stays, so that every reader of the schema reads them. Raises ShardError unless `harvest verify` finds
    nothing wrong with them.
    """
    shards = tuple(copy_shard(folder, target, manifest, shard, _empty_raw) for shard in manifest.shards)
    without = replace(manifest, shards=shards)
    save_manifest(target, without)
    if problems := verify_shards(target).problems:
        raise ShardError(f"the shards without raw replies do not verify: {problems[0]}; nothing was sent")
    return without


def list_shard_columns(folder: Path, manifest: Manifest) -> Sequence[str]:
    """The columns of the shards, by the newest of them."""
    if not manifest.shards:
        return ()
    names: Sequence[str] = pq.read_schema(folder / manifest.shards[-1].path).names
    return names


def has_same_questions(manifest: Manifest, other: Manifest) -> bool:
    """Tell whether two manifests are of one task and one recipe, so that rows of one could be the other's."""
    first, second = ((one.task, one.kind, one.labels, hash_recipe(one)) for one in (manifest, other))
    return first == second


def count_lost(kept: Manifest, follower: Manifest) -> int:
    """How many rows of `kept` lie in shards that `follower` neither has nor knows to be superseded."""
    return sum(shard.rows for shard in kept.shards if shard.id not in follower.sealed_ids())


def _empty_raw(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("raw")
    field = table.schema.field(at)
    return table.set_column(at, field, pa.nulls(len(table), field.type))


def _list_texts(values: pa.Array) -> list[pa.Array]:
    """The arrays of texts or bytes that an array is made of, if any."""
    if pa.types.is_list(values.type):
        return _list_texts(values.flatten())
    if pa.types.is_struct(values.type):
        return [text for inner in values.flatten() for text in _list_texts(inner)]
    return [values] if pa.types.is_string(values.type) or pa.types.is_binary(values.type) else []


def _iterate_tables(folder: Path, manifest: Manifest, columns: Sequence[str] | None) -> Iterator[tuple[Path, pa.Table]]:
    """Row groups of all shards, each with its file: those columns, or all."""
    for shard in manifest.shards:
        with pq.ParquetFile(folder / shard.path) as file:
            for index in range(file.num_row_groups):
                yield folder / shard.path, file.read_row_group(index, columns=columns, use_threads=False)
