"""What an engine in this process or beside it said, as the JSON of a chat completion: one form for every `raw`.

It is what vLLM's server would have answered, with tokens named by id, so that one parser reads all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from harvest.chat.dialects.base import ID_PREFIX
from harvest.chat.reply import FIRST_TOKENS, LOWEST, WORD_SCORES


@dataclass(frozen=True, slots=True)
class SaidToken:
    """A token that was said, its natural log-probability, and those of other tokens in its place by their ids."""

    token: int
    logprob: float
    top: Mapping[int, float] = field(default_factory=dict)


def write_chat_completion(
    text: str | None,
    finish_reason: str | None,
    said: Sequence[SaidToken],
    prompt_tokens: int,
    *,
    said_tokens: int | None = None,
    first_tokens: Sequence[Sequence[int]] = (),
    word_scores: Sequence[float] | None = None,
) -> bytes:
    """The JSON of a reply. `said_tokens` is how many tokens were said, where `said` holds not all of them.

    `first_tokens`, those of each label, and `word_scores`, one a label, go into the reply, which is read again without
    a model.
    """
    positions = [
        {**_write_token(one.token, one.logprob), "top_logprobs": [_write_token(*pair) for pair in one.top.items()]}
        for one in said
    ]
    choice: dict[str, Any] = {
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish_reason,
        "logprobs": {"content": positions} if positions else None,
    }
    if word_scores is not None:
        choice[WORD_SCORES] = list(word_scores)
    completion_tokens = len(said) if said_tokens is None else said_tokens
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return orjson.dumps({"choices": [choice], "usage": usage, FIRST_TOKENS: first_tokens})


def _write_token(token: int, logprob: float) -> Mapping[str, Any]:
    # LOWEST stands for minus infinity, which JSON has not, as on the server.
    return {"token": f"{ID_PREFIX}{token}", "logprob": max(float(logprob), LOWEST)}
