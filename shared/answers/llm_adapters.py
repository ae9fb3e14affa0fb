"""What a reply states by the rules of LLM-Adapters (arXiv:2304.01933), faults included.

They are those of evaluate.py and commonsense_evaluate.py of AGI-Edgerunners/LLM-Adapters, kept for numbers that can be
held against published ones.
"""

import re
from collections.abc import Sequence

from shared.answers.readings import number_letter, pick_equal

_THEIR_WORDS = re.compile("answer[1-5]|ending[1-4]|option[12]|solution[12]|true|false")


def find_their_word(text: str) -> str | None:
    match = _THEIR_WORDS.search(text)
    return match[0] if match else None


def pick_their_word(reply: str, choices: Sequence[str]) -> int | None:
    word = find_their_word(reply)
    place = int(word[-1]) - 1 if word and word[-1].isdigit() else len(choices)
    return place if place < len(choices) else None


def find_their_number(text: str) -> str | None:
    numbers = re.findall(r"-?\d+\.?\d*", text.replace(",", ""))
    return str(float(numbers[-1])) if numbers else None


def pick_their_number(reply: str, choices: Sequence[str]) -> int | None:
    return pick_equal(find_their_number(reply), [find_their_number(choice) for choice in choices])


def find_their_letter(text: str) -> str | None:
    match = re.search("[A-E]", text)
    return match[0] if match else None


def pick_their_letter(reply: str, choices: Sequence[str]) -> int | None:
    return number_letter(find_their_letter(reply), choices)
