"""Rows that say the same have the same fingerprint, wherever they come from, and no others."""

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from shared.example import Example, Message
from shared.fingerprints import FINGERPRINTED, fingerprint_rows
from shared.schema import Answer, Row, Status
from shared.shards import TeacherFolder, load_manifest
from tests.shared.shards.shard_rows import make_manifest

EXAMPLES: tuple[Example, ...] = (
    Example("a", "text"),
    Example("b", "text"),
    Example("a", "text", "pair"),
    Example("a", "textpair"),
    Example("a", "text", ""),
    Example("a", "text", None, ("x y", "z")),
    Example("a", "text", None, ("x", "y z")),
    Example("a", "text", None, ("x y z",)),
    Example("a", "text", None, ("x", "y", "z")),
    Example("a", "text", None, ()),
    Example("pair", "text", "a"),
    Example("a", "text\0"),
    Example("a", "text", messages=()),
    Example("a", "text", messages=(Message("user", "text"),)),
    Example("a", "text", messages=(Message("system", "text"),)),
    Example("a", "text", messages=(Message("user", "te"), Message("user", "xt"))),
)


def make_frame(examples: tuple[Example, ...]) -> pl.DataFrame:
    columns = {name: [getattr(example, name) for example in examples] for name in FINGERPRINTED}
    columns["choices"] = [None if c is None else list(c) for c in columns["choices"]]
    columns["messages"] = [None if m is None else [one._asdict() for one in m] for m in columns["messages"]]
    return pl.DataFrame(columns)


def test_a_row_has_its_fingerprint_beside_conversations_or_without_their_column() -> None:
    plain = tuple(example for example in EXAMPLES if example.messages is None)
    alone = fingerprint_rows(make_frame(plain))
    assert (fingerprint_rows(make_frame(EXAMPLES))[: len(plain)] == alone).all()
    assert (fingerprint_rows(make_frame(plain).drop("messages")) == alone).all()


def test_other_rows_have_other_fingerprints() -> None:
    found = fingerprint_rows(make_frame(EXAMPLES))
    assert len({tuple(row) for row in found.tolist()}) == len(EXAMPLES)
    for hashes in found.T:
        assert len(set(hashes.tolist())) == len(EXAMPLES)


@pytest.mark.parametrize("rows", [slice(None), slice(2), slice(2, 3)])
def test_a_shard_and_its_source_have_the_same(rows: slice, tmp_path: Path) -> None:
    """Also where a column is null throughout, and whichever rows stand beside a row."""
    examples = EXAMPLES[rows]
    with TeacherFolder.open(tmp_path, make_manifest()) as folder:
        folder.append("train", [Row(example, "0" * 64, i, Answer(Status.OK)) for i, example in enumerate(examples)])
        folder.seal()
    (shard,) = load_manifest(folder.path).shards
    table = pq.ParquetFile(folder.path / shard.path).read(columns=list(FINGERPRINTED))
    sealed = fingerprint_rows(pl.DataFrame(pl.from_arrow(table))).tolist()
    assert sealed == fingerprint_rows(make_frame(examples)).tolist()
    assert sealed == fingerprint_rows(make_frame(EXAMPLES)).tolist()[rows]
