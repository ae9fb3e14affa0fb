"""OpenAI. Source: platform.openai.com, "Create chat completion".

`max_tokens` is deprecated there and refused by reasoning models. Reasoning models also refuse log-probabilities.
"""

from harvest.chat.dialects.base import Dialect

OPENAI = Dialect(
    "openai",
    hosts=("api.openai.com", "openai.azure.com"),
    key_variable="OPENAI_API_KEY",
    max_tokens_field="max_completion_tokens",
    seeds=True,
)
# Whatever else speaks chat completions, by the oldest names of the fields.
COMPATIBLE = Dialect("compatible")
