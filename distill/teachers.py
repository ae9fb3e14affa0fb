"""From the answers of a teacher to the vectors h_t that a config asks for."""

from collections.abc import Sequence
from pathlib import Path

from distill.config import Column
from distill.features import TeacherVectors, find_column, find_vectors, join_vectors
from distill.replies import encode_replies
from distill.split import Split
from shared.shards.manifest import Manifest


def gather_vectors(
    folder: Path, manifest: Manifest, split: Split, columns: Sequence[Column], reply_encoder: str
) -> TeacherVectors:
    """The `columns` of a teacher's answers, one after the other; those of find_vectors where none are named.

    Raises DataError where the first answered row lacks one.
    """
    if not columns:
        return find_vectors(split)
    return join_vectors(
        [
            encode_replies(folder, manifest, split, reply_encoder) if column == "reply" else find_column(split, column)
            for column in columns
        ]
    )
