"""Groq. Source: console.groq.com, "OpenAI Compatibility", "API Reference" and "Rate Limits".

`logprobs` and `top_logprobs` are refused with 400, and `n` must be 1. Some models hold their output to a JSON schema. A
text that is longer than a minute's tokens allow is answered 413.
"""

from harvest.chat.dialects.base import Dialect, Scoring
from harvest.chat.errors import Refusal, Sign

GROQ = Dialect(
    "groq",
    hosts=("api.groq.com",),
    example="https://api.groq.com/openai/v1",
    key_variable="GROQ_API_KEY",
    scorings=(Scoring.CHOICE, Scoring.VOTES),
    max_tokens_field="max_completion_tokens",
    several=False,
    seed_field="seed",
    signs=(Sign(Refusal.CONTEXT, r"request too large|reduce the length", frozenset({400, 413})),),
)
