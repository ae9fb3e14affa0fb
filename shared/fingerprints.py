"""Fingerprints: of rows' texts, to find those that are kept among hundreds of thousands; and of tokenizers."""

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shared.keys import canonical_json

if TYPE_CHECKING:
    import polars as pl

Fingerprints: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
FINGERPRINTED = ("sample_id", "text", "text_pair", "choices", "messages")


def fingerprint_rows(frame: "pl.DataFrame") -> Fingerprints:
    """Hash each row's sample id and texts to two 64-bit numbers, shape (n, 2): equal where the rows are equal.

    `frame` has the columns FINGERPRINTED; "messages" may be missing, where no row is a conversation.
    The hashes are polars' own, which cost a hundredth of a digest a row and hold within one process only.
    """
    import polars as pl

    choices = frame["choices"].cast(pl.List(pl.String))
    if choices.null_count() == len(choices):
        joined = lengths = choices.list.first()  # null too, quickly
    else:
        # Lengths too: joined, ("a b", "c") and ("a", "b c") are the same.
        joined = choices.list.join(" ")
        lengths = choices.list.eval(pl.element().str.len_bytes().cast(pl.String)).list.join(" ")
    said = frame.select(
        *(pl.col(name).cast(pl.String) for name in ("sample_id", "text", "text_pair")),
        joined.alias("choices"),
        lengths.alias("lengths"),
    )
    fingerprints = np.stack([said.hash_rows(seed).to_numpy() for seed in (1, 2)], axis=1)
    if "messages" in frame.columns and frame["messages"].null_count() < len(frame):
        spoken = frame["messages"].list.eval(pl.element().struct.json_encode()).list.join("\n")
        # Only of rows that have some: those of any other row are the same, whatever rows are beside it.
        has_some = spoken.is_not_null().to_numpy()[:, None]
        hashes = np.stack([spoken.hash(seed).to_numpy() for seed in (1, 2)], axis=1)
        fingerprints ^= np.where(has_some, hashes, np.uint64(0))
    return fingerprints


def fingerprint_tokenizer(vocabulary: Mapping[str, int]) -> str:
    """Hash which token has which id: the sha256, in hexadecimal, of the (token, id) pairs, sorted by token.

    `vocabulary` is what a tokenizer's `get_vocab` gives, added tokens included. Two tokenizers of one fingerprint give
    ids the same meaning, whatever their files and settings; token ids of the one may be learnt with the other.
    """
    return sha256(canonical_json(sorted(vocabulary.items())).encode("utf-8", "surrogatepass")).hexdigest()
