"""A teacher's most probable tokens at each position of a reply, out of the columns that keep them.

How they lie in a shard is known here only. `topk_ids` and `topk_logprobs` are lists of lists, one inner list a
position; their lengths may differ, where a server gave fewer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

TOPK_COLUMNS = ("topk_ids", "topk_logprobs", "topk_tail")
# Of the bits after the first one, of which float16 has 10. A log-probability l is off by at most one part in 256, and
# with it its probability p by p l / 256, which is .0014 or less. benchmarks/topk_storage.py measures what that does to
# a divergence, and what room it saves.
KEPT_BITS = 7
_MANTISSA_BITS = 23  # of float32
# On disk, a position of a reply and each of its K: see benchmarks/topk_storage.py.
SAID_BYTES, TOKEN_BYTES = 8.0, 2.5
NO_TOKEN = -1  # the id that fills a position with fewer tokens than others; its log-probability is minus infinity

_Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]
_Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


class TopK(NamedTuple):
    """The top K of a reply of n tokens, natural logs: `ids` and `logprobs` of shape (n, K), `tail` of shape (n,).

    The most probable come first, and the probabilities of a position add up to 1. `tail` is the log of the probability
    on all tokens that `ids` does not name. K is the reply's largest; shorter positions are filled with NO_TOKEN at
    minus infinity, at their end.
    """

    ids: _Ints
    logprobs: _Floats
    tail: _Floats


def decode_topk(table: pa.Table, rows: Sequence[int]) -> list[TopK | None]:
    """Read the top K of `rows`, by number, of a table with the columns TOPK_COLUMNS; None for a row that has none.

    Raises ValueError where the three columns of a row are of different lengths.
    """
    picked = table.select(TOPK_COLUMNS).take(pa.array(rows, pa.int64())).combine_chunks()
    ids, logprobs, tails = (_flatten(picked[name]) for name in TOPK_COLUMNS)
    present = picked["topk_ids"].is_valid().to_numpy() & picked["topk_tail"].is_valid().to_numpy()
    return [_decode_row(ids, logprobs, tails, row) if is_there else None for row, is_there in enumerate(present)]


def round_logprobs(logprobs: Sequence[float] | _Floats) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Round log-probabilities to KEPT_BITS bits after the first, as float16: they stay numbers that anybody reads."""
    dropped = _MANTISSA_BITS - KEPT_BITS
    # As integers, floats of one sign are in the order of their size; a carry into the exponent is the next power of 2.
    bits = np.asarray(logprobs, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(1 << (dropped - 1))) >> dropped << dropped
    return rounded.view(np.float32).astype(np.float16)


def estimate_topk_bytes(positions: float, topk: int) -> float:
    """About how many bytes the scores of so many positions take on disk, with K = `topk`, said tokens included."""
    return positions * (SAID_BYTES + TOKEN_BYTES * topk)


class _Nested(NamedTuple):
    """Lists of numbers, or of lists of numbers: where each outer list begins, each inner one, and the numbers."""

    outer: np.ndarray[Any, np.dtype[np.int64]]
    inner: np.ndarray[Any, np.dtype[np.int64]] | None
    values: np.ndarray[Any, Any]


def _flatten(column: pa.ChunkedArray) -> _Nested:
    array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    outer, values = array.offsets.to_numpy().astype(np.int64), array.values
    if not pa.types.is_list(values.type):
        return _Nested(outer, None, values.to_numpy(zero_copy_only=False))
    inner = values.offsets.to_numpy().astype(np.int64)
    return _Nested(outer, inner, values.values.to_numpy(zero_copy_only=False))


def _decode_row(ids: _Nested, logprobs: _Nested, tails: _Nested, row: int) -> TopK:
    tail = tails.values[tails.outer[row] : tails.outer[row + 1]].astype(np.float32)
    own_ids, lengths = _take_row(ids, row)
    own_logprobs, same_lengths = _take_row(logprobs, row)
    if len(lengths) != len(tail) or not np.array_equal(lengths, same_lengths):
        raise ValueError("a row's topk_ids, topk_logprobs and topk_tail are of different lengths: run harvest verify")
    places = np.arange(lengths.max(initial=0)) < lengths[:, None]
    filled_ids = np.full(places.shape, NO_TOKEN, np.int32)
    filled_logprobs = np.full(places.shape, -np.inf, np.float32)
    filled_ids[places], filled_logprobs[places] = own_ids, own_logprobs
    total = np.logaddexp(np.logaddexp.reduce(filled_logprobs, axis=1, initial=-np.inf), tail)  # 0 but for rounding
    filled_logprobs, tail = filled_logprobs - total[:, None], tail - total
    order = np.argsort(-filled_logprobs, axis=1, kind="stable")
    return TopK(np.take_along_axis(filled_ids, order, 1), np.take_along_axis(filled_logprobs, order, 1), tail)


def _take_row(nested: _Nested, row: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, np.dtype[np.int64]]]:
    """The numbers of a row in one piece, and how many of them belong to each of its positions."""
    assert nested.inner is not None
    bounds = nested.inner[nested.outer[row] : nested.outer[row + 1] + 1]
    return nested.values[bounds[0] : bounds[-1]], np.diff(bounds)
