"""OpenAI. Source: platform.openai.com, "Create chat completion" and "Error codes".

`max_tokens` is deprecated there and refused by reasoning models. Reasoning models also refuse log-probabilities.
"""

from harvest.chat.dialects.base import Dialect

OPENAI = Dialect(
    "openai",
    hosts=("api.openai.com",),
    example="https://api.openai.com/v1",
    key_variable="OPENAI_API_KEY",
    max_tokens_field="max_completion_tokens",
    seed_field="seed",
)
# Whatever else speaks chat completions, by the oldest names of the fields.
COMPATIBLE = Dialect("compatible")
