"""Texts that are longer than a model's window, in pieces of whole words."""

from collections.abc import Callable


def split_words(text: str, window: int, count_tokens: Callable[[str], int]) -> list[str]:
    """`text` in as few pieces of at most `window` tokens as whole words allow; at least one.

    A word that is longer than a window is cut.
    """
    if count_tokens(text) <= window:
        return [text]
    pieces: list[str] = []
    taken = window  # the first word begins a piece
    for word in (part for whole in text.split() for part in _cut(whole, window, count_tokens)):
        length = count_tokens(word)
        if taken + length > window:
            pieces.append(word)
            taken = length
        else:
            pieces[-1] += f" {word}"
            taken += length
    return pieces


def _cut(word: str, window: int, count_tokens: Callable[[str], int]) -> list[str]:
    if len(word) == 1 or count_tokens(word) <= window:
        return [word]
    half = len(word) // 2
    return _cut(word[:half], window, count_tokens) + _cut(word[half:], window, count_tokens)
