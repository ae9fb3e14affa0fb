"""A reply that lists labels, where a row has several."""

import json

import pytest

from harvest.chat.dialects import DIALECTS, Scoring
from harvest.chat.elicitation import make_words, read_words
from harvest.chat.prompts import Draw, describe_prompt
from harvest.chat.reply import Form, parse
from harvest.chat.scoring import LOG_ZERO, LabelWords
from shared.errors import UsageError
from shared.schema import Status
from shared.tasks import TASKS

WORDS = LabelWords(("Drama", "Comedy", "Sci-Fi", "rock and roll", "none of these"), several=True)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Drama", {0}),
        ("drama, Comedy.", {0, 1}),
        ("Drama; Sci-Fi", {0, 2}),
        ("Comedy and rock and roll", None),  # two readings
        ("rock and roll, and Comedy", {3, 1}),
        ("Drama & Comedy", {0, 1}),
        ("- Drama\n- **Comedy**\n", {0, 1}),
        ("1. Drama\n2) Sci-Fi", {0, 2}),
        ("The genres are: Drama, Comedy", {0, 1}),
        ("Drama, Drama", {0}),
        ('["Drama", "Comedy"]', {0, 1}),
        ('```json\n{"labels": ["Sci-Fi"]}\n```', {2}),
        ("[]", set()),
        ("None.", set()),
        ("none of these", {4}),
        ("<think>Comedy?</think>Drama", {0}),
        ("", None),
        ("Drama, Western", None),
        ("It is a drama, I think", None),
        ("none, Drama", None),
        ('["Drama", 3]', None),
        ("[Drama", {0}),
    ],
)
def test_a_list_gives_its_labels_and_anything_else_gives_none(reply: str, found: set[int] | None) -> None:
    assert WORDS.match_set(reply) == found


def test_a_word_that_ends_with_punctuation_of_its_own_is_found_in_a_list() -> None:
    words = LabelWords(("Other (misc.)", "Drama", "C", "C."), several=True)
    for reply in ("other (misc.), Drama", "**Other (misc.)** and drama", '["Other (misc.)", "Drama"]'):
        assert words.match_set(reply) == frozenset({0, 1})
    assert words.match_set("C., Drama") == frozenset({3, 1})
    assert words.match_set("C, Drama") == frozenset({2, 1})
    assert words.match_set('"C.", "Drama"') == frozenset({3, 1})


@pytest.mark.parametrize(
    ("reply", "finish", "status", "shares"),
    [
        ("Comedy, Drama", "stop", Status.OK, [1, 1, 0, 0, 0]),
        ("none", "stop", Status.OK, [0, 0, 0, 0, 0]),
        ("Drama, Western", "stop", Status.UNPARSABLE, None),
        ("Drama, Comedy", "length", Status.TRUNCATED, None),
    ],
)
def test_a_reply_becomes_each_labels_own_probability(
    reply: str, finish: str, status: Status, shares: list[int] | None
) -> None:
    choice = {"message": {"role": "assistant", "content": reply}, "finish_reason": finish}
    raw = json.dumps({"choices": [choice]}).encode()
    answer = parse(raw, Form(DIALECTS["openai"], Scoring.LABEL_SET, WORDS)).answer
    assert (answer.status, answer.reply, answer.raw) == (status, reply, raw)
    logprobs = None if shares is None else tuple(0.0 if share else LOG_ZERO for share in shares)
    assert answer.label_logprobs == logprobs
    assert answer.residual_mass == (None if shares is None else 0.0)


def test_a_word_with_a_comma_is_refused_and_a_recipe_says_that_words_are_listed() -> None:
    with pytest.raises(UsageError, match="'a, b' has a comma"):
        LabelWords(("a, b", "c"), several=True)
    task = TASKS["mm_imdb"]
    words = read_words({"prompt": describe_prompt(task, Draw.NONE)})
    made = make_words(task)
    assert words is not None
    assert made is not None
    assert (words.words, words.several) == (made.words, made.several) == (task.label_words, True)
