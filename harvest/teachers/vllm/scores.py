"""Scores of tokens that the model was given, out of what vLLM says of a prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harvest.chat.reply import log_rest
from harvest.teachers.given_rows import LEAST, Scores


def read_scores(tokens: Sequence[int], logprobs: Sequence[Mapping[int, Any] | None], scored: int, topk: int) -> Scores:
    """Read the scores of the last `scored` tokens of a prompt; `logprobs` is what vLLM says of each of its tokens.

    That is the `topk` most probable ones in its place, by id, and the token itself where it is none of them.
    """
    given: list[float] = []
    ids: list[list[int]] = []
    named: list[list[float]] = []
    for token, found in zip(tokens[-scored:], logprobs[-scored:], strict=True):
        assert found is not None  # as it is for the first token of a prompt, which nothing foretells
        values = {each: min(max(float(one.logprob), LEAST), 0.0) for each, one in found.items()}
        most = sorted(values, key=values.__getitem__, reverse=True)[:topk]
        given.append(values[token])
        ids.append(most)
        named.append([values[each] for each in most])
    return Scores(
        np.array(given, np.float32),
        np.array(ids, np.int32),
        np.array(named, np.float32),
        np.array([log_rest(row) for row in named], np.float32),
    )
