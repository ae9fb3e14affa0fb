"""vLLM. Source: docs.vllm.ai, "OpenAI-Compatible Server", and its chat completion protocol.

`logprob_token_ids` scores named tokens exactly; it comes instead of the top tokens, and `top_logprobs` bounds how many
of them are shown, the one that was said first. Fields that a version does not know are ignored with HTTP 200.
"""

from collections.abc import Sequence

from harvest.chat.dialects.base import Dialect, Json, Scoring


def _ask_token_ids(token_ids: Sequence[int]) -> Json:
    return {
        "logprobs": True,
        "top_logprobs": len(token_ids) + 1,
        "logprob_token_ids": list(token_ids),
        "return_tokens_as_token_ids": True,
    }


def _ask_choice(words: Sequence[str]) -> Json:
    return {"structured_outputs": {"choice": list(words)}}


VLLM = Dialect(
    "vllm",
    owners=("vllm",),
    example="http://localhost:8000/v1",
    seed_field="seed",
    scorings=(Scoring.TOKEN_IDS, Scoring.TOP_LOGPROBS, Scoring.CHOICE, Scoring.VOTES),
    tell_said_ids={"return_token_ids": True},
    tell_ids={"return_tokens_as_token_ids": True},
    ask_token_ids=_ask_token_ids,
    ask_choice=_ask_choice,
)
