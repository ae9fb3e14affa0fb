"""What a reply states: a number, a letter, one of a row's choices, or the whole of it."""

import math
import re
from collections.abc import Sequence

TOLERANCE = 0.001  # of two numbers that are the same answer, as in LLM-Adapters
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


_STATED = re.compile(r"\banswer(?:\s+is|\s*:)[\s:*]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


def locate_stated(text: str) -> tuple[int, int] | None:
    """Locate what follows the last "the answer is", "Answer:" or "####", or stands in the last LaTeX box.

    Gives where it begins and where it ends; None without any.
    """
    if boxed := list(_BOXED.finditer(text)):
        return boxed[-1].span(1)
    if "####" in text:
        after = text.rpartition("####")[2]
        return len(text) - len(after.lstrip()), len(text.rstrip())
    places = [match.end() for match in _STATED.finditer(text)]
    return (places[-1], len(text)) if places else None


def _find_stated(text: str) -> str | None:
    """Find what locate_stated locates."""
    span = locate_stated(text)
    return None if span is None else text[span[0] : span[1]]


def _end_sentence(text: str) -> str:
    """The first sentence of `text`, without its end."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def _normalise(text: str) -> str:
    """Lower case, single spaces, no punctuation around: for comparing texts as wholes."""
    return " ".join(text.split()).strip(" .,;:!?\"'()[]*").casefold()


# ---- exact ----


def find_exact(text: str) -> str | None:
    return " ".join(text.split()) or None


def pick_exact(reply: str, choices: Sequence[str]) -> int | None:
    return pick_equal(find_exact(reply), [find_exact(choice) for choice in choices])


def pick_equal(stated: str | None, choices: Sequence[str | None]) -> int | None:
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


def find_number(text: str) -> str | None:
    stated = _find_stated(text)
    if stated is not None:
        sentence = _end_sentence(stated)
        if numbers := _list_numbers(sentence.rpartition("=")[2]) or _list_numbers(sentence):
            return _spell(numbers[0])
    numbers = _list_numbers(text)
    return _spell(numbers[-1]) if numbers else None


def _spell(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def to_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def pick_number(reply: str, choices: Sequence[str]) -> int | None:
    stated = find_number(reply)
    if stated is None:
        return None
    values = [to_number(find_number(choice) or "") for choice in choices]
    near = [i for i, value in enumerate(values) if value is not None and abs(value - float(stated)) <= TOLERANCE]
    return near[0] if len(near) == 1 else None


# ---- letters ----

_LETTER = r"([A-HJ-Z]\b|I(?=[).:\]*]|\s*$))(?!['’])"  # an I that a sentence goes on from is a word
_STATED_LETTER = re.compile(rf"\b(?i:answer|option|choice)(?i:\s+is)?[\s:*(\[]*{_LETTER}")
_LEADING_LETTER = re.compile(rf"^[\s(\[*]*{_LETTER}(?:[).:\]*]|\s*(?:\n|$))")
_BRACKETED_LETTER = re.compile(rf"\({_LETTER}\)")


def _find_stated_letter(text: str) -> str | None:
    """The letter after the last "the answer is" and the like. A small letter is a word: "the answer is a cat"."""
    boxed = [letter.upper() for letter in map(_normalise, _BOXED.findall(text)) if len(letter) == 1]
    found = [letter for letter in boxed if letter in _LETTERS] or _STATED_LETTER.findall(text)
    return str(found[-1]) if found else None


def find_letter(text: str) -> str | None:
    if stated := _find_stated_letter(text):
        return stated
    if leading := _LEADING_LETTER.match(text):
        return leading[1]
    bracketed = _BRACKETED_LETTER.findall(text)
    return bracketed[-1] if bracketed else None


def pick_letter(reply: str, choices: Sequence[str]) -> int | None:
    return number_letter(find_letter(reply), choices)


def number_letter(letter: str | None, choices: Sequence[str]) -> int | None:
    place = len(choices) if letter is None else _LETTERS.index(letter)
    return place if place < len(choices) else None


def find_number_or_letter(text: str) -> str | None:
    return _find_stated_letter(text) or find_number(text)


# ---- choices, however they are named ----

_FORMAT = re.compile(r"\b(?:answer|ending|option|choice|solution)\d(?:/(?:answer|ending|option|choice|solution)\d)+")
_NUMBERED = re.compile(r"\b(?:answer|(?:ending|option|choice|solution)\s?)(\d)\b", re.IGNORECASE)
_BARE_NUMBER = re.compile(r"^\W*(\d)\W*$")


def find_choice(text: str) -> str | None:
    stated = _find_stated(text)
    return _normalise(text if stated is None else _end_sentence(stated)) or None


def pick_choice(reply: str, choices: Sequence[str]) -> int | None:
    """The choice that a reply names by its text, by a word like "answer2", by a letter, or by a bare number.

    Two choices named alike are no answer.
    """
    texts = [_normalise(choice) for choice in choices]
    if (whole := _normalise(reply)) and whole in texts:
        return texts.index(whole)
    if (said := find_choice(reply)) in texts:
        return texts.index(said)
    numbered = {int(number) - 1 for number in _NUMBERED.findall(_FORMAT.sub(" ", reply))}
    if bare := _BARE_NUMBER.match(reply):
        numbered.add(int(bare[1]) - 1)
    if numbered:
        place = numbered.pop()
        return place if not numbered and 0 <= place < len(choices) else None
    if (letter := pick_letter(reply, choices)) is not None:
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
