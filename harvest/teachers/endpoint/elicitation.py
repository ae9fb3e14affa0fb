"""How this endpoint gives a label distribution: found by the probe, recorded in the recipe, asked for in requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harvest.chat.dialects import DIALECTS, Dialect, Scoring
from harvest.chat.reply import Form
from harvest.chat.scoring import LabelWords, separate_first_tokens, spell_word
from harvest.teachers.endpoint.client import Client
from harvest.teachers.endpoint.config import EndpointConfig
from shared.errors import UsageError

_MAX_TOKENS = {
    Scoring.TOKEN_IDS: 1,
    Scoring.TOP_LOGPROBS: 8,  # a label word and what may stand before it; the answer usually ends by itself
    Scoring.CHOICE: 32,  # a label word inside JSON
    Scoring.VOTES: 32,
    Scoring.TEXT: 512,
}
TOKENIZE_PATH = "/tokenize"


@dataclass(frozen=True, slots=True)
class Means:
    """A dialect, a scoring, and for Scoring.TOKEN_IDS the ids of the tokens that may begin each label's word."""

    dialect: Dialect
    scoring: Scoring
    first_tokens: tuple[tuple[int, ...], ...] = ()

    def describe(self, config: EndpointConfig) -> Mapping[str, Any]:
        """The part of the recipe that says how the distribution was had."""
        if self.scoring is Scoring.TOKEN_IDS:
            return {"mode": str(self.scoring), "first_tokens": [list(tokens) for tokens in self.first_tokens]}
        if self.scoring is Scoring.TOP_LOGPROBS:
            return {"mode": str(self.scoring), "top_logprobs": self.count_logprobs(config)}
        if self.scoring is Scoring.VOTES:
            return {"mode": str(self.scoring), "votes": config.votes}
        return {"mode": str(self.scoring)}

    def count_logprobs(self, config: EndpointConfig) -> int:
        """How many alternatives a position are asked for."""
        return config.top_logprobs or self.dialect.top_logprobs

    def limit_tokens(self, config: EndpointConfig) -> int:
        """How long one answer may get."""
        return config.max_tokens or _MAX_TOKENS[self.scoring]

    def build_parameters(self, config: EndpointConfig, words: LabelWords | None) -> dict[str, Any]:
        """The body of a request but for its messages and, with votes, `n`."""
        temperature = 1.0 if self.scoring is Scoring.VOTES else 0.0
        parameters: dict[str, Any] = {
            "model": config.model,
            self.dialect.max_tokens_field: self.limit_tokens(config),
            "temperature": temperature if config.temperature is None else config.temperature,
            **self.dialect.extra,
        }
        if self.scoring is Scoring.TOKEN_IDS:
            assert self.dialect.ask_token_ids is not None
            parameters |= self.dialect.ask_token_ids([token for tokens in self.first_tokens for token in tokens])
        elif self.scoring is Scoring.TOP_LOGPROBS or config.keep_topk:
            parameters |= self.dialect.ask_logprobs(self.count_logprobs(config))
        if self.scoring is Scoring.CHOICE:
            assert words is not None
            parameters |= self.dialect.ask_choice(words.words)
        parameters |= config.body
        return {name: value for name, value in parameters.items() if value is not None}

    def make_form(self, words: LabelWords | None, *, keep_topk: bool) -> Form:
        """What a reply to such a request must bring."""
        return Form(self.dialect, self.scoring, words, self.first_tokens, numeric=words is None, keep_topk=keep_topk)


def read_means(recipe: Mapping[str, Any]) -> Means | None:
    """The means that a folder's recipe names; None where they are of another version, and unknown here."""
    try:
        dialect, scoring = DIALECTS[recipe["dialect"]], Scoring(recipe["scoring"]["mode"])
    except (KeyError, ValueError):
        return None
    return Means(dialect, scoring, tuple(tuple(tokens) for tokens in recipe["scoring"].get("first_tokens", ())))


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
