"""Anthropic's compatible route. Source: docs.anthropic.com, "OpenAI SDK compatibility".

`logprobs`, `top_logprobs`, `response_format` and `seed` are ignored, `n` must be 1: only votes remain. Where the credit
is used up, that is a plain 400.
"""

from harvest.chat.dialects.base import Dialect, Scoring
from harvest.chat.errors import Refusal, Sign

ANTHROPIC = Dialect(
    "anthropic",
    hosts=("api.anthropic.com",),
    example="https://api.anthropic.com/v1",
    key_variable="ANTHROPIC_API_KEY",
    scorings=(Scoring.VOTES,),
    several=False,
    signs=(Sign(Refusal.QUOTA, r"credit balance is too low", frozenset({400})),),
)
