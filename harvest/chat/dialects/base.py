"""What differs between the servers that speak OpenAI's chat completions."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harvest.chat.scoring import Alternative, Position

Json = Mapping[str, Any]
ID_PREFIX = "token_id:"  # of a token's text under vLLM's return_tokens_as_token_ids


class Scoring(StrEnum):
    """How a teacher's answer becomes a label distribution, best first."""

    TOKEN_IDS = "token_ids"  # exact scores of the label words' first tokens, by id
    TOP_LOGPROBS = "top_logprobs"  # the most probable tokens of the first positions
    CHOICE = "choice"  # the answer is constrained to the label words: all mass on the one chosen
    VOTES = "votes"  # shares of sampled answers
    TEXT = "text"  # no distribution: the answer is a number or free text


def ask_logprobs(count: int) -> Json:
    """The fields that ask for `count` log-probabilities a position."""
    return {"logprobs": True, "top_logprobs": count}


def ask_json_choice(words: Sequence[str]) -> Json:
    """Structured output that leaves only {"label": one of the words}."""
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(words)}},
        "required": ["label"],
        "additionalProperties": False,
    }
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    }


def read_positions(choice: Json) -> list[Position]:
    """The positions of choices[i].logprobs.content.

    An entry's token id is `id` (llama.cpp) or in its text (vLLM); or the ids of what was said stand in
    choices[i].token_ids, one a position (vLLM).
    """
    content = (choice.get("logprobs") or {}).get("content") or ()
    ids = choice.get("token_ids") or ()
    said_ids = ids if len(ids) == len(content) else [None] * len(content)
    return [
        Position(_read_token(entry), [_read_token(token) for token in entry.get("top_logprobs") or ()], said_id)
        for entry, said_id in zip(content, said_ids, strict=True)
    ]


def _read_token(entry: Json) -> Alternative:
    text = entry["token"]
    if text.startswith(ID_PREFIX):
        return Alternative(text, entry["logprob"], int(text[len(ID_PREFIX) :]))
    return Alternative(text, entry["logprob"], entry.get("id"))


def make_image_part(png: bytes) -> Json:
    """A picture as a part of a message."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(png).decode()}"}}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One server family. The defaults are OpenAI's.

    `scorings` are the means that its documentation promises, best first. `top_logprobs` is how many alternatives are
    asked for unless the user says otherwise. `key_variable` is where its users keep their key. `several` is whether
    `n` gives several answers to one prompt, and `seeds` whether a `seed` makes sampling repeatable. `tell_said_ids` and
    `tell_ids` are fields that have the ids told of the tokens that were said, and of all tokens in place of their
    texts: they change how a reply is spelt and nothing that it says, so they are no part of a recipe.
    """

    name: str
    hosts: tuple[str, ...] = ()
    key_variable: str | None = None
    scorings: tuple[Scoring, ...] = (Scoring.TOP_LOGPROBS, Scoring.CHOICE, Scoring.VOTES)
    top_logprobs: int = 20
    max_tokens_field: str = "max_tokens"
    several: bool = True
    seeds: bool = False
    extra: Json = field(default_factory=dict)
    tell_said_ids: Json = field(default_factory=dict)
    tell_ids: Json = field(default_factory=dict)
    ask_logprobs: Callable[[int], Json] = ask_logprobs
    ask_choice: Callable[[Sequence[str]], Json] = ask_json_choice
    ask_token_ids: Callable[[Sequence[int]], Json] | None = None
    read_positions: Callable[[Json], list[Position]] = read_positions
    make_image_part: Callable[[bytes], Json] = make_image_part
