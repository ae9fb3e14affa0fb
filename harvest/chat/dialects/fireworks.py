"""Fireworks. Source: docs.fireworks.ai, "Create Chat Completion", "Structured responses" and "Error codes".

At most five alternatives a token. An account whose money is spent is answered 412.
"""

from harvest.chat.dialects.base import Dialect
from harvest.chat.errors import Refusal, Sign

FIREWORKS = Dialect(
    "fireworks",
    hosts=("api.fireworks.ai",),
    example="https://api.fireworks.ai/inference/v1",
    key_variable="FIREWORKS_API_KEY",
    top_logprobs=5,
    signs=(Sign(Refusal.QUOTA, r"suspended|spending limit", frozenset({412})),),
)
