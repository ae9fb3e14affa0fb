"""Texts that are longer than a model's window, in chunks of whole words."""

from collections.abc import Callable


def split_into_chunks(text: str, max_tokens: int, count_tokens: Callable[[str], int]) -> list[str]:
    """Split `text` into as few chunks of at most `max_tokens` tokens as whole words allow; at least one.

    A word that is longer is cut.
    """
    if count_tokens(text) <= max_tokens:
        return [text]
    chunks: list[str] = []
    taken = max_tokens  # the first word begins a chunk
    for word in (part for whole in text.split() for part in _cut(whole, max_tokens, count_tokens)):
        length = count_tokens(word)
        if taken + length > max_tokens:
            chunks.append(word)
            taken = length
        else:
            chunks[-1] += f" {word}"
            taken += length
    return chunks


def _cut(word: str, max_tokens: int, count_tokens: Callable[[str], int]) -> list[str]:
    if len(word) == 1 or count_tokens(word) <= max_tokens:
        return [word]
    half = len(word) // 2
    return _cut(word[:half], max_tokens, count_tokens) + _cut(word[half:], max_tokens, count_tokens)
