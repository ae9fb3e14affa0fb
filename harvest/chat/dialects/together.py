"""Together. Source: docs.together.ai, "Logprobs" and "Structured outputs".

`logprobs` is a number, and the reply holds parallel lists instead of OpenAI's list of entries; newer models answer in
OpenAI's shape.
"""

from collections.abc import Sequence

from harvest.chat.dialects.base import Dialect, Json, make_schema, read_positions
from harvest.chat.scoring import Alternative, Position


def _ask_logprobs(count: int) -> Json:
    return {"logprobs": count}


def _read_positions(choice: Json) -> list[Position]:
    logprobs = choice.get("logprobs") or {}
    if "tokens" not in logprobs:
        return read_positions(choice)
    ids = logprobs.get("token_ids") or [None] * len(logprobs["tokens"])
    tops = logprobs.get("top_logprobs") or [{}] * len(logprobs["tokens"])
    return [
        # The alternatives carry no ids, so the token that was said goes without its own: the two must compare equal.
        Position(
            Alternative(token, logprob, None if top else token_id),
            [Alternative(text, value) for text, value in (top or {}).items()],
            token_id,
        )
        for token, logprob, token_id, top in zip(logprobs["tokens"], logprobs["token_logprobs"], ids, tops, strict=True)
    ]


def _ask_choice(words: Sequence[str]) -> Json:
    return {"response_format": {"type": "json_schema", "schema": make_schema(words)}}


TOGETHER = Dialect(
    "together",
    hosts=("api.together.xyz", "api.together.ai"),
    key_variable="TOGETHER_API_KEY",
    example="https://api.together.xyz/v1",
    seed_field="seed",
    ask_logprobs=_ask_logprobs,
    ask_choice=_ask_choice,
    read_positions=_read_positions,
)
