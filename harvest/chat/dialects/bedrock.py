"""Amazon Bedrock's compatible routes, bedrock-runtime and bedrock-mantle.

Source: docs.aws.amazon.com, "Invoke a model with the OpenAI Chat Completions API", "Inference using Chat Completions
API" and "Troubleshooting API error codes". A Bedrock API key goes where OpenAI's does; requests that are signed with
other AWS credentials (SigV4) are not made here. Open-weight models think in their text, between <reasoning> and
</reasoning>. What a day allows is refused as throttling, and its message says so.
"""

from harvest.chat.dialects.base import Dialect
from harvest.chat.errors import Refusal, Sign

BEDROCK = Dialect(
    "bedrock",
    hosts=("bedrock-runtime.*.amazonaws.com", "bedrock-mantle.*.api.aws"),
    example="https://bedrock-runtime.REGION.amazonaws.com/openai/v1",
    key_variable="AWS_BEARER_TOKEN_BEDROCK",
    key_hint="a Bedrock API key is needed, no access key; a short-term one ends with the session that made it",
    several=False,
    max_tokens_field="max_completion_tokens",
    signs=(
        Sign(Refusal.QUOTA, r"too many tokens per day", frozenset({429})),
        Sign(Refusal.QUOTA, r"^servicequotaexceededexception", frozenset({400, 402, 429})),
        Sign(Refusal.CONTEXT, r"input is too long"),
    ),
    price_provider="aws",
)
