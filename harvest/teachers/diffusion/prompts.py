"""Prompts that are longer than the text encoder's window, in chunks of whole words."""

from collections.abc import Callable

from shared.example import Example


def build_prompt(example: Example) -> str:
    """What is painted: the text fields, one after the other, in lower case (as ARMADA's code does)."""
    fields = [example.text] if example.text_pair is None else [example.text, example.text_pair]
    return " ".join(" ".join(fields).lower().split())


def split_prompt(prompt: str, window: int, count_tokens: Callable[[str], int]) -> list[str]:
    """`prompt` in as few chunks of at most `window` tokens as whole words allow; at least one.

    A word that is longer than a window is cut.
    """
    if count_tokens(prompt) <= window:
        return [prompt]
    chunks: list[str] = []
    taken = window  # the first word begins a chunk
    for word in (part for whole in prompt.split() for part in _cut(whole, window, count_tokens)):
        length = count_tokens(word)
        if taken + length > window:
            chunks.append(word)
            taken = length
        else:
            chunks[-1] += f" {word}"
            taken += length
    return chunks


def _cut(word: str, window: int, count_tokens: Callable[[str], int]) -> list[str]:
    if len(word) == 1 or count_tokens(word) <= window:
        return [word]
    half = len(word) // 2
    return _cut(word[:half], window, count_tokens) + _cut(word[half:], window, count_tokens)
