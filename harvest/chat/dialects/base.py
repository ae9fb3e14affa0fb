"""What differs between the servers that speak OpenAI's chat completions, or nearly."""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import repeat
from typing import Any

from harvest.chat.errors import Sign
from harvest.chat.scoring import Alternative, Position

Json = Mapping[str, Any]
BEARER = "Authorization"  # the header that shows a key as "Bearer KEY"; any other holds the bare key
ID_PREFIX = "token_id:"  # of a token's text under vLLM's return_tokens_as_token_ids


class Scoring(StrEnum):
    """How a teacher's answer becomes a label distribution, best first."""

    TOKEN_IDS = "token_ids"  # exact scores of the label words' first tokens, by id
    WORDS = "words"  # exact scores of the whole label words, token by token
    TOP_LOGPROBS = "top_logprobs"  # the most probable tokens of the first positions
    CHOICE = "choice"  # the answer is constrained to the label words: all mass on the one chosen
    VOTES = "votes"  # shares of sampled answers
    LABEL_SET = "label_set"  # the labels that the answer lists, where a row has several: 1 for each, 0 for the others
    TEXT = "text"  # no distribution: the answer is a number or free text


def ask_logprobs(count: int) -> Json:
    """The fields that ask for `count` log-probabilities a position."""
    return {"logprobs": True, "top_logprobs": count}


def make_schema(words: Sequence[str]) -> Json:
    """The JSON schema of {"label": one of the words}."""
    return {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(words)}},
        "required": ["label"],
        "additionalProperties": False,
    }


def ask_json_choice(words: Sequence[str]) -> Json:
    """Structured output that leaves only {"label": one of the words}."""
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": make_schema(words)},
        }
    }


def write_grammar(words: Sequence[str]) -> str:
    """A grammar that leaves only the words, in the notation of llama.cpp (GBNF) and of xgrammar (EBNF)."""
    # A JSON string is a literal of both: the same quotes and escapes.
    return "root ::= " + " | ".join(json.dumps(word, ensure_ascii=False) for word in words)


def read_positions(choice: Json) -> list[Position]:
    """The positions of choices[i].logprobs.content.

    An entry's token id is `id` (llama.cpp) or in its text (vLLM); or the ids of what was said stand in
    choices[i].token_ids, one a position (vLLM).
    """
    content = (choice.get("logprobs") or {}).get("content") or ()
    ids = choice.get("token_ids") or ()
    said_ids = ids if len(ids) == len(content) else [None] * len(content)
    return [
        Position(_read_token(entry), _read_tokens(entry.get("top_logprobs") or ()), said_id)
        for entry, said_id in zip(content, said_ids, strict=True)
    ]


def _read_tokens(entries: Sequence[Json]) -> list[Alternative]:
    """What _read_token makes of each entry, in a third of the time: a reply has hundreds of them."""
    texts = [entry["token"] for entry in entries]
    if ID_PREFIX in "".join(texts):
        return [_read_token(entry) for entry in entries]
    logprobs, ids = [entry["logprob"] for entry in entries], [entry.get("id") for entry in entries]
    return list(map(tuple.__new__, repeat(Alternative), zip(texts, logprobs, ids, strict=True)))


def _read_token(entry: Json) -> Alternative:
    text = entry["token"]
    if text.startswith(ID_PREFIX):
        return Alternative(text, entry["logprob"], int(text[len(ID_PREFIX) :]))
    return Alternative(text, entry["logprob"], entry.get("id"))


def make_image_part(picture: bytes) -> Json:
    """A picture, a PNG or JPEG file, as a part of a message."""
    kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{b64encode(picture).decode()}"}}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One server family. The defaults are those of most: OpenAI's, by the oldest names of the fields.

    How it is known and reached:
    `hosts` are its names, of which a `*` stands for one label, and `owners` how its list of models signs them.
    `example` is a base URL of it. `chat_path` is the route below that, or with `beside_v1` below what stands before its
    /v1. `key_variable` is where its users keep their key, `key_header` what shows it, and `key_hint` what else to say
    where it is refused.

    What is asked:
    `scores_words` is whether its own routes score whole words (see following). `scorings` are the means that its
    documentation promises, best first. `top_logprobs` is how many alternatives are asked for unless the user says
    otherwise. `least_tokens` is the smallest limit of an answer that it takes. `several` is whether `n` gives several
    answers to one prompt, and `seed_field` what makes sampling repeatable. `extra` is in each request. `tell_said_ids`
    and `tell_ids` are fields that have the ids told of the tokens that were said, and of all tokens in place of their
    texts: they change how a reply is spelt and nothing that it says, so they are no part of a recipe. `write_request`
    makes a body of its own route from one of chat completions.

    What comes back:
    `read_reply` makes a body of chat completions from one of its own. `names_model` is whether a reply names the model
    as it was asked for. `cached_tokens` is where `usage` counts the prompt's tokens that were read from a cache.
    `thinks_beside` is whether `completion_tokens` leaves out the thinking that `total_tokens`, and the bill, count.
    `signs` tell its refusals apart that say so in no common way. `price_provider` is whose list genai-prices has its
    prices in, where that cannot be told by the address; models stand there without their publisher.
    """

    name: str
    hosts: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    example: str = ""
    chat_path: str = "/chat/completions"
    beside_v1: bool = False
    key_variable: str | None = None
    key_header: str = BEARER
    key_hint: str = ""
    scorings: tuple[Scoring, ...] = (Scoring.TOP_LOGPROBS, Scoring.CHOICE, Scoring.VOTES)
    top_logprobs: int = 20
    max_tokens_field: str = "max_tokens"
    least_tokens: int = 1
    several: bool = True
    seed_field: str | None = None
    scores_words: bool = False
    extra: Json = field(default_factory=dict)
    tell_said_ids: Json = field(default_factory=dict)
    tell_ids: Json = field(default_factory=dict)
    ask_logprobs: Callable[[int], Json] = ask_logprobs
    ask_choice: Callable[[Sequence[str]], Json] = ask_json_choice
    ask_token_ids: Callable[[Sequence[int]], Json] | None = None
    read_positions: Callable[[Json], list[Position]] = read_positions
    make_image_part: Callable[[bytes], Json] = make_image_part
    write_request: Callable[[Json], Json] | None = None
    read_reply: Callable[[Json], Json] | None = None
    names_model: bool = True
    cached_tokens: tuple[str, ...] = ("prompt_tokens_details", "cached_tokens")
    thinks_beside: bool = False
    signs: tuple[Sign, ...] = ()
    price_provider: str | None = None
