"""llama.cpp's own route that continues given tokens, made to tell how probable named tokens are.

Source: github.com/ggml-org/llama.cpp, tools/server/README.md, "POST /completion": `prompt` may be a list of prompts,
each a text with token ids behind it; `logit_bias` moves tokens before one is chosen; the log-probability of the chosen
one is told as it was before that, or with `post_sampling_probs` the probabilities are told as they are after it.

Two requests tell all: one in which the bias leaves no token but the named ones, for the log-probability of the one that
is chosen; and one for the ratios of all named ones among themselves. Nothing of it is rounded to the most probable few.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harvest.chat.dialects.base import Json
from harvest.chat.pricing import Usage

COMPLETION_PATH = "/completion"
TEMPLATE_PATH = "/apply-template"  # from messages to the prompt's text
TOKENIZE_PATH = "/tokenize"

_BIAS = 100.0  # natural logs, added to each named token: e^100 times as probable as it was

Prompt = Sequence[str | int]  # a text, and the ids of tokens behind it


def write_template(messages: Any, fields: Json) -> Json:
    """The request for the text of a prompt; `fields` are those that change it (chat_template_kwargs, say)."""
    return {**fields, "messages": messages}


def read_template(body: Any) -> str:
    """The text of a prompt. Raises ValueError where the body brings none."""
    text = body.get("prompt") if isinstance(body, dict) else None
    if not isinstance(text, str):
        raise ValueError("the server's /apply-template gave no prompt")
    return text


def write_chosen(prompts: Sequence[Prompt], tokens: Sequence[int]) -> Json:
    """The request for the log-probability of one of `tokens` behind each prompt, the most probable one."""
    return {**_write(prompts, tokens), "temperature": 0.0, "n_probs": 1}


def write_ratios(prompts: Sequence[Prompt], tokens: Sequence[int]) -> Json:
    """The request for the probabilities of `tokens` among themselves, behind each prompt."""
    sampling = {"temperature": 1.0, "samplers": ["top_k", "temperature"], "top_k": len(tokens), "min_keep": len(tokens)}
    return {**_write(prompts, tokens), **sampling, "n_probs": len(tokens), "post_sampling_probs": True}


def _write(prompts: Sequence[Prompt], tokens: Sequence[int]) -> dict[str, Any]:
    return {
        "prompt": [prompt[0] if len(prompt) == 1 else list(prompt) for prompt in prompts],  # a text alone is no list
        "n_predict": 1,
        "cache_prompt": True,
        "logit_bias": [[token, _BIAS] for token in tokens],
    }


def read_chosen(body: Any) -> list[tuple[int, float]]:
    """The chosen token behind each prompt, and its natural log-probability. Raises ValueError where one is missing."""
    return [(int(entry["id"]), _check(entry["logprob"])) for entry in map(_read_position, _list_results(body))]


def read_ratios(body: Any) -> list[dict[int, float]]:
    """The natural logs of the shares of the named tokens, by id, behind each prompt."""
    found = []
    for result in _list_results(body):
        shares = {int(entry["id"]): float(entry["prob"]) for entry in _read_position(result)["top_probs"]}
        found.append({token: math.log(share) for token, share in shares.items() if share > 0})
    return found


def _list_results(body: Any) -> list[Mapping[str, Any]]:
    results = body if isinstance(body, list) else [body]
    return sorted(results, key=lambda result: int(result.get("index", 0)))


def _read_position(result: Mapping[str, Any]) -> Mapping[str, Any]:
    (position,) = result["completion_probabilities"]
    return dict(position)


def _check(logprob: Any) -> float:
    if not isinstance(logprob, int | float) or not logprob <= 0.01:
        raise ValueError(f"{logprob!r} is no log-probability")
    return float(logprob)


def read_following_usage(body: Any) -> Usage:
    """The tokens that were read and written for all prompts of a request."""
    results = _list_results(body)
    return Usage(
        sum(int(result["tokens_evaluated"]) for result in results),
        sum(int(result["tokens_predicted"]) for result in results),
    )
