"""What the tests of real models ask of the tokens that a row keeps."""

import math
from typing import Any

import polars as pl
import pytest


def strip_broken(text: str) -> str:
    """`text` without the marks of bytes that are no UTF-8, of which a random model says some.

    An engine that decodes token by token writes fewer of them, and none for bytes that wait for more.
    """
    return text.replace("\ufffd", "").strip()


def check_said_tokens(rows: pl.DataFrame, tokenizer: Any) -> int:
    """Check each reply's tokens against its text, and their numbers against each other; count those outside the K."""
    outside = 0
    for row in rows.iter_rows(named=True):
        decoded = tokenizer.decode(row["reply_ids"], skip_special_tokens=True)
        assert strip_broken(decoded) == strip_broken(row["reply"]), (decoded, row["reply"])
        said = list(zip(row["reply_ids"], row["reply_logprobs"], strict=True))
        for (token, logprob), ids, top, tail in zip(
            said, row["topk_ids"], row["topk_logprobs"], row["topk_tail"], strict=True
        ):
            assert math.exp(tail) + sum(map(math.exp, top)) == pytest.approx(
                1, abs=8e-3
            )  # as it is kept: see shared.topk.KEPT_BITS
            if token in ids:
                assert top[ids.index(token)] == pytest.approx(logprob, rel=1 / 256, abs=1e-3)
            else:
                outside += 1
                assert logprob <= tail + 0.01 - tail / 256
    return outside
