"""Gemini's compatible route, at Google's AI Studio and at Vertex AI.

Source: ai.google.dev, "OpenAI compatibility" and "Rate limits"; cloud.google.com, "Using OpenAI libraries with Vertex
AI". Few models give log-probabilities there, and those that do not answer 400. Error bodies are wrapped in a list. What
a model thought is billed as output, stands in `total_tokens` and not in `completion_tokens`. A day's quota is named in
the details of an error, PerDay; a minute's is not final.
"""

from dataclasses import replace

from harvest.chat.dialects.base import Dialect
from harvest.chat.errors import Refusal, Sign

GEMINI = Dialect(
    "gemini",
    hosts=("generativelanguage.googleapis.com",),
    example="https://generativelanguage.googleapis.com/v1beta/openai",
    key_variable="GEMINI_API_KEY",
    thinks_beside=True,
    signs=(
        Sign(Refusal.QUOTA, r"PerDay", frozenset({429})),
        Sign(Refusal.CONTEXT, r"input token count .{0,40}exceeds the maximum"),
    ),
)
# Google's access tokens take the place of keys. Models are named with their publisher: google/gemini-2.5-flash.
VERTEX = replace(
    GEMINI,
    name="vertex",
    hosts=("aiplatform.googleapis.com", "*-aiplatform.googleapis.com"),
    example="https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/LOCATION/endpoints/openapi",
    key_variable="GOOGLE_OAUTH_ACCESS_TOKEN",
    key_hint="a token lives for about an hour: export GOOGLE_OAUTH_ACCESS_TOKEN=$(gcloud auth print-access-token)",
    seed_field="seed",
    price_provider="google",
)
