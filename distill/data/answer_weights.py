"""The weights of a reply's tokens: those of its final answer may count more, or less, than those of its rationale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.data.columns import Array
from shared.answers import AnswerRule
from shared.example import Example


@dataclass(frozen=True, slots=True)
class AnswerWeights:
    """Weighs the tokens from the beginning of a reply's final answer to its end by `weight`, and all before by 1.

    The answer begins where `rule` locates it (see AnswerRule.locate); the end token is a part of it. A reply whose
    answer cannot be located weighs 1 throughout.
    """

    rule: AnswerRule
    tokenizer: Any
    weight: float

    def weigh(self, example: Example, ids: Sequence[int]) -> Array:
        """Give the weight of each token of a reply to an example, float32 (n,)."""
        weights = np.ones(len(ids), np.float32)
        start = self.rule.locate(self._decode(ids), example.choices)
        if start is not None:
            weights[self._find_token(ids, start) :] = self.weight
        return weights

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _find_token(self, ids: Sequence[int], character: int) -> int:
        """Find the token that a character of the decoded reply is of, or where several make it the last of them."""
        low, high = 0, len(ids) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if len(self._decode(ids[: middle + 1])) > character else (middle + 1, high)
        return low
