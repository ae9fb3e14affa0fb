"""What the tests of real models ask of the tokens that a row keeps."""

import math
from typing import Any

import polars as pl
import pytest


def check_said_tokens(rows: pl.DataFrame, tokenizer: Any) -> int:
    """Check each reply's tokens against its text, and their numbers against each other; count those outside the K."""
    outside = 0
    for row in rows.iter_rows(named=True):
        assert tokenizer.decode(row["reply_ids"], skip_special_tokens=True).strip() == row["reply"].strip()
        said = list(zip(row["reply_ids"], row["reply_logprobs"], strict=True))
        for (token, logprob), ids, top, tail in zip(
            said, row["topk_ids"], row["topk_logprobs"], row["topk_tail"], strict=True
        ):
            assert math.exp(tail) + sum(map(math.exp, top)) == pytest.approx(1, abs=2e-3)
            if token in ids:
                assert top[ids.index(token)] == pytest.approx(logprob, abs=0.01)
            else:
                outside += 1
                assert logprob <= tail + 0.01
    return outside
