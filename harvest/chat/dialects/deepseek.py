"""DeepSeek. Source: api-docs.deepseek.com, "Create Chat Completion", "Context Caching", "Error Codes" and "JSON
Output".

Output can be made JSON, but not held to a schema; there is neither `n` nor a seed. The prompt's cached tokens are
`prompt_cache_hit_tokens`. A busy server ends an answer in its middle, with 200 and `insufficient_system_resource`. What
its content rules refuse is a plain 400.
"""

from harvest.chat.dialects.base import Dialect, Scoring
from harvest.chat.errors import Refusal, Sign

DEEPSEEK = Dialect(
    "deepseek",
    hosts=("api.deepseek.com",),
    example="https://api.deepseek.com/v1",
    key_variable="DEEPSEEK_API_KEY",
    scorings=(Scoring.TOP_LOGPROBS, Scoring.VOTES),
    several=False,
    cached_tokens=("prompt_cache_hit_tokens",),
    signs=(Sign(Refusal.CONTENT, r"content exists risk", frozenset({400})),),
)
