"""Answer rules: how a reply is turned into an answer, and judged against the right one.

A rule has two parts. `find` reads the answer that a text states, in one spelling for all texts that state the same;
`pick` finds which of a row's choices a reply names. The rules of LLM-Adapters (arXiv:2304.01933, evaluate.py and
commonsense_evaluate.py of AGI-Edgerunners/LLM-Adapters) are kept by name, faults included, for numbers that can be held
against published ones; those without a prefix are the defaults.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.errors import UsageError

_TOLERANCE = 0.001  # of two numbers that are the same answer, as in LLM-Adapters
_LETTERS = "ABCDEFGH"

_Find = Callable[[str], str | None]
_Pick = Callable[[str, Sequence[str]], int | None]


class _Answered(Protocol):
    """What has a right answer: an Example, or a row of a table."""

    @property
    def choices(self) -> Sequence[str] | None: ...
    @property
    def label(self) -> int | None: ...
    @property
    def target_text(self) -> str | None: ...
    @property
    def references(self) -> Sequence[str] | None: ...


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """How a reply is turned into an answer and judged. `note` says in a line what the rule does."""

    name: str
    note: str
    find: _Find
    pick: _Pick
    numeric: bool = False

    def extract(self, reply: str, choices: Sequence[str] | None) -> str | None:
        """Read the answer that `reply` states, one of `choices` where there are any; None where it states none."""
        if choices is None:
            return self.find(reply)
        place = self.pick(reply, choices)
        return None if place is None else choices[place]

    def is_right(
        self,
        reply: str,
        *,
        choices: Sequence[str] | None = None,
        label: int | None = None,
        target_text: str | None = None,
        references: Sequence[str] | None = None,
    ) -> bool:
        """Judge whether `reply` states the right answer: the choice number `label`, or any of the right texts.

        `references` are all right texts and `target_text` stands for them where there are none. A choice that has the
        same text as the right one is right. Raises ValueError where the row has no right answer to judge by.
        """
        if choices is not None and label is not None:
            place = self.pick(reply, choices)
            return place is not None and choices[place] == choices[label]
        right = references or ([] if target_text is None else [target_text])
        if not right:
            raise ValueError("the row has no right answer to judge the reply by")
        stated = self.find(reply)
        return stated is not None and any(self._is_same(stated, self.find(text)) for text in right)

    def _is_same(self, stated: str, right: str | None) -> bool:
        if right is None or stated == right:
            return stated == right
        numbers = (_to_number(stated), _to_number(right)) if self.numeric else (None, None)
        return None not in numbers and abs(numbers[0] - numbers[1]) <= _TOLERANCE  # type: ignore[operator]


def find_rule(name: str) -> AnswerRule:
    """Find the answer rule of that name. Raises UsageError that lists them."""
    if name not in RULES:
        raise UsageError(f"there is no answer rule {name!r}; there are: {', '.join(RULES)}")
    return RULES[name]


def gold_text(row: _Answered) -> str | None:
    """Give a row's right answer as text: its right choice, or its target text; None where it has neither."""
    if row.choices is not None and row.label is not None:
        return row.choices[row.label]
    return row.target_text if row.target_text is not None else next(iter(row.references or ()), None)


def has_gold(row: _Answered) -> bool:
    """Say whether a reply to the row can be judged: it has a right choice or a right text."""
    return gold_text(row) is not None


# ---- what a reply states ----

_STATED = re.compile(r"\banswer(?:\s+is|\s*:)[\s:*]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


def _find_stated(text: str) -> str | None:
    """What follows the last "the answer is", "Answer:" or "####", or stands in the last LaTeX box; None without any."""
    if boxed := _BOXED.findall(text):
        return str(boxed[-1])
    if "####" in text:
        return text.rpartition("####")[2].strip()
    places = [match.end() for match in _STATED.finditer(text)]
    return text[places[-1] :] if places else None


def _end_sentence(text: str) -> str:
    """The first sentence of `text`, without its end."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def _normalise(text: str) -> str:
    """Lower case, single spaces, no punctuation around: for comparing texts as wholes."""
    return " ".join(text.split()).strip(" .,;:!?\"'()[]*").casefold()


# ---- exact ----


def _find_exact(text: str) -> str | None:
    return " ".join(text.split()) or None


def _pick_exact(reply: str, choices: Sequence[str]) -> int | None:
    return _pick_equal(_find_exact(reply), [_find_exact(choice) for choice in choices])


def _pick_equal(stated: str | None, choices: Sequence[str | None]) -> int | None:
    """The first of the choices that is what was stated."""
    return None if stated is None or stated not in choices else choices.index(stated)


# ---- numbers ----

# A minus sign after a digit, a letter or a bracket is a dash or a subtraction: "3-5", "10-3".
_NUMBER = re.compile(
    r"(?<![\d.])(?P<sign>(?<![\w)\]])[-−])?[$€£]?\s?"
    r"(?:(?:(?P<whole>\d+)\s+)?(?P<over>\d+)\s?/\s?(?P<under>\d+)(?![\d/])|(?P<plain>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?))"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def _list_numbers(text: str) -> list[float]:
    """All numbers of a text: with thousands separated by commas, and fractions as their value."""
    return [value for match in _NUMBER.finditer(_THOUSANDS.sub("", text)) if math.isfinite(value := _read(match))]


def _read(match: re.Match[str]) -> float:
    sign = -1 if match["sign"] else 1
    if match["plain"]:
        return sign * float(match["plain"])
    if float(match["under"]) == 0:
        return math.nan
    return sign * (float(match["whole"] or 0) + float(match["over"]) / float(match["under"]))


def _find_number(text: str) -> str | None:
    stated = _find_stated(text)
    if stated is not None:
        sentence = _end_sentence(stated)
        if numbers := _list_numbers(sentence.rpartition("=")[2]) or _list_numbers(sentence):
            return _spell(numbers[0])
    numbers = _list_numbers(text)
    return _spell(numbers[-1]) if numbers else None


def _spell(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def _to_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _pick_number(reply: str, choices: Sequence[str]) -> int | None:
    stated = _find_number(reply)
    if stated is None:
        return None
    values = [_to_number(_find_number(choice) or "") for choice in choices]
    near = [i for i, value in enumerate(values) if value is not None and abs(value - float(stated)) <= _TOLERANCE]
    return near[0] if len(near) == 1 else None


# ---- letters ----

_STATED_LETTER = re.compile(r"\b(?:answer|option|choice)(?:\s+is)?[\s:*(\[]*([A-H])\b(?!['’])", re.IGNORECASE)
_LEADING_LETTER = re.compile(r"^[\s(\[*]*([A-H])(?:[).:\]*]|\s*(?:\n|$))")
_BRACKETED_LETTER = re.compile(r"\(([A-H])\)")


def _find_stated_letter(text: str) -> str | None:
    """The letter after the last "the answer is" and the like. A small letter is a word: "the answer is a cat"."""
    found = [match[1] for match in _STATED_LETTER.finditer(text) if match[1].isupper()]
    boxed = [letter for letter in map(_normalise, _BOXED.findall(text)) if letter.upper() in _LETTERS and letter]
    return boxed[-1].upper() if boxed else found[-1] if found else None


def _find_letter(text: str) -> str | None:
    if stated := _find_stated_letter(text):
        return stated
    if leading := _LEADING_LETTER.match(text):
        return leading[1]
    bracketed = _BRACKETED_LETTER.findall(text)
    return bracketed[-1] if bracketed else None


def _pick_letter(reply: str, choices: Sequence[str]) -> int | None:
    return _number_letter(_find_letter(reply), choices)


def _number_letter(letter: str | None, choices: Sequence[str]) -> int | None:
    place = len(choices) if letter is None else _LETTERS.index(letter)
    return place if place < len(choices) else None


def _find_number_or_letter(text: str) -> str | None:
    return _find_stated_letter(text) or _find_number(text)


# ---- choices, however they are named ----

_FORMAT = re.compile(r"\b(?:answer|ending|option|choice|solution)\d(?:/(?:answer|ending|option|choice|solution)\d)+")
_NUMBERED = re.compile(r"\b(?:answer|(?:ending|option|choice|solution)\s?)(\d)\b", re.IGNORECASE)
_BARE_NUMBER = re.compile(r"^\W*(\d)\W*$")


def _find_choice(text: str) -> str | None:
    stated = _find_stated(text)
    return _normalise(text if stated is None else _end_sentence(stated)) or None


def _pick_choice(reply: str, choices: Sequence[str]) -> int | None:
    """The choice that a reply names by its text, by a word like "answer2", by a letter, or by a bare number.

    Two choices named alike are no answer.
    """
    texts = [_normalise(choice) for choice in choices]
    if (whole := _normalise(reply)) and whole in texts:
        return texts.index(whole)
    if (said := _find_choice(reply)) in texts:
        return texts.index(said)
    numbered = {int(number) - 1 for number in _NUMBERED.findall(_FORMAT.sub(" ", reply))}
    if bare := _BARE_NUMBER.match(reply):
        numbered.add(int(bare[1]) - 1)
    if numbered:
        place = numbered.pop()
        return place if not numbered and 0 <= place < len(choices) else None
    if (letter := _pick_letter(reply, choices)) is not None:
        return letter
    return _pick_mentioned(reply if said is None else said, texts)


def _pick_mentioned(reply: str, texts: Sequence[str]) -> int | None:
    """The only choice whose text stands in the reply, as whole words and not inside a longer choice's."""
    rest = f" {' '.join(reply.split()).casefold()} "
    found = set()
    for text in sorted({text for text in texts if text}, key=len, reverse=True):
        rest, times = re.subn(rf"(?<!\w){re.escape(text)}(?!\w)", " \0 ", rest)
        if times:
            found.add(text)
    return texts.index(found.pop()) if len(found) == 1 else None


# ---- LLM-Adapters' own ----

_THEIR_WORDS = re.compile("answer[1-5]|ending[1-4]|option[12]|solution[12]|true|false")


def _find_their_word(text: str) -> str | None:
    match = _THEIR_WORDS.search(text)
    return match[0] if match else None


def _pick_their_word(reply: str, choices: Sequence[str]) -> int | None:
    word = _find_their_word(reply)
    place = int(word[-1]) - 1 if word and word[-1].isdigit() else len(choices)
    return place if place < len(choices) else None


def _find_their_number(text: str) -> str | None:
    numbers = re.findall(r"-?\d+\.?\d*", text.replace(",", ""))
    return str(float(numbers[-1])) if numbers else None


def _pick_their_number(reply: str, choices: Sequence[str]) -> int | None:
    return _pick_equal(_find_their_number(reply), [_find_their_number(choice) for choice in choices])


def _find_their_letter(text: str) -> str | None:
    match = re.search("[A-E]", text)
    return match[0] if match else None


def _pick_their_letter(reply: str, choices: Sequence[str]) -> int | None:
    return _number_letter(_find_their_letter(reply), choices)


_RULES = (
    AnswerRule(
        "choice",
        "the choice that the reply names: by its text, by a word like answer2, by a letter or by a number",
        _find_choice,
        _pick_choice,
    ),
    AnswerRule("letter", "the letter that the reply states, (C) or 'the answer is C'", _find_letter, _pick_letter),
    AnswerRule(
        "number",
        "the number after 'the answer is' or ####, else the last; right within .001",
        _find_number,
        _pick_number,
        numeric=True,
    ),
    AnswerRule(
        "number-or-letter",
        "the letter that the reply states, else its number as in `number`",
        _find_number_or_letter,
        _pick_letter,
        numeric=True,
    ),
    AnswerRule("exact", "the whole reply, but for white space", _find_exact, _pick_exact),
    AnswerRule(
        "llm-adapters-choice",
        "LLM-Adapters' own: the first answer1..5, ending1..4, option1|2, solution1|2, true or false",
        _find_their_word,
        _pick_their_word,
    ),
    AnswerRule(
        "llm-adapters-number",
        "LLM-Adapters' own: the last match of -?\\d+\\.?\\d* without commas; '3-5' is -5, '1/2' is 2",
        _find_their_number,
        _pick_their_number,
        numeric=True,
    ),
    AnswerRule(
        "llm-adapters-letter",
        "LLM-Adapters' own: the first capital A to E anywhere; 'Because' is B",
        _find_their_letter,
        _pick_their_letter,
    ),
)
RULES: Mapping[str, AnswerRule] = {rule.name: rule for rule in _RULES}
