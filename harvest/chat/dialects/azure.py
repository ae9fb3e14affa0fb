"""Azure OpenAI. Source: learn.microsoft.com, "Azure OpenAI in Azure AI Foundry Models REST API reference", "API version
lifecycle" and "Content filtering".

A key goes into the header `api-key`. The model is a deployment, whose name is its owner's: it stands in the path, with
an `api-version` in the query, or (at /openai/v1) in the body. A prompt that is filtered is refused with 400; an answer
that is filtered ends with `content_filter`.
"""

from harvest.chat.dialects.base import Dialect
from harvest.chat.errors import Refusal, Sign

AZURE = Dialect(
    "azure",
    hosts=("openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com"),
    example="https://RESOURCE.openai.azure.com/openai/v1",
    key_variable="AZURE_OPENAI_API_KEY",
    key_header="api-key",
    key_hint="for a token of Entra give --dialect openai, and name its variable with --api-key-env",
    max_tokens_field="max_completion_tokens",
    seed_field="seed",
    names_model=False,
    signs=(Sign(Refusal.CONTENT, r"content management policy", frozenset({400})),),
)
