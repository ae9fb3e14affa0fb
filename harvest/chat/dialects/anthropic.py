"""Anthropic's compatible route. Source: docs.anthropic.com, "OpenAI SDK compatibility".

`logprobs`, `top_logprobs`, `response_format` and `seed` are ignored, `n` must be 1: only votes remain.
"""

from harvest.chat.dialects.base import Dialect, Scoring

ANTHROPIC = Dialect(
    "anthropic",
    hosts=("api.anthropic.com",),
    key_variable="ANTHROPIC_API_KEY",
    scorings=(Scoring.VOTES,),
    several=False,
)
