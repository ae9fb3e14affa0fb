"""What an elicitation asks of an endpoint: its requests' fields, its part of the recipe, and the labels' tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from harvest.chat.dialects import Scoring
from harvest.chat.elicitation import Elicitation
from harvest.chat.scoring import LabelWords, separate_first_tokens, spell_word
from harvest.teachers.endpoint.client import Client
from harvest.teachers.endpoint.config import EndpointConfig
from shared.errors import UsageError

_MAX_TOKENS = {
    Scoring.TOKEN_IDS: 1,
    Scoring.WORDS: 1,
    Scoring.TOP_LOGPROBS: 8,  # a label word and what may stand before it; the answer usually ends by itself
    Scoring.CHOICE: 32,  # a label word inside JSON
    Scoring.VOTES: 32,
    Scoring.LABEL_SET: 128,
    Scoring.TEXT: 512,
}
TOKENIZE_PATH = "/tokenize"


def describe_scoring(elicitation: Elicitation, config: EndpointConfig) -> Mapping[str, Any]:
    """The part of the recipe that says where the label distribution comes from."""
    scoring = elicitation.scoring
    if scoring is Scoring.TOKEN_IDS:
        return {"mode": str(scoring), "first_tokens": [list(tokens) for tokens in elicitation.first_tokens]}
    if scoring is Scoring.TOP_LOGPROBS:
        return {"mode": str(scoring), "top_logprobs": count_logprobs(elicitation, config)}
    if scoring is Scoring.VOTES:
        return {"mode": str(scoring), "votes": config.votes}
    return {"mode": str(scoring)}


def count_logprobs(elicitation: Elicitation, config: EndpointConfig) -> int:
    """How many alternatives a position are asked for."""
    return config.top_logprobs or elicitation.dialect.top_logprobs


def limit_tokens(elicitation: Elicitation, config: EndpointConfig) -> int:
    """How many tokens one answer may have."""
    return config.max_tokens or max(_MAX_TOKENS[elicitation.scoring], elicitation.dialect.least_tokens)


def build_parameters(elicitation: Elicitation, config: EndpointConfig, words: LabelWords | None) -> dict[str, Any]:
    """The part of a request's body that changes the answer, but for its messages and, with votes, `n`."""
    dialect, scoring = elicitation.dialect, elicitation.scoring
    temperature = 1.0 if scoring is Scoring.VOTES else 0.0
    parameters: dict[str, Any] = {
        "model": config.model,
        dialect.max_tokens_field: limit_tokens(elicitation, config),
        "temperature": temperature if config.temperature is None else config.temperature,
        "top_p": config.top_p,
        **dialect.extra,
    }
    if scoring is Scoring.TOKEN_IDS:
        assert dialect.ask_token_ids is not None
        parameters |= dialect.ask_token_ids([token for tokens in elicitation.first_tokens for token in tokens])
    elif scoring is Scoring.TOP_LOGPROBS or config.keep_topk:
        parameters |= dialect.ask_logprobs(count_logprobs(elicitation, config))
    if scoring is Scoring.CHOICE:
        assert words is not None
        parameters |= dialect.ask_choice(words.words)
    parameters |= config.body
    return {name: value for name, value in parameters.items() if value is not None}


def build_spelling(elicitation: Elicitation, config: EndpointConfig) -> Mapping[str, Any]:
    """The part of a request's body that has token ids told, and changes nothing of the answer: not in the recipe.

    A field that the user sets, or removes with a null, is the user's.
    """
    dialect = elicitation.dialect
    told: Mapping[str, Any] = {}
    if elicitation.scoring is Scoring.TOP_LOGPROBS:  # labels are found by the texts of tokens, which ids would replace
        told = dialect.tell_said_ids
    elif config.keep_topk:
        told = dialect.tell_ids
    return {name: value for name, value in told.items() if name not in config.body}


def find_seed_field(elicitation: Elicitation, config: EndpointConfig) -> str | None:
    """Where each request is sent a seed of its own: of text that is sampled, where the server has such a field."""
    is_sampled = elicitation.scoring is Scoring.TEXT and bool(config.temperature)
    name = elicitation.dialect.seed_field
    return name if is_sampled and name not in config.body else None


async def find_first_tokens(client: Client, model: str, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The ids of the tokens that may begin an answer with each word, by the server's own tokenizer (vLLM's /tokenize).

    Raises UsageError, naming the words, where two of them begin with the same token, or the server has no tokenizer to
    ask.
    """
    spellings = {text: await _find_first_token(client, model, text) for word in words for text in spell_word(word)}
    return separate_first_tokens(words, spellings)


async def _find_first_token(client: Client, model: str, text: str) -> int:
    reply = await client.fetch_json(TOKENIZE_PATH, {"model": model, "prompt": text, "add_special_tokens": False})
    tokens = reply.get("tokens") if isinstance(reply, dict) else None
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], int):
        raise UsageError("the server has no /tokenize route that tells the ids of the label words' tokens")
    return tokens[0]
