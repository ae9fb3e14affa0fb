"""Anthropic's compatible route. Source: docs.anthropic.com, "OpenAI SDK compatibility".

`logprobs`, `top_logprobs`, `response_format` and `seed` are ignored, `n` must be 1: only votes remain. Where the credit
is used up, that is a plain 400. Its batch route answers with native messages ("Messages").
"""

from harvest.chat.dialects.base import Dialect, Json, Scoring
from harvest.chat.errors import Refusal, Sign


def _read_message(body: Json) -> Json:
    """A native message as a chat completion; what is no message as it is."""
    if body.get("type") != "message":
        return body
    usage = body.get("usage") or {}
    cached = usage.get("cache_read_input_tokens") or 0
    prompt = (usage.get("input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0) + cached
    message = {"role": "assistant", "content": body.get("content")}
    return {
        "model": body.get("model"),
        "choices": [{"index": 0, "finish_reason": body.get("stop_reason"), "message": message}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": usage.get("output_tokens"),
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


ANTHROPIC = Dialect(
    "anthropic",
    hosts=("api.anthropic.com",),
    example="https://api.anthropic.com/v1",
    key_variable="ANTHROPIC_API_KEY",
    scorings=(Scoring.VOTES,),
    several=False,
    read_reply=_read_message,
    signs=(Sign(Refusal.QUOTA, r"credit balance is too low", frozenset({400})),),
)
