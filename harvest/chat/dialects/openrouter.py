"""OpenRouter. Source: openrouter.ai/docs, "Provider Routing", "Usage Accounting", "Errors".

Without `require_parameters` a request for log-probabilities may go to a provider that silently leaves them out. The
reply's `usage.cost` is what is billed. An error of the provider behind it can come with HTTP 200.
"""

from harvest.chat.dialects.base import Dialect

OPENROUTER = Dialect(
    "openrouter",
    hosts=("openrouter.ai",),
    example="https://openrouter.ai/api/v1",
    key_variable="OPENROUTER_API_KEY",
    several=False,
    extra={"provider": {"require_parameters": True}, "usage": {"include": True}},
)
