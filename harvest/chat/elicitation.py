"""How a teacher that answers in words is made to give what a row needs, and what its reply must bring for that.

It is recorded in the recipe, so that a kept reply can be read again from its recipe and its bytes alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harvest.chat.dialects import DIALECTS, Dialect, Scoring
from harvest.chat.prompts import FREE_TEXT, LABEL_SET
from harvest.chat.reply import Form, parse
from harvest.chat.scoring import LabelWords
from shared.tasks import Task

MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
FEW_LOGPROBS = 5
WRITTEN = frozenset({Scoring.TEXT, Scoring.LABEL_SET})
# What a parser makes of a reply. Its bill is not its own to change.
READ_COLUMNS = (
    *("status", "reply", "finish_reason", "label_logprobs", "residual_mass", "reply_ids", "reply_logprobs"),
    *("topk_ids", "topk_logprobs", "topk_tail", "error"),
)


@dataclass(frozen=True, slots=True)
class Elicitation:
    """A dialect, a scoring, and for Scoring.TOKEN_IDS the ids of the tokens that may begin each label's word.

    Without ids of its own, a reply must bring them (see Form).
    """

    dialect: Dialect
    scoring: Scoring
    first_tokens: tuple[tuple[int, ...], ...] = ()

    def make_form(
        self, words: LabelWords | None, *, numeric: bool, keep_topk: bool = False, topk: int | None = None
    ) -> Form:
        """What a reply must bring (see Form)."""
        return Form(self.dialect, self.scoring, words, self.first_tokens, numeric, keep_topk, topk)


def make_words(task: Task) -> LabelWords | None:
    """The label words of a task; None where its answers are no labels. Raises UsageError as LabelWords does."""
    return LabelWords(task.label_words, several=task.kind == "multilabel") if task.has_labels else None


def read_words(recipe: Mapping[str, Any]) -> LabelWords | None:
    """The label words of a recipe, None where it is of a task that has none."""
    prompt = recipe["prompt"]
    words = prompt["label_words"]
    return LabelWords(words, several=prompt.get("answer") == LABEL_SET) if words else None


def find_written(words: LabelWords | None) -> Scoring | None:
    """The scoring of an answer that is written: a text, or a list of label words; None where labels are scored."""
    if words is None:
        return Scoring.TEXT
    return Scoring.LABEL_SET if words.several else None


def is_scored(words: LabelWords | None) -> bool:
    """Whether an answer is the scores of one of the words, and not a text: free, or a list of words."""
    return find_written(words) is None


def wants_number(recipe: Mapping[str, Any]) -> bool:
    """Whether the answers of a recipe are to be numbers: it has no label words, and does not ask for free text."""
    prompt = recipe["prompt"]
    return not prompt["label_words"] and prompt.get("answer") != FREE_TEXT


def read_elicitation(recipe: Mapping[str, Any]) -> Elicitation | None:
    """The elicitation that a folder's recipe names; None where it is of another version, and unknown here."""
    try:
        dialect, scoring = DIALECTS[recipe["dialect"]], Scoring(recipe["scoring"]["mode"])
    except (KeyError, ValueError):
        return None
    if (count := recipe["scoring"].get("top_logprobs")) is not None:  # fewer than usual, where an endpoint gives fewer
        dialect = replace(dialect, top_logprobs=count)
    for name in MAX_TOKENS_FIELDS:
        if name in recipe.get("parameters", {}):
            dialect = replace(dialect, max_tokens_field=name)
    return Elicitation(dialect, scoring, tuple(tuple(tokens) for tokens in recipe["scoring"].get("first_tokens", ())))


def adapt(dialect: Dialect, problem: str) -> Dialect | None:
    """The dialect with what an endpoint's refusal says that it takes instead; None where it says nothing of the kind.

    Some give at most five alternatives (Fireworks, Gemini, older OpenAI models); some take only one of the two fields
    for the longest answer.
    """
    other = next(name for name in MAX_TOKENS_FIELDS if name != dialect.max_tokens_field)
    if re.search(r"\bmax_(?:completion_)?tokens\b", problem) and re.search(rf"\b{other}\b|nsupported|xtra", problem):
        return replace(dialect, max_tokens_field=other)
    if "logprobs" in problem and dialect.top_logprobs > FEW_LOGPROBS:
        return replace(dialect, top_logprobs=FEW_LOGPROBS)
    return None


def make_local_form(scoring: Scoring, words: LabelWords | None, *, numeric: bool, topk: int | None) -> Form:
    """What a reply of a model that runs here must bring: it is written and read as that of vLLM's server."""
    elicitation = Elicitation(DIALECTS["vllm"], scoring)
    return elicitation.make_form(words, numeric=numeric, keep_topk=topk is not None, topk=topk)


def limit_local_tokens(scoring: Scoring) -> int:
    """How many tokens its reply may have, unless the user says: the labels' scores need no more than one."""
    return {Scoring.TEXT: 512, Scoring.LABEL_SET: 128}.get(scoring, 1)


def explain_draws(temperature: float | None, is_scored: bool) -> str | None:
    """Why several draws of one prompt would be alike, None where they may differ.

    `is_scored` is whether the answer is a distribution, or a vector, that nothing is drawn from.
    """
    if is_scored:
        return "the answer is no text that is sampled"
    return None if temperature else "the temperature is 0: give --temperature 0.7, say"


def reread(raw: bytes, form: Form) -> Mapping[str, Any]:
    """What a kept reply says under `form`, by column."""
    answer = parse(raw, form).answer
    return {name: getattr(answer, name) for name in READ_COLUMNS}
