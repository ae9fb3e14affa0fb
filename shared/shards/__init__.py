"""The durable store of rows: a teacher folder of sealed Parquet shards, journals and a manifest.

Writers use TeacherFolder; readers use the functions below, which write nothing.
"""

from shared.shards.folder import Claim, TeacherFolder
from shared.shards.manifest import (
    Manifest,
    Shard,
    choose_teacher,
    find_teachers,
    hash_manifest,
    load_manifest,
)
from shared.shards.read import (
    STATUSES,
    Kept,
    KeptPart,
    RowGroup,
    Summary,
    check_readable,
    count_unsealed,
    find_rows,
    identify_row,
    iterate_kept,
    iterate_pieces,
    iterate_rows,
    list_row_groups,
    read_kept,
    read_row_group,
    read_row_groups,
    summarise_folder,
)
from shared.shards.verify import Verification, verify_shards

__all__ = [
    "STATUSES",
    "Claim",
    "Kept",
    "KeptPart",
    "Manifest",
    "RowGroup",
    "Shard",
    "Summary",
    "TeacherFolder",
    "Verification",
    "check_readable",
    "choose_teacher",
    "count_unsealed",
    "find_rows",
    "find_teachers",
    "hash_manifest",
    "identify_row",
    "iterate_kept",
    "iterate_pieces",
    "iterate_rows",
    "list_row_groups",
    "load_manifest",
    "read_kept",
    "read_row_group",
    "read_row_groups",
    "summarise_folder",
    "verify_shards",
]
