"""Mistral. Source: docs.mistral.ai, "Chat Completion API", "Vision" and "Structured Outputs".

No log-probabilities: a field that is unknown there is refused with 422. The seed is `random_seed`. A picture is a URL
without an object around it. An answer that fills the context ends with `model_length`.
"""

from harvest.chat.dialects.base import Dialect, Json, Scoring, make_image_part


def _make_image_part(png: bytes) -> Json:
    return {"type": "image_url", "image_url": make_image_part(png)["image_url"]["url"]}


MISTRAL = Dialect(
    "mistral",
    hosts=("api.mistral.ai",),
    example="https://api.mistral.ai/v1",
    key_variable="MISTRAL_API_KEY",
    scorings=(Scoring.CHOICE, Scoring.VOTES),
    seed_field="random_seed",
    make_image_part=_make_image_part,
)
