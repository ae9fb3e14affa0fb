"""Answer rules: how a reply is turned into an answer, and judged against the right one.

A rule has two parts. `find` reads the answer that a text states, in one spelling for all texts that state the same;
`pick` finds which of a row's choices a reply names. The rules of LLM-Adapters are kept by name, faults
included; those without a prefix are the defaults.
"""

from collections.abc import Mapping

from shared.answers.llm_adapters import (
    find_their_letter,
    find_their_number,
    find_their_word,
    pick_their_letter,
    pick_their_number,
    pick_their_word,
)
from shared.answers.readings import (
    find_choice,
    find_exact,
    find_letter,
    find_number,
    find_number_or_letter,
    pick_choice,
    pick_exact,
    pick_letter,
    pick_number,
)
from shared.answers.rule import AnswerRule, gold_text, has_gold
from shared.errors import UsageError

__all__ = ["RULES", "AnswerRule", "find_rule", "gold_text", "has_gold"]

_RULES = (
    AnswerRule(
        "choice",
        "the choice that the reply names: by its text, by a word like answer2, by a letter or by a number",
        find_choice,
        pick_choice,
    ),
    AnswerRule("letter", "the letter that the reply states, (C) or 'the answer is C'", find_letter, pick_letter),
    AnswerRule(
        "number",
        "the number after 'the answer is' or ####, else the last; right within .001",
        find_number,
        pick_number,
        numeric=True,
    ),
    AnswerRule(
        "number-or-letter",
        "the letter that the reply states, else its number as in `number`",
        find_number_or_letter,
        pick_letter,
        numeric=True,
    ),
    AnswerRule("exact", "the whole reply, but for white space", find_exact, pick_exact),
    AnswerRule(
        "llm-adapters-choice",
        "LLM-Adapters' own: the first answer1..5, ending1..4, option1|2, solution1|2, true or false",
        find_their_word,
        pick_their_word,
    ),
    AnswerRule(
        "llm-adapters-number",
        "LLM-Adapters' own: the last match of -?\\d+\\.?\\d* without commas; '3-5' is -5, '1/2' is 2",
        find_their_number,
        pick_their_number,
        numeric=True,
    ),
    AnswerRule(
        "llm-adapters-letter",
        "LLM-Adapters' own: the first capital A to E anywhere; 'Because' is B",
        find_their_letter,
        pick_their_letter,
    ),
)
RULES: Mapping[str, AnswerRule] = {rule.name: rule for rule in _RULES}


def find_rule(name: str) -> AnswerRule:
    """Find the answer rule of that name. Raises UsageError that lists them."""
    if name not in RULES:
        raise UsageError(f"there is no answer rule {name!r}; there are: {', '.join(RULES)}")
    return RULES[name]
