"""LM Studio's server. Source: lmstudio.ai/docs, "OpenAI Compatibility Endpoints" and "Structured Output".

Chat completions give no log-probabilities: its /v1/responses does (`--dialect responses`). One answer a request.
"""

from harvest.chat.dialects.base import Dialect, Scoring
from harvest.chat.errors import Refusal, Sign

LMSTUDIO = Dialect(
    "lmstudio",
    owners=("organization_owner",),
    example="http://localhost:1234/v1",
    scorings=(Scoring.CHOICE, Scoring.VOTES),
    several=False,
    seed_field="seed",
    signs=(Sign(Refusal.CONTEXT, r"loaded with context length of only"),),
)
