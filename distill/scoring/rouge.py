"""ROUGE-L of a reply, as MiniLLM scores instruction following (microsoft/LMOps, minillm/rouge_metric.py).

F1 of the longest common subsequence of words, stemmed (Lin, 2004; google-research/rouge), and the best over the right
texts. The words are rouge_score's: runs of a-z and 0-9, so a text in another script has none, and scores 0.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from shared.errors import require_extra


def rouge_l(reply: str, references: Sequence[str]) -> float:
    """Give the best ROUGE-L F1 of a reply over `references`, between 0 and 1."""
    from rapidfuzz.distance import LCSseq

    said = _split_words(reply)
    best = 0.0
    for reference in references:
        right = _split_words(reference)
        common = LCSseq.similarity(said, right) if said and right else 0
        if common:
            precision, recall = common / len(said), common / len(right)
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


def has_words(text: str) -> bool:
    """Tell whether ROUGE-L sees any word in a text: it sees none in Chinese, say, and scores 0 there."""
    return bool(_split_words(text))


@lru_cache(maxsize=4096)  # a reference is scored against several replies
def _split_words(text: str) -> tuple[str, ...]:
    return tuple(_make_tokenizer().tokenize(text))


@lru_cache(maxsize=1)
def _make_tokenizer() -> Any:
    require_extra("distill", "rouge_score", "rapidfuzz")
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)
